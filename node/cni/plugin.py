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
#: A request is a configuration and a few variables.
_LIMIT = 1 << 20
_VERSIONS = ["0.4.0", "1.0.0", "1.1.0"]
_TRY_LATER, _NOT_AVAILABLE, _DECODE, _INVALID_CONFIG = 11, 50, 6, 7
_VARIABLES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")


def _fail(code: int, text: str, version: str) -> int:
    json.dump({"cniVersion": version, "code": code, "msg": text}, sys.stdout)
    return 1


def main() -> int:
    """Answer one request; the exit status is 1 where the answer is an error."""
    command = os.environ.get("CNI_COMMAND", "")
    text = sys.stdin.read(_LIMIT) if command or not sys.stdin.isatty() else ""
    try:
        config = json.loads(text) if text.strip() else {}
        version = str(config.get("cniVersion", "0.4.0"))
    except (ValueError, AttributeError) as error:
        return _fail(_DECODE, f"the network configuration is not a JSON object: {error}", "1.1.0")
    if command == "VERSION":
        json.dump({"cniVersion": version, "supportedVersions": _VERSIONS}, sys.stdout)
        return 0
    if not command:
        print("signalbox-cni is a CNI plugin: a container runtime runs it, with CNI_COMMAND set", file=sys.stderr)
        return _fail(4, "CNI_COMMAND is not set", version)
    path = config.get("socket", _DEFAULT_SOCKET)
    if not isinstance(path, str):
        return _fail(_INVALID_CONFIG, "socket: expected a path", version)
    request = {"env": {name: os.environ[name] for name in _VARIABLES if name in os.environ}, "config": config}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
            agent.settimeout(_TIMEOUT)
            agent.connect(path)
            agent.sendall(json.dumps(request).encode() + b"\n")
            reply = b"".join(iter(lambda: agent.recv(65536), b""))
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
