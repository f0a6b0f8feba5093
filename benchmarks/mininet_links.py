"""How long Mininet's hosts don't answer when a link between switches is cut, and when it is back: every link in turn.

For each link a host near one end is pinged from one near the other every 10 ms while the link goes down, and while it
comes up; then all hosts ping all. What is counted is the longest run of pings without an answer. Needs Mininet.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import rig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests/integration"))
import mininet_box

NETWORKS = ("torus 3 3", "fat-tree 4", "leaf-spine 2 6 1")
QUICK_LINKS = 2
DRIVER = Path(mininet_box.__file__).with_name("mininet_driver.py")


def drive(words: str, links: int) -> dict:
    """What the driver saw."""
    with tempfile.TemporaryDirectory() as directory:
        argv = [sys.executable, str(DRIVER), *words.split(), "--links", str(links)]
        done = mininet_box.run(argv, Path(directory), timeout=900)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    quick = rig.arguments(__doc__ or "")
    rig.need("ovs-vswitchd", "ovsdb-server", "mnexec", "ping", "unshare")
    rows = []
    for words in NETWORKS:
        rig.progress(words)
        told = drive(words, QUICK_LINKS if quick else 1000)
        cuts = told["cuts"]
        lost = sum(len(cut["unreached_down"]) + len(cut["unreached_up"]) for cut in cuts)
        for name in ("down", "up"):
            seconds = [cut[name] for cut in cuts]
            rows.append(
                (
                    f"{words}: link {name}",
                    str(len(cuts)),
                    f"{1000 * statistics.median(seconds):.0f} ms",
                    f"{1000 * max(seconds):.0f} ms",
                    str(lost) if name == "down" else "",
                )
            )
        rows.append((f"  all started and found in {told['seconds']:.1f} s", "", "", "", ""))
    rig.table(("network (pings 10 ms apart)", "links", "median", "longest", "pairs that didn't answer then"), rows)


if __name__ == "__main__":
    main()
