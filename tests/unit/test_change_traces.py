"""Traces of changes: what a collector is told over OTLP/HTTP, and that nothing waits for one."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise

import pytest
from fake_switch import FakeSwitch
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from test_sync import UPLINKS, connect, node, pod, pod_port, snapshot, started

from controller import change_traces
from controller.change_traces import SWITCHES, WAITING, ChangeTraces, NoTraces, TracesError, begin
from controller.propagation import Done, Installed, Moments


class Collector:
    """Takes what is posted, or refuses it."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.headers["Content-Type"] == "application/x-protobuf"
                collector.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *words: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Span]:
        return [
            span
            for _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is waited for, however long the machine takes."""
    monkeypatch.setattr(change_traces, "_LAST_WORDS", 60.0)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def attributes(span: Span) -> dict[str, object]:
    found: dict[str, object] = {}
    for each in span.attributes:
        kind = each.value.WhichOneof("value")
        value = getattr(each.value, kind)
        found[each.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


def test_a_change_is_one_trace_from_its_source_to_the_switches_that_it_came_to(collector: Collector) -> None:
    there = (node(1), node(2), pod("a", 1))
    controller = started(*there)
    ports = {1: (*UPLINKS, pod_port("a", 1)), 2: UPLINKS}
    wires = [connect(controller, FakeSwitch(node(each).datapath_id, ports[each])) for each in ports]
    traces = begin(collector.url, "me")
    controller.tell_traces(traces)
    before = time.time_ns()
    controller.take(snapshot(*there, node(3)), told=time.monotonic() - 0.25)
    for wire in wires:
        wire.pump()
    taken = time.time_ns() - before
    traces.close()
    assert [path for path, _ in collector.requests] == ["/v1/traces"]
    (resource,) = (each.resource for each in collector.requests[0][1].resource_spans)
    named = {each.key: each.value.string_value for each in resource.attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("signalbox-controller", "me")
    spans = collector.spans()
    (root,) = (span for span in spans if not span.parent_span_id)
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert {span.parent_span_id for span in spans if span is not root} == {root.span_id}
    assert attributes(root) == {
        "signalbox.change.kind": "object",
        "signalbox.change.objects": ["Node n3"],
        "signalbox.switches": 2,
    }
    steps = sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in steps] == ["source", "compile", "encode", "bundle", "bundle"]
    assert sorted(str(attributes(span)["signalbox.node"]) for span in steps[3:]) == ["n1", "n2"]
    # One ends where the next begins, from when the source said it until the last switch has it.
    assert abs(root.start_time_unix_nano - (before - 250_000_000)) <= taken
    for earlier, later in pairwise(steps[:4]):
        assert earlier.start_time_unix_nano <= earlier.end_time_unix_nano <= later.start_time_unix_nano + 1000
    assert max(span.end_time_unix_nano for span in steps) == root.end_time_unix_nano
    assert traces.told == 1 and not traces.dropped


def done(switches: int = 1) -> Done:
    there = [Installed(f"n{n}", 3.0, 4.0 + n) for n in range(switches)]
    return Done("object", ("Pod a/b",), Moments(1.0, 1.0, 3.0, 0.5), switches, 4.0 + switches - 1, there)


class Stuck(SpanExporter):
    """A collector that takes its time, until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.is_over = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.go.wait(60)
        self.is_over = True
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.go.set()


def test_who_makes_changes_never_waits_and_what_is_too_much_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_traces, "BATCH", 1)
    stuck = Stuck()
    traces = ChangeTraces(stuck, {})
    for _ in range(3 * WAITING):
        traces.take(done())
    assert not stuck.is_over and traces.dropped >= WAITING
    stuck.go.set()
    traces.close()


class Kept(SpanExporter):
    def __init__(self, *results: SpanExportResult) -> None:
        self.spans: list[ReadableSpan] = []
        self._results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return self._results.pop(0) if self._results else SpanExportResult.SUCCESS


def test_of_many_switches_those_have_spans_that_took_longest() -> None:
    kept = Kept()
    traces = ChangeTraces(kept, {})
    traces.take(done(1000))
    traces.close()
    nodes = [span.attributes["signalbox.node"] for span in kept.spans if span.name == "bundle" and span.attributes]
    assert sorted(map(str, nodes)) == sorted(f"n{n}" for n in range(1000 - SWITCHES, 1000))
    (root,) = (span for span in kept.spans if span.parent is None)
    assert root.attributes is not None and root.attributes["signalbox.switches"] == 1000


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_collector_that_refuses_is_complained_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(change_traces, "BATCH", 1)
    monkeypatch.setattr(change_traces, "SHARE", 0.99)
    caplog.set_level(logging.INFO)
    kept = Kept(SpanExportResult.FAILURE, SpanExportResult.FAILURE)
    traces = ChangeTraces(kept, {})
    for number in range(1, 4):
        traces.take(done())
        until(lambda number=number: len([span for span in kept.spans if span.parent is None]) == number)  # type: ignore[misc]
    traces.close()
    said = [record.message for record in caplog.records if record.name == change_traces.__name__]
    assert said == [
        "traces of changes can't be sent: the collector doesn't take them",
        "traces of changes are sent again",
    ]


def test_without_an_endpoint_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(change_traces.ENDPOINT_VARIABLE, raising=False)
    assert type(begin(None, "me")) is NoTraces


def test_opentelemetry_s_own_variable_is_heeded(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(change_traces.ENDPOINT_VARIABLE, collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    traces = begin(None, "me")
    traces.take(done())
    traces.close()
    ((path, request),) = collector.requests
    assert path == "/v1/traces" and b"mine" in request.resource_spans[0].resource.SerializeToString()


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "ftp://a", "http://"])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(TracesError, match="expected http://HOST:PORT"):
        begin(endpoint, "me")


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracesError, match=r"install signalbox-sdn\[otlp\]"):
        begin("http://127.0.0.1:4318", "me")
