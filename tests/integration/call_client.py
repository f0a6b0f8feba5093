"""Calls line servers, many times from one process: call_client.py once|steady|hold JSON. Prints JSON.

JSON is a list of calls: {"kind": "tcp"|"udp", "address": A, "port": P, "count": N, "from": PORT, "timeout": SECONDS}.
once     makes each call `count` times and prints, for each call, a list of outcomes
steady   makes the calls in turn until its input ends, then prints all outcomes, each with its call's number
hold     opens each call's connection and keeps it; for each line of input, a list of the seconds that each may take,
         prints a line: each connection's outcome
An outcome is the server's answer, or {"error": "ECONNREFUSED"}; both with the "seconds" that it took.
"""

import errno
import itertools
import json
import random
import select
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

#: As long as `probes.LONG`: of calls that must have no answer, callers say how long they wait.
TIMEOUT = 30.0
PAUSE = 0.01
#: Source ports: another for each connection. The kernel may give one to several that are to different addresses; but if
#: these are ways to the same endpoint over different switches, the endpoint may see both with the client's own address.
FIRST, PORTS = 20000, 9000
NUMBERS = itertools.count(random.randrange(PORTS))


def connect(call):
    family = socket.AF_INET6 if ":" in call["address"] else socket.AF_INET
    while True:
        link = socket.socket(family, socket.SOCK_STREAM if call["kind"] == "tcp" else socket.SOCK_DGRAM)
        link.settimeout(call.get("timeout", TIMEOUT))
        try:
            if call.get("from"):
                link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.bind(("", call.get("from") or FIRST + next(NUMBERS) % PORTS))
            link.connect((call["address"], call["port"]))
        except OSError as error:
            link.close()
            # Another client here has it, or had it a moment ago.
            if error.errno != errno.EADDRINUSE or call.get("from"):
                raise
        else:
            return link


def ask(link, call):
    link.sendall(b"hello\n")
    if call["kind"] == "udp":
        return json.loads(link.recv(1 << 16))
    data = b""
    while not data.endswith(b"\n"):
        more = link.recv(1 << 16)
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "closed in the middle of an answer")
        data += more
    return json.loads(data)


def outcome(function, *arguments):
    begun = time.monotonic()
    try:
        found = function(*arguments)
    except TimeoutError:
        found = {"error": "ETIMEDOUT"}
    except OSError as error:
        found = {"error": errno.errorcode.get(error.errno, str(error))}
    found["seconds"] = time.monotonic() - begun
    return found


def call_once(call):
    with connect(call) as link:
        return ask(link, call)


def once(calls):
    with ThreadPoolExecutor(8) as pool:
        many = pool.map(lambda call: [outcome(call_once, call) for _ in range(call.get("count", 1))], calls)
        json.dump(list(many), sys.stdout)


def steady(calls):
    found = []
    print("begun", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        for number, call in enumerate(calls):
            found.append(outcome(call_once, call) | {"call": number})
    json.dump(found, sys.stdout)


def hold(calls):
    links = [connect(call) for call in calls]
    with ThreadPoolExecutor(len(calls)) as pool:
        for line in sys.stdin:
            for link, seconds in zip(links, json.loads(line), strict=True):
                link.settimeout(seconds)
            print(json.dumps(list(pool.map(outcome, [ask] * len(calls), links, calls))), flush=True)


if __name__ == "__main__":
    {"once": once, "steady": steady, "hold": hold}[sys.argv[1]](json.loads(sys.argv[2]))
