"""Asks line servers from many network namespaces at once: ask_from.py [MOST], a list of questions on its input as JSON.

A question: {"netns": PATH, "kind": "tcp"|"udp", "from": A, "address": A, "port": P, "expected": BOOL}; without `from`
the kernel chooses. Prints a list of what came of each: the server's name, "refused" by who has nobody listening there,
another error, or "" for silence.

It is over when all that is expected has come, and twice as long has gone by as that took, in which the rest could have
come just as well; or after MOST seconds.
"""

import contextlib
import ctypes
import errno
import json
import os
import selectors
import socket
import sys
import time

LEAST, MOST = 0.25, 30.0
#: A first datagram may be lost; TCP sends again by itself, but late.
AGAIN = 0.5
NEW_NETWORK = 0x40000000


def enter(path):
    """Sockets made from now on belong to this namespace."""
    handle = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), path)
    finally:
        os.close(handle)


def begin(question):
    family = socket.AF_INET6 if ":" in question["address"] else socket.AF_INET
    link = socket.socket(family, socket.SOCK_STREAM if question["kind"] == "tcp" else socket.SOCK_DGRAM)
    link.setblocking(False)
    if question.get("from"):
        link.bind((question["from"], 0))
    found = link.connect_ex((question["address"], question["port"]))
    if found in (0, errno.EINPROGRESS):
        return link
    link.close()
    raise OSError(found, question["address"])


def words(error):
    return "refused" if error.errno == errno.ECONNREFUSED else errno.errorcode.get(error.errno, str(error))


def go_on(link, events):
    """What has come of a question, if it has: the answer, or None. Raises OSError."""
    if events & selectors.EVENT_WRITE:
        error = link.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "")
        link.send(b"hello\n")
        return None
    data = link.recv(4096)
    return json.loads(data)["name"] if data else "closed"


def ask_again(questions, links):
    for number, link in links.items():
        if questions[number]["kind"] == "udp":
            # What has come of it meanwhile is told by the next read.
            with contextlib.suppress(OSError):
                link.send(b"hello\n")


def main():
    questions = json.load(sys.stdin)
    found = [""] * len(questions)
    links = {}
    waiting = selectors.DefaultSelector()
    begun = time.monotonic()
    for number in sorted(range(len(questions)), key=lambda each: questions[each]["netns"]):
        enter(questions[number]["netns"])
        try:
            links[number] = begin(questions[number])
            waiting.register(links[number], selectors.EVENT_WRITE, number)
        except OSError as error:
            found[number] = words(error)
    missing = {number for number in links if questions[number]["expected"]}
    most = float(sys.argv[1]) if sys.argv[1:] else MOST
    again, end = begun + AGAIN, begun + (most if missing else LEAST)
    while links and (now := time.monotonic()) < end:
        for key, events in waiting.select(max(0, min(end, again) - now)):
            number, link = key.data, key.fileobj
            try:
                answer = go_on(link, events)
                if answer is None:
                    waiting.modify(link, selectors.EVENT_READ, number)
                    continue
                found[number] = answer
            except OSError as error:
                found[number] = words(error)
            waiting.unregister(link)
            links.pop(number).close()
            if number in missing:
                missing.remove(number)
                if not missing:
                    end = begun + max(LEAST, 2 * (time.monotonic() - begun))
        if time.monotonic() > again:
            again += AGAIN
            ask_again(questions, links)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
