"""Goes through a Containerfile's steps without a container engine: each stage is a Debian tree, each RUN a chroot.

    sudo python deploy/images/rehearse.py deploy/images/Containerfile.signalbox [DIRECTORY]

It takes root and debootstrap. What it makes is in DIRECTORY (a new one under /tmp, which is removed afterwards). It
knows the few instructions that the Containerfiles here use, and refuses others.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2]
#: Of the machine, for as long as a RUN lasts: how it reaches the network is its own business.
LENT = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """A Containerfile's instructions and their arguments."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M)
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word, rest.strip()


def rehearse(containerfile: Path, directory: Path) -> Path:
    """Go through all steps; the last stage's tree."""
    stages: dict[str, Path] = {}
    root, environment = directory, dict[str, str]()
    for word, rest in steps(containerfile.read_text()):
        print(f"{word} {rest}", flush=True)
        match word:
            case "FROM":
                release, *name = rest.replace("debian:", "").split(" AS ")
                root = stages[name[0] if name else ""] = directory / f"stage-{len(stages)}"
                environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
                bootstrap(release.removesuffix("-slim").strip(), root, directory / "base")
            case "RUN":
                run(root, rest, environment)
            case "ENV":
                name_, _, value = rest.partition("=")
                environment[name_] = value
            case "COPY":
                copy(rest, root, stages)
            case "USER" | "ENTRYPOINT":
                pass
            case _:
                raise SystemExit(f"{containerfile}: {word} is not known here")
    return root


def bootstrap(release: str, root: Path, base: Path) -> None:
    """A tree of the release, made once and copied."""
    if not base.exists():
        subprocess.run(["debootstrap", "--variant=minbase", release, str(base)], check=True, stdout=sys.stderr)
    subprocess.run(["cp", "-a", str(base), str(root)], check=True)


def run(root: Path, command: str, environment: dict[str, str]) -> None:
    """A command in the tree, in namespaces of its own, so that nothing it mounts or starts is left."""
    lent = []
    for path in map(Path, LENT):
        there = root / path.relative_to("/")
        if path.exists() and not there.exists():
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, there)
            lent.append(there)
    # How this machine reaches its registry, if that is set: pip reads it from the environment.
    given = {key: value for key, value in os.environ.items() if key.startswith(("PIP_CERT", "SSL_CERT"))}
    script = 'mount -t proc proc "$0/proc" && mount -t tmpfs tmpfs "$0/dev/shm"; exec chroot "$0" /bin/sh -c "$1"'
    subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, str(root), command],
        env={**given, **environment, "DEBIAN_FRONTEND": "noninteractive"},
        check=True,
    )
    for there in lent:
        there.unlink(missing_ok=True)


def copy(rest: str, root: Path, stages: dict[str, Path]) -> None:
    """COPY, of the source tree (what git knows of it) or of another stage."""
    words = rest.split()
    source = SOURCE
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")]
    what, where = words
    target = root / where.lstrip("/")
    if what == ".":
        target.mkdir(parents=True)
        # .dockerignore names what is let through, and shuts out everything else.
        let_through = [line[1:] for line in (SOURCE / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
        subprocess.run(
            ["cp", "-a", *(each for each in let_through if (source / each).exists()), str(target)],
            cwd=source,
            check=True,
        )
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/{what.lstrip('/')}", str(target)], check=True)


def main() -> None:
    containerfile = Path(sys.argv[1])
    if len(sys.argv) > 2:
        print(rehearse(containerfile, Path(sys.argv[2])))
        return
    with tempfile.TemporaryDirectory(prefix="signalbox-image-") as directory:
        rehearse(containerfile, Path(directory))


if __name__ == "__main__":
    main()
