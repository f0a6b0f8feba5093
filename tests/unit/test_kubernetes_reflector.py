"""List and watch of one kind: versions, pages, what a server forgets, and what it says wrong. No HTTP, no clock."""

from __future__ import annotations

import random
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import hypothesis.strategies as st
import pytest
from api_server import ApiServer, Json
from hypothesis import given, settings
from kubernetes_objects import endpoint_slice, meta, namespace, network_policy, node, pod, service

from topology.kubernetes import reflector as subject
from topology.kubernetes.objects import READERS
from topology.kubernetes.reflector import Found, Gone, Reflector, Step, WatchError
from topology.kubernetes.resources import BY_KIND
from topology.kubernetes.state import Batch, KubernetesState
from topology.model import Key, Object

KINDS = ("Node", "Namespace", "Pod", "Service", "EndpointSlice", "NetworkPolicy")
OPTIONAL = "ClusterNetworkPolicy"


class Line:
    """A reflector and an emulated server, without HTTP between them."""

    def __init__(self, server: ApiServer, kind: str, state: KubernetesState) -> None:
        self.server, self.kind, self.state = server, kind, state
        self.reflector = Reflector(BY_KIND[kind], READERS[kind], lambda: 0.5)
        self.watching: int | None = None
        self.now = 0.0

    def take(self, items: list[Found | Gone]) -> list[Found | Gone]:
        self.state.take(self.kind, items)
        return items

    def step(self, chunk: int = 1 << 20) -> list[Found | Gone]:
        """One answer, or what a watch has to say: in pieces of so many bytes."""
        self.now = max(self.now, self.reflector.wait_until)
        if self.watching is None:
            request = self.reflector.ask(self.now)
            query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
            if request.step is Step.PROBE:
                there = self.kind in self.server.settings.optional
                body = b'{"resources":[{"name":"%s"}]}' % BY_KIND[self.kind].plural.encode()
                return self.take(self.reflector.answered(200 if there else 404, body if there else b"", self.now))
            if request.step is Step.LIST:
                return self.take(self.reflector.answered(*self.server.page(self.kind, query), self.now))
            self.watching = int(query["resourceVersion"])
            self.reflector.opened()
        status, data, self.watching = self.server.events(self.kind, self.watching)
        if status == 410:
            data = b'{"type":"ERROR","object":%s}\n' % data
        elif status != 200:
            self.watching = None
            return self.take(self.reflector.answered(status, data, self.now))
        found: list[Found | Gone] = []
        try:
            for start in range(0, len(data), chunk):
                found += self.take(self.reflector.received(data[start : start + chunk], self.now))
        except WatchError as error:
            self.watching = None
            found += self.take(error.found)
        return found

    def cut(self, *, clean: bool) -> None:
        if self.watching is not None:
            self.watching = None
            if clean:
                self.reflector.ended(self.now)
            else:
                self.reflector.failed("it broke", self.now)

    def settle(self) -> None:
        """Until there is nothing more to hear."""
        while self.step() or self.watching is None:
            pass


def names(items: list[Found | Gone]) -> list[str]:
    return [("-" if isinstance(each, Gone) else "") + each.name for each in items]


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
def line(server: ApiServer) -> Line:
    return Line(server, "Pod", KubernetesState())


def test_a_list_comes_in_pages_and_nothing_is_gone_before_its_last(
    server: ApiServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PAGE", 2)
    server.put(*(pod("default", f"p{i}") for i in range(5)))
    assert [names(line.step()) for _ in range(3)] == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert line.reflector.synced
    line.step()
    server.remove("Pod", "default", "p1")
    server.forget()
    assert line.step() == []
    assert line.reflector.step is Step.LIST
    assert [names(line.step()) for _ in range(2)] == [["p0", "p2"], ["p3", "p4", "-p1"]]


def test_pages_that_have_expired_are_asked_for_all_at_once(
    server: ApiServer, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "PAGE", 2)
    server.put(*(pod("default", f"p{i}") for i in range(5)))
    line.step()
    server.forget()
    assert line.step() == [] and not line.reflector.synced
    assert names(line.step()) == ["p0", "p1", "p2", "p3", "p4"]
    assert line.reflector.synced


def test_a_watch_goes_on_from_the_version_that_was_reached(server: ApiServer, line: Line) -> None:
    line.step()
    line.step()
    server.put(pod("default", "a"))
    assert names(line.step()) == ["a"]
    line.cut(clean=False)
    server.put(pod("default", "b"))
    server.remove("Pod", "default", "a")
    assert names(line.step()) == ["b", "-a"]


def test_events_are_taken_as_they_come_in_pieces(server: ApiServer, line: Line) -> None:
    line.step()
    line.step()
    server.put(pod("default", "a"), pod("default", "b", "n1", ["10.244.1.2"]))
    assert names(line.step(chunk=1)) == ["a", "b"]
    assert len(line.state.collect().problems) == 0 and line.reflector.step is Step.WATCH


def test_a_bookmark_is_a_version_that_was_reached(server: ApiServer, line: Line) -> None:
    line.step()
    line.step()
    server.version = 5000
    assert line.reflector.received(server.bookmark("Pod", 5000), line.now) == []
    line.cut(clean=True)
    assert "resourceVersion=5000" in line.reflector.ask(line.now).path


def test_old_and_repeated_events_change_nothing(server: ApiServer, line: Line) -> None:
    line.step()
    line.step()
    server.put(pod("default", "a"))
    first = server.events("Pod", 0)[1]
    server.put(pod("default", "a", "n1"))
    server.remove("Pod", "default", "a")
    assert names(line.step()) == ["a", "a", "-a"]
    assert line.reflector.received(first, line.now) == []
    assert line.reflector.received(server.events("Pod", 0)[1], line.now) == []
    server.put(pod("default", "a"))
    assert names(line.step()) == ["a"]


def test_a_server_restored_from_a_backup_is_believed(server: ApiServer, line: Line) -> None:
    server.put(pod("default", "a", "n1"))
    line.step()
    line.step()
    server.restore(10)
    server.put(pod("default", "a", "n2"))
    line.cut(clean=False)
    # Its versions are lower than what was reached, which it says by an error: everything is listed anew.
    assert line.step() == [] and line.reflector.step is Step.LIST
    (found,) = line.step()
    assert isinstance(found, Found) and found.version == str(server.version)
    server.put(pod("default", "b"))
    assert names(line.step()) == ["b"]


@pytest.mark.parametrize("junk", [b"{\n", b"[]\n", b'{"type":"ADDED","object":{}}\n', b'{"type":"ADDED"}\n'])
def test_what_is_no_event_ends_the_watch_and_everything_is_listed_anew(
    server: ApiServer, line: Line, junk: bytes
) -> None:
    server.put(pod("default", "a"))
    line.step()
    line.step()
    with pytest.raises(WatchError):
        line.reflector.received(junk, line.now)
    line.watching = None
    assert line.reflector.step is Step.LIST
    line.settle()
    assert line.reflector.trouble(line.now + 60) == ""


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"<html>", b'{"metadata":{"resourceVersion":"9"},"items":[{}]}', b'{"metadata":{},"items":[]}']
)
def test_what_is_no_list_deletes_nothing(server: ApiServer, line: Line, body: bytes) -> None:
    server.put(pod("default", "a"))
    line.step()
    line.reflector.answered(410, b"", line.now)
    assert line.reflector.answered(200, body, line.now) == []
    assert "the answer isn't what it must be" in line.reflector.trouble(line.now + 60)


def test_failures_are_repeated_after_twice_as_long_each_time_up_to_a_limit(line: Line) -> None:
    delays = []
    for _ in range(12):
        line.reflector.ask(line.now)
        line.reflector.failed("refused", line.now)
        delays.append(line.reflector.wait_until - line.now)
        line.now = line.reflector.wait_until
    assert delays[:4] == pytest.approx([0.15, 0.3, 0.6, 1.2])
    assert max(delays) == pytest.approx(delays[-1]) == pytest.approx(subject.LONGEST_DELAY * 0.75)


def test_a_server_is_left_alone_for_as_long_as_it_says(line: Line) -> None:
    line.reflector.ask(0.0)
    line.reflector.answered(429, b'{"message":"too many requests"}', 0.0, retry_after=7.0)
    assert line.reflector.wait_until == 7.0
    assert "429 too many requests" in line.reflector.waiting()


def test_trouble_is_told_when_it_lasts_and_no_longer_when_it_is_over(server: ApiServer, line: Line) -> None:
    line.settle()
    line.now += 100
    line.cut(clean=False)
    assert line.reflector.trouble(line.now) == ""
    assert line.reflector.trouble(line.now + subject.PATIENCE) == "Kubernetes: pods: it broke"
    line.step()
    assert line.reflector.trouble(line.now + 60) == ""


def test_a_watch_that_is_closed_at_once_again_and_again_is_asked_for_ever_less_often(line: Line) -> None:
    line.settle()
    pauses = []
    for _ in range(5):
        line.cut(clean=True)
        pauses.append(line.reflector.wait_until - line.now)
        line.step()
    assert pauses == sorted(set(pauses))
    line.now += 60
    line.cut(clean=True)
    assert line.reflector.wait_until == line.now


# Kinds that need not be there ---------------------------------------------------------------------------------------


def test_an_optional_kind_that_is_missing_is_nothing_to_wait_for_and_is_found_when_it_comes(server: ApiServer) -> None:
    line = Line(server, OPTIONAL, KubernetesState())
    line.step()
    assert line.reflector.synced and line.reflector.wait_until > line.now + 25
    server.settings.optional.add(OPTIONAL)
    server.put({"kind": OPTIONAL, "metadata": meta("x"), "spec": {}})
    line.step()
    assert names(line.step()) == ["x"]


def test_objects_of_an_optional_kind_go_only_when_it_is_missing_twice(server: ApiServer) -> None:
    server.settings.optional.add(OPTIONAL)
    server.put({"kind": OPTIONAL, "metadata": meta("x"), "spec": {}})
    line = Line(server, OPTIONAL, KubernetesState())
    line.settle()
    line.cut(clean=False)
    line.reflector.answered(404, b"", line.now)
    server.settings.optional.clear()
    assert line.reflector.step is Step.PROBE
    assert line.step() == []
    assert names(line.step()) == ["-x"]


def test_an_optional_kind_that_may_not_be_read_is_waited_for(server: ApiServer) -> None:
    server.settings.optional.add(OPTIONAL)
    line = Line(server, OPTIONAL, KubernetesState())
    line.step()
    line.reflector.answered(403, b'{"message":"forbidden"}', line.now)
    assert not line.reflector.synced and "403 forbidden" in line.reflector.waiting()


# Any order ------------------------------------------------------------------------------------------------------------

#: Objects that are never removed: once seen, they must stay.
LASTING = ("Node", "Namespace", "Pod", "Service", "EndpointSlice", "NetworkPolicy")


def variants(name: str, version: int) -> list[Json]:
    """One object of each kind, in one of its forms."""
    space = "team" if name != "lasting" else "default"
    return [
        node(name, version + 1 if name != "lasting" else 9),
        namespace("team" if name != "lasting" else "default", annotations={"v": str(version)}),
        pod(space, name, f"n{version}", phase="Failed" if version == 3 and name != "lasting" else "Running"),
        service(space, name, f"10.96.0.{version + 1}"),
        endpoint_slice(space, name, name, *(f"10.244.1.{i + 2}" for i in range(version))),
        network_policy(space, name, policyTypes=[["Ingress"], ["Egress"], ["Ingress", "Egress"], []][version]),
    ]


def ideal(server: ApiServer) -> dict[Key, Object]:
    """The model of what the server has now."""
    state = KubernetesState()
    for kind in KINDS:
        Line(server, kind, state).settle()
    return state.objects()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(KINDS), st.sampled_from(["a", "b", "lasting"]), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.sampled_from(KINDS), st.sampled_from(["a", "b"]), st.just(0)),
        st.tuples(st.just("step"), st.sampled_from(KINDS), st.just(""), st.sampled_from([7, 100, 1 << 20])),
        st.tuples(st.sampled_from(["break", "end", "forget", "collect", "refuse", "settle", "settle"]),
                  st.sampled_from(KINDS), st.just(""), st.sampled_from([403, 410, 500, 503])),
    ),
    min_size=15,
    max_size=80,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(ACTIONS, st.integers(0, 1 << 16), st.sampled_from([1, 2, 500]))
def test_whatever_happens_in_between_the_model_ends_as_the_server_is(
    actions: list[tuple[str, str, str, int]], seed: int, page: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "PAGE", page)
        server = ApiServer(random.Random(seed))
        server.settings.repeated = server.settings.outdated = server.settings.swapped = 30
        server.put(*variants("lasting", 0))
        state = KubernetesState()
        lines = {kind: Line(server, kind, state) for kind in KINDS}
        model: dict[Key, Object] = {}
        for action, kind, name, number in actions:
            act(server, lines, action, kind, name, number)
            if action == "collect" and all(each.reflector.synced for each in lines.values()):
                apply(state.collect(), model)
        for each in lines.values():
            each.settle()
        apply(state.collect(), model)
        assert model == state.objects() == ideal(server)


def act(server: ApiServer, lines: dict[str, Line], action: str, kind: str, name: str, number: int) -> None:
    line = lines[kind]
    match action:
        case "put":
            server.put(next(each for each in variants(name, number) if each["kind"] == kind))
        case "remove":
            doomed = next(each for each in variants(name, 0) if each["kind"] == kind)["metadata"]
            server.remove(kind, doomed.get("namespace", ""), doomed["name"])
        case "step":
            line.step(number)
        case "settle":
            for each in lines.values():
                each.settle()
        case "break" | "end":
            line.cut(clean=action == "end")
        case "forget":
            server.forget()
        case "refuse":
            line.cut(clean=True)
            line.reflector.ask(line.now)
            assert line.take(line.reflector.answered(number, b"", line.now)) == []


def apply(batch: Batch, model: dict[Key, Object]) -> None:
    """Take a batch as the controller does. What lasts on the server is never taken away."""
    assert [key for key in batch.gone if "lasting" in key or key == ("Namespace", "", "default")] == []
    for key in batch.gone:
        model.pop(key, None)
    model |= {each.key: each for each in batch.changed}


def test_the_search_meets_every_case(server: ApiServer) -> None:
    """The emulator does what the property leans on: it repeats, sends what is old, and swaps."""
    server.settings.repeated = server.settings.outdated = server.settings.swapped = 30
    for i in range(30):
        server.put(pod("default", f"p{i % 3}", f"n{i}"))
    lines = server.events("Pod", 0)[1].splitlines()
    versions = list(versions_of(lines))
    assert len(lines) > 30 and versions != sorted(versions) and len(set(versions)) == 30


def versions_of(lines: list[bytes]) -> Iterator[int]:
    for each in lines:
        yield int(each.split(b'"resourceVersion": "')[1].split(b'"')[0])
