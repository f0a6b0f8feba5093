"""Trees of sysfs, made from recordings: a line for each file (`PATH = TEXT`), link (`PATH -> TARGET`), and file that
can't be read (`PATH ! ERROR`: here a directory, of which reading fails as well)."""

from __future__ import annotations

from pathlib import Path

RECORDINGS = Path(__file__).parent / "nics"


def make(root: Path, recording: str) -> Path:
    """The tree of a recording, as it would be at /sys."""
    for line in (RECORDINGS / f"{recording}.tree").read_text().splitlines():
        if line.startswith("#"):
            continue
        path, kind, rest = line.split(" ", 2)
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if kind == "->":
            place.symlink_to(rest)
        elif kind == "=":
            place.write_text(f"{rest}\n")
        else:
            place.mkdir()
    # What links lead to is there, if only in part.
    for link in [each for each in root.rglob("*") if each.is_symlink() and not each.exists()]:
        (link.parent / link.readlink()).resolve().mkdir(parents=True, exist_ok=True)
    return root
