#!/usr/bin/python3 -IS
"""signalbox-cni where there was no C compiler: the same as plugin.c, of the standard library only.

Passes a CNI request to the node agent's socket and its answer back. This file is copied to where the runtime looks for
plugins, and run once for each pod that comes or goes, so every import is time that a pod waits.
"""

import json
import os
import socket
import sys

_DEFAULT_SOCKET = "/run/signalbox/node.sock"
#: Seconds. The agent bounds its own waits below that.
_TIMEOUT = 60.0
#: Bytes of a configuration, of a variable, and of what a Unix socket may be called.
_LIMIT, _VARIABLE_LIMIT, _PATH_LIMIT = 1 << 20, 65536, 107
_VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]
_INVALID_ENVIRONMENT, _DECODE, _INVALID_CONFIG, _TRY_LATER, _NOT_AVAILABLE = 4, 6, 7, 11, 50
_VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


def _fail(code: int, text: str, version: str) -> int:
    json.dump({"cniVersion": version, "code": code, "msg": text}, sys.stdout)
    return 1


def main() -> int:
    """Answer one request; the exit status is 1 where the answer is an error."""
    command = os.environ.get("CNI_COMMAND", "")
    if not command:
        print("signalbox-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND set", file=sys.stderr)
        return _fail(_INVALID_ENVIRONMENT, "CNI_COMMAND is not set", "1.1.0")
    for name in _VARIABLES:
        if len(os.environb.get(name.encode(), b"")) > _VARIABLE_LIMIT:
            return _fail(_INVALID_ENVIRONMENT, f"{name} is longer than {_VARIABLE_LIMIT} bytes", "1.1.0")
    text = sys.stdin.buffer.read(_LIMIT + 1)
    if len(text) > _LIMIT:
        return _fail(_DECODE, "the network configuration is longer than 1 MiB", "1.1.0")
    try:
        config = json.loads(text or ("{}" if command == "VERSION" else ""))
        version = str(config.get("cniVersion", "0.4.0"))
    except (ValueError, AttributeError, RecursionError) as error:
        return _fail(_DECODE, f"the network configuration is not a JSON object: {error}", "1.1.0")
    if command == "VERSION":
        json.dump({"cniVersion": version, "supportedVersions": _VERSIONS}, sys.stdout)
        return 0
    path = config.get("socket", _DEFAULT_SOCKET)
    if not isinstance(path, str) or not path.startswith("/"):
        return _fail(_INVALID_CONFIG, "socket: expected an absolute path", version)
    if len(path.encode()) > _PATH_LIMIT:
        return _fail(_INVALID_CONFIG, f"socket: a path of at most {_PATH_LIMIT} bytes", version)
    request = {"env": {name: os.environ[name] for name in _VARIABLES if name in os.environ}, "config": config}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(_TIMEOUT)
            agent.connect(path)
            agent.sendall(json.dumps(request).encode() + b"\n")
            reply = b"".join(iter(lambda: agent.recv(65536), b""))
        if not reply:
            raise ValueError("it hung up without an answer")
        head, _, output = reply.partition(b"\n")
        status, length = map(int, head.split())
        if length != len(output):
            raise ValueError("it hung up in the middle of its answer")
    except (OSError, ValueError) as error:
        code = _NOT_AVAILABLE if command == "STATUS" else _TRY_LATER
        return _fail(code, f"the node agent at {path} doesn't answer: {error}", version)
    sys.stdout.write(output.decode())
    return status


if __name__ == "__main__":
    sys.exit(main())
