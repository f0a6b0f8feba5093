"""The console with 1,000 nodes and 100,000 pods, as a person sees it: how long views take in headless Chromium.

A controller knows the nodes, the pods with their ports, 1,000 Services and 1,500 policies; no switch is connected to
it, so nothing is asked of any. `signalbox console`'s proxy is between it and the browser. A time is the page's own,
from the click, or from the start of navigation, until what was asked for is shown. What the API alone takes is measured
beside, from the same proxy. The controller, the proxy and the browser share the machine.
"""

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from threading import Thread

import rig
from cluster_objects import node, node_ports, pod_port, service, slice_of
from cluster_policies import namespaces, pods, policies
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service as Driver

from controller.api import serve
from controller.app import Controller
from controller.console import proxy
from controller.process import collect_seldom
from flows.state import Port
from topology.manifest_state import Snapshot

#: Pods are ten for each namespace.
NODES, NAMESPACES, SERVICES, WITH_POLICIES, RUNS = 1_000, 10_000, 1_000, 200, 5
QUICK_NODES, QUICK_NAMESPACES, QUICK_SERVICES, QUICK_POLICIES, QUICK_RUNS = 100, 1_000, 100, 20, 2
#: Seconds that are aimed at: the first view, and a page of a list.
FIRST, PAGE = 1.0, 0.2
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
#: Until a view is there: not busy, with rows or boxes. Asked at each frame.
_SHOWN = """
    const [act, shown, done] = [arguments[0], arguments[1], arguments[arguments.length - 1]];
    const start = performance.now();
    new Function(act)();
    const look = () => {
        const busy = document.body.hasAttribute("aria-busy");
        if (!busy && performance.now() > start && document.querySelector(shown)) done(performance.now() - start);
        else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
"""
#: When, since navigation began, the first view was there.
_FIRST = """
    new MutationObserver((_, observer) => {
        if (!document.querySelector("#view tbody tr") || document.body.hasAttribute("aria-busy")) return;
        observer.disconnect();
        requestAnimationFrame(() => { window.first = performance.now(); });
    }).observe(document, { subtree: true, childList: true, attributes: true });
"""


# The controller, in a process of its own ------------------------------------------------------------------------------


def cluster(nodes: int, spaces: int, services: int, with_policies: int) -> Controller:
    """A controller that knows all of it."""
    homes = {each.name: each for each in map(node, range(nodes))}
    there = list(pods(spaces, nodes))
    made = chain.from_iterable((service(index), slice_of(index, 10, nodes)) for index in range(services))
    objects = [*homes.values(), *namespaces(spaces), *there, *made, *policies(with_policies)]
    controller = Controller()
    controller.take(Snapshot({each.key: each for each in objects}))
    ports: dict[str, list[Port]] = {name: node_ports() for name in homes}
    count: Counter[str] = Counter()
    for each in there:
        ports[each.node].append(pod_port(homes[each.node], each, count[each.node]))
        count[each.node] += 1
    for name, mine in ports.items():
        controller.compiler.set_ports(name, mine)
    return controller


async def keep(path: Path, sizes: list[int]) -> None:
    """Serve the API there until the end of standard input, and say how large the controller is."""
    controller = cluster(*sizes)
    runner = await serve(controller, path)
    print(f"{rig.memory():.0f}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@contextlib.contextmanager
def controller(path: Path, sizes: list[int]) -> Iterator[float]:
    """The controller's memory, in MB."""
    argv = [sys.executable, __file__, "--keep", str(path), *map(str, sizes)]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None and child.stdout is not None
    try:
        yield float(child.stdout.readline())
    finally:
        child.stdin.close()
        child.wait()


@contextlib.contextmanager
def console(path: Path) -> Iterator[str]:
    """The address of the console."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    here = proxy.serve(path, "127.0.0.1", 0, "secret")
    try:
        yield asyncio.run_coroutine_threadsafe(here.__aenter__(), loop).result()
        asyncio.run_coroutine_threadsafe(here.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


# The browser ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def chromium(profile: str) -> Iterator[Chrome]:
    """A browser that asks nobody else."""
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = Chrome(options=options, service=Driver("/usr/bin/chromedriver"))
    try:
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 1280, "height": 720, "deviceScaleFactor": 1, "mobile": False},
        )
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _FIRST})
        yield driver
    finally:
        driver.quit()


class Page:
    """The console in the browser."""

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def first(self) -> float:
        """Seconds from the start of navigation until the first view is there."""
        self.driver.get("about:blank")
        self.driver.get(self.url)
        deadline = time.monotonic() + 60
        while (found := self.driver.execute_script("return window.first")) is None:
            if time.monotonic() > deadline:
                raise RuntimeError("there is no first view")
            time.sleep(0.01)
        return float(found) / 1e3

    def act(self, script: str, shown: str = "#view tbody tr") -> float:
        """Seconds from doing something until it is shown."""
        return float(self.driver.execute_async_script(_SHOWN, script, shown)) / 1e3

    def open(self, place: str, shown: str = "#view tbody tr") -> float:
        """Seconds that a view takes, coming from another."""
        self.act('location.hash = "#/events"', "#count")
        return self.act(f'location.hash = "#/{place}"', shown)


def ask(url: str, path: str) -> tuple[float, int]:
    """Seconds that an answer of the API takes, and its bytes."""
    begun = time.perf_counter()
    with urllib.request.urlopen(url.replace("/console/", f"/v1/{path}")) as answer:
        size = len(answer.read())
    return time.perf_counter() - begun, size


def typed(words: str) -> str:
    """What a person does who types into the filter; the page waits a quarter of a second for more."""
    return f"""
        document.querySelector("#filter").value = "{words}";
        document.querySelector("#filter").dispatchEvent(new Event("input"));
        document.body.setAttribute("aria-busy", "true");
    """


def measured(title: str, act: Callable[[], float], runs: int, aim: float | None = None) -> list[str]:
    """A row: the median of some runs, and its ratio to what is aimed at."""
    rig.progress(title)
    taken = statistics.median(act() for _ in range(runs))
    return [title, f"{taken * 1e3:.0f} ms", "" if aim is None else f"{taken / aim:.2f}",
            "" if aim is None else f"aim, {aim:g} s"]  # fmt: skip


def rows(page: Page, runs: int, spaces: int, nodes: int) -> Iterator[list[str]]:
    """Everything that is measured."""
    url = page.url
    group = ".drawing .box[data-key]" if nodes > 60 else ".drawing .box"

    def next_page() -> float:
        page.open("pods")
        # Busy from the click on.
        return page.act("""document.querySelector("#place").nextSibling.click()""")

    def find(words: str) -> float:
        page.open("pods")
        return page.act(typed(words)) - 0.25

    def of_group() -> float:
        page.open("topology", group)
        return page.act("""
            document.body.setAttribute("aria-busy", "true");
            document.querySelector(".drawing .box").dispatchEvent(new MouseEvent("click", { bubbles: true }));
        """, ".drawing .hub")  # fmt: skip

    def api(path: str) -> Callable[[], float]:
        return lambda: ask(url, path)[0]

    team = ",".join(f"space-{index}" for index in range(min(20, spaces)))
    yield measured("first view, from nothing: nodes", page.first, runs, FIRST)
    yield measured("  nodes, from another view", lambda: page.open("nodes"), runs, PAGE)
    yield measured("  of that, the API: 100 nodes", api("nodes?limit=100"), runs)
    yield measured("pods, from another view", lambda: page.open("pods"), runs, PAGE)
    yield measured("  the next page", next_page, runs, PAGE)
    yield measured("  of that, the API: 100 pods", api("pods?limit=100"), runs)
    yield measured("  all pods at once, by the API alone", api("pods"), runs)
    yield measured("  those of one namespace, by the API", api("pods?limit=100&namespace=space-7"), runs)
    yield measured("  a name among all, found by the API", lambda: find("name=worker-2"), runs)
    yield measured("  words in all pages, found by the page", lambda: find(f"space-{spaces - 1} db"), runs)
    yield measured("Services, from another view", lambda: page.open("services"), runs, PAGE)
    yield measured("policies, from another view", lambda: page.open("policies"), runs, PAGE)
    yield measured("topology, in groups", lambda: page.open("topology", group), runs, FIRST)
    yield measured("  of that, the API", api("topology"), runs)
    yield measured("  a group's nodes and links, drawn", of_group, runs, FIRST)
    two = lambda: page.open("matrix?namespace=space-0%2Cspace-1", ".cell-button")  # noqa: E731
    yield measured("matrix of two namespaces", two, runs, FIRST)
    yield measured(
        f"  of {team.count(',') + 1} namespaces, by the API alone", api(f"matrix?port=80&namespace={team}"), runs
    )


def main() -> None:
    sizes = ([QUICK_NODES, QUICK_NAMESPACES, QUICK_SERVICES, QUICK_POLICIES] if quick
             else [NODES, NAMESPACES, SERVICES, WITH_POLICIES])  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        socket = Path(directory) / "api.sock"
        rig.progress("the controller reads its objects")
        with controller(socket, sizes) as memory, console(socket) as url, chromium(f"{directory}/profile") as driver:
            runs = QUICK_RUNS if quick else RUNS
            found = list(rows(Page(driver, url), runs, sizes[1], sizes[0]))
            size = ask(url, "pods")[1]
    rig.progress("")
    title = f"{sizes[0]:,} nodes, {sizes[1] * 10:,} pods (median of {runs})"
    found.append(["controller's memory", f"{memory:.0f} MB", "", ""])
    found.append(["all pods at once", f"{size / 1e6:.1f} MB", "", ""])
    rig.table([title, "time", "ratio", "compared with"], found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--keep"]:
        collect_seldom()
        asyncio.run(keep(Path(sys.argv[2]), list(map(int, sys.argv[3:7]))))
    else:
        quick = rig.arguments(__doc__ or "")
        main()
