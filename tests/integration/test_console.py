"""The console in a browser, over a lab: views show what the controller knows, and no request leaves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import probes
import pytest
from aiohttp import web
from browser import chromium, complaints, hosts_asked, window
from callers import ofctl, put
from conftest import make_pod_lab
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from controller import console
from controller.access import Access, Tokens
from controller.api import serve, serve_remote
from controller.app import Controller
from controller.console import proxy
from controller.tls import Credentials, TlsFiles
from deploy import certificates
from deploy.lab.cluster import Lab
from topology.manifest_state import Snapshot
from topology.model import Node

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs/images"
#: Pictures that docs/console.md shows.
SHOWN = (
    *("console-nodes-light", "console-services-light", "console-flows-light", "console-matrix-light"),
    *("console-events-light", "console-trace-dark", "console-topology-light", "console-topology-thousand-light"),
)
#: The navigation's links, in their order.
VIEWS = ("Nodes", "Pods", "Services", "Policies", "Matrix", "Topology", "Trace", "Events")
#: Contrast of text that WCAG 2 asks for at level AA.
CONTRAST = 4.5
#: And of what is drawn.
GRAPHIC_CONTRAST = 3.0


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as here:
        yield here


#: One of each kind that pods.yaml has none of.
OBJECTS = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  selector: {app: b1}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-a1, namespace: default}
spec:
  podSelector: {matchLabels: {app: b1}}
  ingress: [{from: [{podSelector: {matchLabels: {app: a1}}}], ports: [{port: 8080}]}]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The pods of pods.yaml, a Service of b1, and a policy that lets a1 alone reach it."""
    for here in make_pod_lab("w", tmp_path_factory.mktemp("manifests")):
        put(here.layout.manifests / "console.yaml", OBJECTS)
        for kind in ("services", "policies"):
            until(functools.partial(has_some, here, kind), kind)
        yield here


def has_some(lab: Lab, kind: str) -> bool:
    return bool(lab.ask(kind)["items"])


@pytest.fixture(scope="module")
def address(lab: Lab) -> Iterator[str]:
    """Where `signalbox console` says that it is."""
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.command", "console", "--listen", "127.0.0.1:0", "--socket", lab.layout.api],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = re.fullmatch(r"The console is at (\S+)\n", process.stdout.readline())
        assert said
        yield said[1]
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def page(driver: Chrome, address: str) -> Iterator[Chrome]:
    """The console as it opens, on a wide screen; in the end nothing was refused, and no other host asked."""
    window(driver, 1280, 720)
    driver.get("about:blank")
    hosts_asked(driver), complaints(driver)
    origin = {"origin": f"http://{urlsplit(address).netloc}", "storageTypes": "local_storage"}
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", origin)
    driver.get(address)
    shows(driver, "Nodes")
    yield driver
    assert hosts_asked(driver) == {urlsplit(address).netloc}
    assert complaints(driver) == []


def until(condition: Callable[[], object], what: str, timeout: float = 2 * probes.LONG) -> float:
    """Wait as `probes.until` does. What isn't on the page yet, or is made anew just now, is not yet as it should be."""

    def is_so() -> bool:
        try:
            return bool(condition())
        except (NoSuchElementException, StaleElementReferenceException):
            return False

    return probes.until(is_so, what, timeout)


def shows(page: Chrome, title: str) -> None:
    """Wait until a view is there with its rows."""

    def there() -> bool:
        is_busy = page.find_element(By.TAG_NAME, "body").get_attribute("aria-busy")
        return page.find_element(By.ID, "title").text == title and not is_busy

    until(there, f"view {title}")
    assert page.find_element(By.ID, "problem").text == ""


def column(page: Chrome, heading: str) -> list[str]:
    """What is in a column, row by row."""
    script = """
        const table = document.querySelector("#view table");
        // Not there yet: whoever waits asks again.
        if (!table) return [];
        const at = [...table.querySelectorAll("thead th")].findIndex((each) => each.textContent === arguments[0]);
        const rows = [...table.querySelectorAll(":scope > tbody > tr:not(.behind)")];
        return rows.map((row) => row.children[at].textContent);
    """
    return list(page.execute_script(script, heading))


def open_view(page: Chrome, title: str) -> None:
    link = page.find_element(By.LINK_TEXT, title)
    goes = link.get_attribute("href") != page.current_url
    page.execute_script("for (const each of document.querySelectorAll('#view > *')) each.dataset.before = 'true'")
    link.click()
    if goes:
        # It may be called as the one before, and comes a moment after the click.
        until(lambda: not page.find_elements(By.CSS_SELECTOR, "#view > [data-before]"), f"view {title}, made anew")
    shows(page, title)


def filter_by(page: Chrome, text: str) -> None:
    field = page.find_element(By.ID, "filter")
    # As a person does it: `clear` of the driver changes the field without the event that typing has.
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.BACKSPACE, text)


def test_nodes_are_shown_as_the_controller_knows_them(page: Chrome, lab: Lab) -> None:
    rows = lab.ask("nodes")["items"]
    assert column(page, "Name") == [row["name"] for row in rows]
    assert column(page, "Status") == ["Synced"] * 3
    assert column(page, "Addresses") == [", ".join(row["addresses"]) for row in rows]


@pytest.mark.parametrize("kind", ["pods", "services", "policies"])
def test_each_list_is_reached_by_its_link_and_has_what_there_is(page: Chrome, lab: Lab, kind: str) -> None:
    open_view(page, kind.capitalize())
    wanted = [row["name"] for row in lab.ask(kind)["items"]]
    assert wanted and column(page, "Name") == wanted
    (current,) = page.find_elements(By.CSS_SELECTOR, "nav [aria-current=page]")
    assert current.text == kind.capitalize()


def test_a_node_s_flows_are_explained(page: Chrome, lab: Lab) -> None:
    name = column(page, "Name")[0]
    page.find_element(By.LINK_TEXT, name).click()
    shows(page, f"Flows of {name}")
    rows = lab.ask("nodes", name, "flows")["items"]
    assert page.find_element(By.ID, "count").text == f"{len(rows)} in all"
    assert column(page, "What it does") == [row["words"] for row in rows][:100]


def test_a_service_is_opened_to_its_endpoints(page: Chrome) -> None:
    open_view(page, "Services")
    opener = page.find_element(By.CSS_SELECTOR, "button[aria-expanded]")
    assert (opener.accessible_name, opener.get_attribute("aria-expanded")) == ("Endpoints of default/shop", "false")
    opener.send_keys(Keys.ENTER)
    rows = "#view .behind tbody tr"
    until(lambda: page.find_elements(By.CSS_SELECTOR, rows), "endpoints")
    assert "http" not in page.find_element(By.CSS_SELECTOR, rows).text
    assert re.search(r"10\.244\.2\.2:8080 Ready yes b1 node-2", page.find_element(By.CSS_SELECTOR, rows).text)
    page.find_element(By.ID, "refresh").click()
    shows(page, "Services")
    assert opener.get_attribute("aria-expanded") == "true" and page.find_elements(By.CSS_SELECTOR, rows)
    opener.click()
    assert page.find_elements(By.CSS_SELECTOR, rows) == []


@pytest.mark.parametrize(
    ("title", "heading", "words"), [("Nodes", "Receives", "bit/s"), ("Services", "Connections", "/s")]
)
def test_what_nodes_and_services_carry_is_put_beside_them(page: Chrome, title: str, heading: str, words: str) -> None:
    open_view(page, title)
    until(lambda: all(each.endswith(words) for each in column(page, heading)), "rates")


def test_a_filter_narrows_the_list_and_says_by_how_much(page: Chrome, lab: Lab) -> None:
    open_view(page, "Pods")
    filter_by(page, "a1")
    assert column(page, "Name") == ["a1"]
    filter_by(page, "there-is-no-such-pod")
    assert column(page, "Name") == []
    assert page.find_element(By.ID, "count").text == f"0 of {len(lab.ask('pods')['items'])}"


def test_everything_is_reached_by_keyboard_and_has_a_name(page: Chrome) -> None:
    page.execute_script("document.activeElement.blur()")
    reached = []
    names = column(page, "Name")
    for _ in range(5 + len(VIEWS) + len(names)):
        page.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.switch_to.active_element
        reached.append((focused.aria_role, focused.accessible_name))
    assert reached == [
        ("link", "Skip to the view"),
        *(("link", title) for title in VIEWS),
        ("button", "Dark"),
        ("searchbox", "Filter"),
        ("button", "Refresh"),
        ("region", "Nodes"),
        *(("link", f"Flows of {name}") for name in names),
    ]


def test_a_view_is_opened_by_keyboard_and_has_the_focus(page: Chrome) -> None:
    page.find_element(By.LINK_TEXT, "Pods").send_keys(Keys.ENTER)
    shows(page, "Pods")
    main = page.switch_to.active_element
    assert main.get_attribute("id") == "main"
    # What holds the whole view has no frame: of it two lines across the page would be seen.
    assert main.value_of_css_property("outline-style") == "none"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_until_the_button_says_otherwise(page: Chrome, scheme: str) -> None:
    other = {"light": "dark", "dark": "light"}[scheme]
    window(page, 1280, 720, scheme=scheme)
    page.refresh()
    shows(page, "Nodes")
    assert theme(page) == scheme
    # At sunset, say.
    for now in (other, scheme):
        window(page, 1280, 720, scheme=now)
        until(lambda now=now: theme(page) == now, f"the page is {now}")  # type: ignore[misc]
    page.find_element(By.ID, "theme").click()
    assert theme(page) == other
    window(page, 1280, 720, scheme=other)
    window(page, 1280, 720, scheme=scheme)
    assert theme(page) == other
    page.refresh()
    shows(page, "Nodes")
    assert theme(page) == other


def theme(page: Chrome) -> Any:
    return page.execute_script("return document.documentElement.dataset.theme")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(page: Chrome, scheme: str) -> None:
    window(page, 1280, 720, scheme=scheme)
    page.refresh()
    shows(page, "Nodes")
    pairs = []
    for title in VIEWS:
        open_view(page, title)
        pairs += page.execute_script(_COLOURS)
    ask_trace(page, "a2", "svc/shop", "80")
    pairs += page.execute_script(_COLOURS)
    assert len(pairs) > 200
    assert [(text, round(contrast(a, b), 2)) for text, a, b in pairs if contrast(a, b) < CONTRAST] == []
    lines = page.execute_script(_LINES)
    assert len(lines) == 6
    assert [(name, round(contrast(a, b), 2)) for name, a, b in lines if contrast(a, b) < GRAPHIC_CONTRAST] == []


#: The colours of links, and what is behind them.
_LINES = """
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => {
        const made = document.body.appendChild(document.createElement("i"));
        made.style.color = style.getPropertyValue(name);
        const found = getComputedStyle(made).color;
        made.remove();
        return found;
    };
    const names = ["--idle", "--low", "--some", "--high", "--flow", "--way"];
    return names.map((name) => [name, colour(name), colour("--sheet")]);
"""
#: Every text that is shown, its colour and that of the first thing behind it that isn't transparent.
_COLOURS = """
    const found = [];
    for (const each of document.querySelectorAll("body *")) {
        const own = [...each.childNodes].filter((node) => node.nodeType === 3);
        const text = own.map((node) => node.data.trim()).join("");
        if (!text || !each.checkVisibility() || each.disabled) continue;
        if (each.tagName === "text") {
            const under = each.parentElement.querySelector(each.matches(".mark-text") ? ".mark" : ".sheet");
            const style = getComputedStyle(each);
            found.push([text, style.fill, under ? getComputedStyle(under).fill : style.stroke]);
            continue;
        }
        let behind = each;
        while (behind && getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        found.push([text, getComputedStyle(each).color, getComputedStyle(behind).backgroundColor]);
    }
    return found;
"""


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two CSS colours."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_narrow_screen_scrolls_the_table_and_not_the_page(page: Chrome, tmp_path: Path) -> None:
    # As wide as WCAG 2's "Reflow" has it, and some telephones are.
    window(page, 320, 720)
    for title in VIEWS:
        open_view(page, title)
        assert page.execute_script("return document.documentElement.scrollWidth") <= 320, title
    picture(page, "console-narrow", tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_views_as_pictures(page: Chrome, scheme: str, tmp_path: Path) -> None:
    window(page, 1280, 480, scheme=scheme)
    page.refresh()
    shows(page, "Nodes")
    picture(page, f"console-nodes-{scheme}", tmp_path)
    for title in ("Pods", "Services", "Policies", "Matrix", "Events", "Trace"):
        open_view(page, title)
        if title in _BEFORE:
            _BEFORE[title](page)
        picture(page, f"console-{title.lower()}-{scheme}", tmp_path)
    window(page, 1280, 480, scheme=scheme)
    open_view(page, "Nodes")
    page.find_element(By.LINK_TEXT, column(page, "Name")[0]).click()
    until(lambda: page.find_element(By.ID, "title").text.startswith("Flows of"), "flows")
    shows(page, page.find_element(By.ID, "title").text)
    picture(page, f"console-flows-{scheme}", tmp_path)


def open_endpoints(page: Chrome) -> None:
    page.find_element(By.CSS_SELECTOR, "button[aria-expanded]").click()
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#view .behind tbody tr"), "endpoints")
    until(lambda: column(page, "Carries")[0].endswith("bit/s"), "rates")


def explain_a_cell(page: Chrome) -> None:
    field = page.find_element(By.ID, "port")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("8080", Keys.TAB)
    allowed = "[aria-label='default[app=a1] to default[app=b1]: allowed']"
    until(lambda: page.find_elements(By.CSS_SELECTOR, allowed), "8080")
    page.find_element(By.CSS_SELECTOR, allowed).click()
    window(page, 1280, 700, scheme=theme(page))
    until(lambda: "Allowed" in page.find_element(By.CSS_SELECTOR, "aside.details").text, "why")


def trace_a_service(page: Chrome) -> None:
    ask_trace(page, "a1", "svc/shop", "80")
    window(page, 1280, 1000, scheme=theme(page))


#: What is done in a view before its picture is taken.
_BEFORE = {"Services": open_endpoints, "Matrix": explain_a_cell, "Trace": trace_a_service}


def picture(page: Chrome, name: str, directory: Path) -> None:
    """Take a screenshot: into the docs with UPDATE_SCREENSHOTS=1, where they show it."""
    place = IMAGES if os.environ.get("UPDATE_SCREENSHOTS") and name in SHOWN else directory
    assert page.save_screenshot(str(place / f"{name}.png"))


# Topology -------------------------------------------------------------------------------------------------------------


def boxes(page: Chrome) -> list[str]:
    """What each box of the drawing is called."""
    return [each.accessible_name for each in page.find_elements(By.CSS_SELECTOR, ".drawing .box")]


def measured(page: Chrome) -> bool:
    return not page.find_elements(By.CSS_SELECTOR, ".drawing .line.unmeasured")


def test_the_topology_is_drawn_and_told_in_tables(page: Chrome, lab: Lab) -> None:
    open_view(page, "Topology")
    told = lab.ask("topology")
    assert boxes(page) == [f"{row['name']}: Synced, {pods(row['pods'])}" for row in told["nodes"]]
    until(lambda: measured(page), "loads")
    assert len(page.find_elements(By.CSS_SELECTOR, ".drawing path.line")) == len(told["links"]) == 3
    page.find_element(By.XPATH, "//summary[.='The same as tables']").click()
    nodes, links = page.find_elements(By.CSS_SELECTOR, "#view table")
    assert [nodes.accessible_name, links.accessible_name] == ["Nodes", "Links"]
    assert "node-3 Synced" in nodes.text and re.search("node-3 . overlay . overlay Up", links.text)


def pods(number: int) -> str:
    return f"{number} pod" + "s" * (number != 1)


def test_a_node_of_the_topology_is_chosen_by_keys_and_stays_chosen_when_it_is_looked_at_anew(page: Chrome) -> None:
    open_view(page, "Topology")
    first = page.find_element(By.CSS_SELECTOR, ".drawing .box[tabindex='0']")
    page.execute_script("arguments[0].focus()", first)
    page.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    page.switch_to.active_element.send_keys(Keys.ENTER)
    name = page.switch_to.active_element.get_attribute("data-key")
    details = page.find_element(By.CSS_SELECTOR, "aside.details")
    assert name != first.get_attribute("data-key") and details.text.startswith(f"{name}\nStatus\nSynced")
    assert page.find_element(By.ID, "said").get_attribute("textContent").startswith(f"{name} is chosen")
    until(lambda: measured(page), "another look")
    chosen = page.switch_to.active_element
    assert (chosen.get_attribute("data-key"), chosen.get_attribute("aria-pressed")) == (name, "true")


def link(spine: int, leaf: int, load: float | None, state: str = "Up") -> dict[str, Any]:
    carried = None if load is None else round(load * 10**9)
    ends = {"from": f"leaf-{leaf}", "fromPort": f"up{spine}", "to": f"spine-{spine}", "toPort": f"down{leaf}"}
    rates = {"txBitsPerSecond": carried, "rxBitsPerSecond": 0, "speedBitsPerSecond": 10**9, "load": load}
    return {**ends, "kind": "wire", "cost": 1, "state": state, **rates}


def drawn_node(name: str, status: str = "Synced", **labels: str) -> dict[str, Any]:
    return {"name": name, "status": status, "addresses": [], "podCIDRs": [], "pods": 7,
            "transit": name.startswith("spine"), "labels": labels}  # fmt: skip


#: A fabric in which each link is in another state.
FABRIC = {
    "nodes": [*(drawn_node(f"leaf-{each}") for each in (1, 2, 3)), *(drawn_node(f"spine-{each}") for each in (1, 2))],
    "networks": [],
    "links": [
        link(1, 1, 0.001),
        link(1, 2, 0.31),
        link(1, 3, 0.62),
        link(2, 1, 0.93),
        link(2, 2, 0.1, "Unconfirmed"),
        link(2, 3, 0.45),
    ],
}


@contextlib.asynccontextmanager
async def invented(answers: Mapping[str, Any]) -> AsyncIterator[str]:
    """The console over answers that are given here; its address."""

    async def answer(request: web.Request) -> web.Response:
        found = answers[request.path.removeprefix("/v1/")]
        return web.json_response(found() if callable(found) else found)

    app = web.Application()
    app.add_routes([*console.routes(), *(web.get(f"/v1/{path}", answer) for path in answers)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/console/"
    await runner.cleanup()


async def test_links_differ_by_load_and_state_in_more_than_colour(driver: Chrome, tmp_path: Path) -> None:
    async with invented({"topology": FABRIC}) as url:
        await asyncio.to_thread(look_at_links, driver, url, tmp_path)


def look_at_links(page: Chrome, url: str, directory: Path) -> None:
    window(page, 1280, 600)
    page.get(f"{url}#/topology")
    shows(page, "Topology")
    lines = page.find_elements(By.CSS_SELECTOR, ".drawing path.line")
    looks = [
        tuple(each.get_attribute(name) for name in ("class", "stroke-width", "stroke-dasharray")) for each in lines
    ]
    assert looks == [
        ("line idle", "1.5", None),
        ("line low", "3", None),
        ("line some", "5", None),
        ("line high", "8", None),
        ("line unconfirmed", "2", "7 5"),
        ("line low", "3", None),
    ]
    labels = [each.text for each in page.find_elements(By.CSS_SELECTOR, ".drawing .label")]
    assert labels == ["0.1 %", "31 %", "62 %", "93 %", "10 %", "45 %"]
    title = "return document.querySelectorAll('.drawing g > title')[3].textContent"
    assert (
        page.execute_script(title)
        == "leaf-1 up2 to spine-2 down1: Up, sends 930 Mbit/s, receives 0 bit/s, 93 % of 1.00 Gbit/s"
    )
    assert "four fifths or more" in page.find_element(By.CSS_SELECTOR, ".legend").text
    picture(page, "console-topology-light", directory)


async def test_a_thousand_nodes_are_drawn_in_groups_that_lead_to_their_nodes(driver: Chrome, tmp_path: Path) -> None:
    racks = [drawn_node(f"node-{each:04}", "Disconnected" if each == 77 else "Synced", rack=f"rack-{each // 40:02}")
             for each in range(1000)]  # fmt: skip
    hung = [{"from": row["name"], "fromPort": "", "to": "overlay", "toPort": "", "kind": "overlay", "cost": 10,
             "state": "Up"} for row in racks]  # fmt: skip
    networks = [{"name": "overlay", "kind": "overlay", "cost": 10, "nodes": 1000}]
    async with invented({"topology": {"nodes": racks, "networks": networks, "links": hung}}) as url:
        await asyncio.to_thread(look_at_groups, driver, url, tmp_path)


def look_at_groups(page: Chrome, url: str, directory: Path) -> None:
    window(page, 1280, 900)
    page.get(f"{url}#/topology")
    shows(page, "Topology")
    assert "1,000 nodes (999 Synced, 1 Disconnected)" in page.find_element(By.ID, "summary").text
    names = boxes(page)
    assert len(names) == 25 and names[1].startswith("rack-01: 40 nodes, 1 disconnected, 280 pods")
    picture(page, "console-topology-thousand-light", directory)
    tile = page.find_element(By.CSS_SELECTOR, "[data-key='rack-01']")
    page.execute_script("arguments[0].focus()", tile)
    tile.send_keys(Keys.ENTER)
    shows(page, "Topology: rack-01")
    names = boxes(page)
    assert len(names) == 40 and "node-0077: Disconnected, 7 pods" in names
    page.find_element(By.LINK_TEXT, "All groups").click()
    shows(page, "Topology")
    Select(page.find_element(By.ID, "by")).select_by_visible_text("network")
    until(lambda: len(boxes(page)) == 20, "groups of fifty")


# Trace ----------------------------------------------------------------------------------------------------------------


def ask_trace(page: Chrome, source: str, target: str, port: str, by: str = "Trace") -> None:
    open_view(page, "Trace")
    for name, text in (("from", source), ("to", target), ("port", port)):
        field = page.find_element(By.NAME, name)
        field.clear()
        field.send_keys(text)
    page.find_element(By.XPATH, f"//button[.='{by}']").click()
    until(lambda: page.find_elements(By.CSS_SELECTOR, "#result > *"), "the answer")
    until(lambda: not page.find_element(By.TAG_NAME, "body").get_attribute("aria-busy"), "the end of the question")


def steps(page: Chrome) -> list[str]:
    return [each.text for each in page.find_elements(By.CSS_SELECTOR, ".steps li strong")]


def test_a_trace_is_told_step_by_step_and_drawn_on_the_topology(page: Chrome, lab: Lab) -> None:
    ask_trace(page, "a1", "svc/shop", "80")
    assert page.find_element(By.ID, "verdict").text == "✓ Delivered to pod default/b1 on node-2"
    assert boxes(page) == [
        "node-1: Synced, 2 pods, place 1 of the way",
        "node-2: Synced, 1 pod, place 2 of the way",
        "node-3: Synced, 1 pod",
    ]
    assert len(page.find_elements(By.CSS_SELECTOR, ".drawing .way-line")) == 2
    visits = lab.ask("trace", **{"from": "a1", "to": "svc/shop", "port": "80"})["visits"]
    told = [
        [*(step["table"] for step in visit["steps"]), *("NAT" for _ in visit["translations"]), "Then"]
        for visit in visits
    ]
    assert steps(page) == [each for visit in told for each in visit]


def test_the_ends_of_a_trace_are_suggested(page: Chrome, lab: Lab) -> None:
    open_view(page, "Trace")
    script = "return [...document.querySelectorAll(`#${arguments[0]} option`)].map((each) => each.value)"
    until(lambda: page.execute_script(script, "targets"), "suggestions")
    sources, targets = page.execute_script(script, "sources"), page.execute_script(script, "targets")
    pods = [f"{row['namespace']}/{row['name']}" for row in lab.ask("pods")["items"]]
    assert sources == [*pods, *(f"node/{name}" for name in lab.nodes)]
    assert targets == ["default/svc/shop", *sources]


def test_a_trace_says_where_a_packet_is_dropped_and_by_which_rule(page: Chrome) -> None:
    ask_trace(page, "a2", "b1", "8080")
    assert page.find_element(By.ID, "verdict").text.startswith("✕ Dropped on node-2")
    assert "NetworkPolicy default/only-a1" in page.find_element(By.ID, "result").text
    assert boxes(page)[1] == "node-2: Synced, 1 pod, place 2 of the way, dropped here"
    (decides,) = page.find_elements(By.CSS_SELECTOR, ".steps .decides strong")
    assert decides.text == steps(page)[-2]


def test_a_packet_that_is_really_sent_is_compared_with_the_model(page: Chrome, lab: Lab) -> None:
    ask_trace(page, "a1", "b1", "8080", by="Send a packet")
    assert "went as the model says" in page.find_element(By.ID, "result").text
    intruder = "table=Track,priority=9999,tcp,tp_dst=8080"
    ofctl(lab, "node-2", "add-flow", "br-int", f"{intruder},actions=drop")
    try:
        page.find_element(By.ID, "live").click()
        until(lambda: page.find_elements(By.CSS_SELECTOR, ".differs"), "the difference")
    finally:
        ofctl(lab, "node-2", "--strict", "del-flows", "br-int", intruder)
    shouted = page.find_element(By.CSS_SELECTOR, ".differs")
    assert shouted.aria_role == "alert" and "it should be Delivered, and was Dropped" in shouted.text
    headings = [each.text for each in page.find_elements(By.CSS_SELECTOR, "#result h2")]
    assert headings == ["What switches did", "What the model says"]


def test_a_question_that_makes_no_sense_is_answered_beside_the_form(page: Chrome) -> None:
    ask_trace(page, "a1", "nobody", "80")
    assert "nobody" in page.find_element(By.CSS_SELECTOR, "#result [role=alert]").text
    assert page.find_element(By.NAME, "to").get_attribute("value") == "nobody"
    assert [each for each in complaints(page) if "400" not in each] == []


# Matrix ---------------------------------------------------------------------------------------------------------------


def cell(page: Chrome, words: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, f"[role=grid] [aria-label='{words}']")


def test_the_matrix_says_who_may_reach_whom_and_why(page: Chrome, lab: Lab) -> None:
    open_view(page, "Matrix")
    grid = page.find_element(By.CSS_SELECTOR, "[role=grid]")
    told = lab.ask("matrix", port="80")
    names = [row["name"] for row in told["subjects"]]
    assert [
        each.get_attribute("textContent") for each in grid.find_elements(By.CSS_SELECTOR, "th[scope=col] span")
    ] == names
    assert [each.text for each in grid.find_elements(By.CSS_SELECTOR, "th[scope=row]")] == names
    assert cell(page, "default[app=a1] to default[app=b1]: denied").text == "✕"
    field = page.find_element(By.ID, "port")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("8080", Keys.TAB)
    until(
        lambda: page.find_elements(By.CSS_SELECTOR, "[aria-label='default[app=a1] to default[app=b1]: allowed']"),
        "8080",
    )
    assert cell(page, "default[app=a2] to default[app=b1]: denied").text == "✕"
    assert page.current_url.endswith("#/matrix?protocol=TCP&port=8080")


def test_the_matrix_is_gone_through_by_keys(page: Chrome) -> None:
    open_view(page, "Matrix")
    page.execute_script("document.querySelector('[role=grid] [tabindex=\"0\"]').focus()")
    for key in (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER):
        page.switch_to.active_element.send_keys(key)
    focused = page.switch_to.active_element
    assert focused.accessible_name == "default[app=a2] to default[app=b1]: denied"
    why = page.find_element(By.CSS_SELECTOR, "aside.details")
    until(lambda: "Denied" in why.text, "why")
    assert "no rule of NetworkPolicy default/only-a1 allows it" in why.text
    assert page.find_element(By.ID, "said").get_attribute("textContent").startswith("Denied: ingress")
    why.find_element(By.LINK_TEXT, "Trace it").click()
    shows(page, "Trace")
    assert page.find_element(By.ID, "verdict").text.startswith("✕ Dropped")


# Live -----------------------------------------------------------------------------------------------------------------

LATE = """
apiVersion: v1
kind: Service
metadata: {name: late, namespace: default}
spec: {selector: {app: c1}, ports: [{port: 81}]}
"""
WRONG = "apiVersion: v1\nkind: Service\nmetadata: {name: wrong, namespace: default}\nspec: {ports: [{port: 99999}]}\n"
#: Seconds, shorter than the page waits before it asks by itself.
AT_ONCE = 6.0


def test_a_list_has_what_changes_at_once_and_keeps_the_focus(page: Chrome, lab: Lab) -> None:
    open_view(page, "Services")
    page.execute_script("document.querySelector('.opener').focus()")
    file = lab.layout.manifests / "late.yaml"
    put(file, LATE)
    try:
        until(lambda: column(page, "Name") == ["late", "shop"], "the new Service", AT_ONCE)
        assert page.switch_to.active_element.accessible_name == "Endpoints of default/shop"
    finally:
        file.unlink()
    until(lambda: column(page, "Name") == ["shop"], "that it is gone", AT_ONCE)


def test_events_come_as_they_happen_and_are_said(page: Chrome, lab: Lab) -> None:
    open_view(page, "Events")
    assert set(column(page, "Reason")) >= {"SwitchConnected", "InSync"}
    file = lab.layout.manifests / "wrong.yaml"
    put(file, WRONG)
    try:
        until(lambda: column(page, "Reason")[0] == "ObjectRejected", "the event", AT_ONCE)
    finally:
        file.unlink()
    assert column(page, "Type")[0] == "Warning" and "wrong" in column(page, "Object")[0]
    assert page.find_element(By.ID, "said").get_attribute("textContent").startswith("Warning: ObjectRejected")


async def test_a_tab_that_nobody_sees_follows_nothing(driver: Chrome, tmp_path: Path) -> None:
    controller = Controller()
    controller.take(Snapshot({node(1).key: node(1)}))
    runner = await serve(controller, tmp_path / "api.sock")
    async with proxy.serve(tmp_path / "api.sock", "127.0.0.1", 0, "secret") as url:
        await asyncio.to_thread(look_away_and_back, driver, url, lambda: controller.changes.watched)
    await runner.cleanup()


def look_away_and_back(page: Chrome, url: str, watched: Callable[[], int]) -> None:
    page.get(url)
    shows(page, "Nodes")
    until(lambda: watched() == 1, "that the list is followed")
    here = page.current_window_handle
    page.switch_to.new_window("tab")
    until(lambda: watched() == 0, "that it is followed no more", AT_ONCE)
    page.close()
    page.switch_to.window(here)
    until(lambda: watched() == 1, "that it is followed again")


async def test_a_controller_that_goes_away_is_told_of_and_found_again(driver: Chrome, tmp_path: Path) -> None:
    controller, path = Controller(), tmp_path / "api.sock"
    controller.take(Snapshot({each.key: each for each in (node(1), node(2))}))
    async with proxy.serve(path, "127.0.0.1", 0, "secret") as url:
        runner = await serve(controller, path)
        await asyncio.to_thread(look_at_nodes, driver, url, 2)
        await runner.cleanup()
        await asyncio.to_thread(look_at_the_old, driver)
        controller.take(Snapshot({each.key: each for each in (node(1), node(2), node(3))}))
        runner = await serve(controller, path)
        await asyncio.to_thread(look_at_the_new, driver)
        await runner.cleanup()


def look_at_nodes(page: Chrome, url: str, count: int) -> None:
    page.get(url)
    shows(page, "Nodes")
    assert len(column(page, "Name")) == count


def look_at_the_old(page: Chrome) -> None:
    problem = page.find_element(By.ID, "problem")
    until(lambda: problem.text != "", "that it is told of")
    assert problem.aria_role == "alert" and "the controller doesn't answer" in problem.text
    assert re.search(r"What is shown is of \d\d:\d\d:\d\d\.$", problem.text)
    assert column(page, "Name") == ["node-0001", "node-0002"]


def look_at_the_new(page: Chrome) -> None:
    until(lambda: len(column(page, "Name")) == 3, "the new node", AT_ONCE)
    assert page.find_element(By.ID, "problem").text == ""
    assert page.find_element(By.ID, "said").get_attribute("textContent") == "The controller answers again."


@pytest.mark.parametrize("answer", [{}, {"items": None}, {"items": [None]}, []])
async def test_an_answer_that_makes_no_sense_is_said_to(driver: Chrome, answer: Any) -> None:
    async with invented({"nodes": answer}) as url:
        await asyncio.to_thread(look_at_nonsense, driver, url)


def look_at_nonsense(page: Chrome, url: str) -> None:
    page.get(url)
    problem = page.find_element(By.ID, "problem")
    until(lambda: "isn't what this page expects" in problem.text, "that it is said")


# For everybody --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("title", VIEWS)
def test_every_view_is_told_to_who_does_not_see_it_and_gone_through_by_keys(page: Chrome, title: str) -> None:
    open_view(page, title)
    assert page.execute_script(_OUTLINE) == [["header", 1], ["nav", 1], ["main", 1], ["h1", 1]]
    assert page.execute_script(_NAMELESS) == []
    page.execute_script(_LISTEN)
    page.switch_to.active_element.send_keys(Keys.TAB * 30)
    reached = page.execute_script("return window.reached")
    assert len(reached) > 2 and [each for each in reached if not each[1] or not each[2]] == []


_OUTLINE = """
    return ["header", "nav", "main", "h1"].map((tag) => [tag, document.querySelectorAll(tag).length]);
"""
#: Controls without a name, tables without one, header cells that don't say of what, and ids that are there twice.
_NAMELESS = """
    const found = [];
    const named = (each) => each.labels?.length || each.getAttribute("aria-label") || each.textContent.trim();
    for (const each of document.querySelectorAll("a, button, input, select, [tabindex='0'], table")) {
        if (each.checkVisibility() && !named(each)) found.push(each.outerHTML);
    }
    for (const each of document.querySelectorAll("th:not([scope])")) found.push(each.outerHTML);
    const ids = [...document.querySelectorAll("[id]")].map((each) => each.id);
    return [...found, ...ids.filter((id, place) => ids.indexOf(id) !== place)];
"""
#: Write down what gets the focus: what it is, its name, and how that is seen.
_LISTEN = """
    window.reached = [];
    addEventListener("focusin", ({ target }) => {
        const name = target.labels?.[0]?.textContent || target.getAttribute("aria-label") || target.textContent.trim();
        const box = target.querySelector(":scope > .sheet") ?? target;
        const style = getComputedStyle(box);
        const seen = box === target ? parseFloat(style.outlineWidth) >= 3 : parseFloat(style.strokeWidth) >= 3;
        window.reached.push([target.tagName, name, seen || target.id === "main"]);
    });
"""


# A thousand nodes, and who may see them -------------------------------------------------------------------------------


async def test_a_thousand_nodes_are_shown_a_page_at_a_time(driver: Chrome, tmp_path: Path) -> None:
    controller = Controller()
    controller.take(Snapshot({each.key: each for each in map(node, range(1000))}))
    runner = await serve(controller, tmp_path / "api.sock")
    async with proxy.serve(tmp_path / "api.sock", "127.0.0.1", 0, "secret") as url:
        await asyncio.to_thread(look_at_a_thousand, driver, url, tmp_path)
    await runner.cleanup()


def node(number: int) -> Node:
    return Node(
        name=f"node-{number:04}",
        addresses=(ip_address("172.20.0.1") + number,),
        pod_cidrs=(ip_network(f"10.{64 + number // 256}.{number % 256}.0/24"),),
    )


def look_at_a_thousand(page: Chrome, url: str, directory: Path) -> None:
    window(page, 1280, 720)
    page.get(url)
    shows(page, "Nodes")
    count = page.find_element(By.ID, "count")
    assert count.text == "1,000 in all"
    assert column(page, "Name") == [f"node-{number:04}" for number in range(100)]
    assert set(column(page, "Status")) == {"Disconnected"}
    page.find_element(By.XPATH, "//*[@id='place']/following-sibling::button").click()
    until(lambda: page.find_element(By.ID, "place").text == "101 to 200 of 1,000", "the next page")
    assert column(page, "Name")[0] == "node-0100"
    filter_by(page, "node-0999")
    until(lambda: count.text == "1 of 1,000", "what is looked for in all pages")
    assert column(page, "Name") == ["node-0999"]
    filter_by(page, "name=node-0500")
    until(lambda: count.text == "1 found", "what the server looks for")
    assert column(page, "Name") == ["node-0500"]
    filter_by(page, "")
    until(lambda: count.text == "1,000 in all", "all")
    assert len(column(page, "Name")) == 100
    picture(page, "console-thousand", directory)
    # From the start of navigation until the list's answer was there, by the browser's clock.
    milliseconds = page.execute_script("return performance.getEntriesByType('resource').at(-1).responseEnd")
    print(f"first view of 1,000 nodes: {milliseconds:.0f} ms")


TOKEN = "a-token-that-may-only-read"


async def test_over_tls_the_page_asks_for_a_token_and_forgets_it(driver: Chrome, tmp_path: Path) -> None:
    certificates.make_ca(tmp_path)
    certificates.make_controller(tmp_path, ["127.0.0.1"])
    (tmp_path / "tokens").write_text(f"{TOKEN},bob,read-only\n")
    files = TlsFiles(*(tmp_path / name for name in ("controller.crt", "controller.key", "ca.crt")))
    access = Access(Credentials(files), (), Tokens(tmp_path / "tokens"))
    controller = Controller()
    controller.take(Snapshot({node(1).key: node(1)}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runner = await serve_remote(controller, f"127.0.0.1:{port}", access)
    await asyncio.to_thread(sign_in, driver, f"https://127.0.0.1:{port}/console/", tmp_path)
    await runner.cleanup()


def sign_in(page: Chrome, url: str, directory: Path) -> None:
    # The CA is the test's own, which this browser doesn't know.
    page.execute_cdp_cmd("Security.setIgnoreCertificateErrors", {"ignore": True})
    window(page, 1280, 480)
    page.get(url)
    field = page.find_element(By.ID, "token")
    until(field.is_displayed, "the form for a token")
    assert field.accessible_name == "Token for the admin API" and "node-0001" not in page.page_source
    picture(page, "console-token", directory)
    field.send_keys("a-token-of-nobody", Keys.ENTER)
    until(lambda: page.find_element(By.ID, "problem").text == "This token isn't valid.", "that it is refused")
    field.send_keys(TOKEN, Keys.ENTER)
    until(lambda: column(page, "Name") == ["node-0001"], "the list")
    open_view(page, "Trace")
    until(lambda: not page.find_element(By.ID, "live").is_displayed(), "that who may only read isn't offered more")
    open_view(page, "Nodes")
    until(lambda: column(page, "Name") == ["node-0001"], "the list")
    stored = page.execute_script("return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert TOKEN not in stored and TOKEN not in page.current_url and not field.is_displayed()
    page.refresh()
    until(page.find_element(By.ID, "token").is_displayed, "the form again")
