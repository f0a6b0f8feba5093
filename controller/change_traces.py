"""What became of each change, for OpenTelemetry: a trace from when its source said it to the last switch's word.

    Done ──take──> a bounded queue ──a thread of its own──> spans ──OTLP over HTTP──> a collector

The event loop only puts what is known anyway into the queue; where the queue is full, the change is told of to nobody,
and counted. The thread makes spans and sends them, and rests so long that it takes no more than a share of a processor,
whatever happens. The library is an extra: it is imported when it is asked for.
"""

from __future__ import annotations

import heapq
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from controller.propagation import Done

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)

#: Changes that may wait to be told of.
WAITING = 256
#: Switches of a change that have a span of their own: those that took longest.
SWITCHES = 20
#: Spans that are sent together, and seconds for which they may wait for others.
BATCH, LINGER = 200, 1.0
#: The part of a processor that all of it may take.
SHARE = 0.05
#: Seconds that the collector has to take what is left when the controller ends.
_LAST_WORDS = 2.0
#: Where a collector takes traces, below the address that people know.
_PATH = "/v1/traces"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


class TracesError(Exception):
    """Traces can't be sent; the text says why."""


class NoTraces:
    """Nobody is told."""

    told = dropped = 0

    def take(self, done: Done) -> None:
        """A change is on all its switches."""

    def close(self) -> None:
        """The controller ends."""


class _Change(msgspec.Struct, frozen=True):
    done: Done
    #: Nanoseconds since 1970 at the zero of the clock that the change was measured by.
    zero: int


class ChangeTraces(NoTraces):
    """Traces of changes, as `exporter` sends them. `attributes` say who tells of them."""

    def __init__(self, exporter: SpanExporter, attributes: dict[str, str]) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        self.told = self.dropped = 0
        self._exporter = exporter
        self._ended: list[ReadableSpan] = []
        provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        provider.add_span_processor(_collecting(self._ended.append))
        self._tracer = provider.get_tracer("signalbox")
        self._queue: queue.Queue[_Change | None] = queue.Queue(WAITING)
        self._is_failing = False
        self._thread = threading.Thread(target=self._run, name="change-traces", daemon=True)
        self._thread.start()

    def take(self, done: Done) -> None:
        """A change is on all its switches."""
        zero = time.time_ns() - round(time.monotonic() * 1e9)
        try:
            self._queue.put_nowait(_Change(done, zero))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Send what there is, if that is quick."""
        try:
            self._queue.put(None, timeout=_LAST_WORDS)
        except queue.Full:
            return
        self._thread.join(_LAST_WORDS)

    # In the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        since = 0.0
        while True:
            wait = max(since + LINGER - time.monotonic(), 0.0) if self._ended else None
            try:
                change = self._queue.get(timeout=wait)
            except queue.Empty:
                change = None
                is_last = False
            else:
                is_last = change is None
            begun = time.thread_time()
            if change is not None:
                since = since if self._ended else time.monotonic()
                self._make(change)
            if self._ended and (is_last or len(self._ended) >= BATCH or time.monotonic() - since >= LINGER):
                self._send()
            if is_last:
                self._exporter.shutdown()
                return
            time.sleep((time.thread_time() - begun) * (1 / SHARE - 1))

    def _make(self, change: _Change) -> None:
        done, moments = change.done, change.done.moments

        def at(seconds: float) -> int:
            return change.zero + round(seconds * 1e9)

        attributes: dict[str, str | int | tuple[str, ...]] = {
            "signalbox.change.kind": done.what,
            "signalbox.change.objects": done.about,
            "signalbox.switches": done.size,
        }
        root = self._tracer.start_span(f"change of {done.what}s", start_time=at(moments.told), attributes=attributes)
        made = moments.known + moments.compiling
        if moments.told < moments.known:
            self._child(root, "source", at(moments.told), at(moments.known))
        self._child(root, "compile", at(moments.known), at(made))
        self._child(root, "encode", at(made), at(moments.sent))
        for each in heapq.nlargest(SWITCHES, done.switches, key=lambda each: each.landed):
            self._child(root, "bundle", at(each.begun), at(each.landed), {"signalbox.node": each.node})
        root.end(at(done.last))
        self.told += 1

    def _child(self, root: Span, name: str, start: int, end: int, attributes: dict[str, str] | None = None) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(root)
        self._tracer.start_span(name, context, start_time=start, attributes=attributes).end(max(start, end))

    def _send(self) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        spans = list(self._ended)
        self._ended.clear()
        try:
            failed = self._exporter.export(spans) is not SpanExportResult.SUCCESS
        except Exception as error:
            # Whatever a library does with a collector's answer: it is no reason to tell of nothing any more.
            log.debug("traces: %r", error)
            failed = True
        if failed != self._is_failing:
            self._is_failing = failed
            if failed:
                log.warning("traces of changes can't be sent: the collector doesn't take them")
            else:
                log.info("traces of changes are sent again")


def begin(endpoint: str | None, instance: str) -> NoTraces:
    """Traces to a collector at a URL, or where OpenTelemetry's own variable says, if it does. Raises TracesError.

    `instance` tells this controller from others.
    """
    if endpoint is not None and (urlsplit(endpoint).scheme not in ("http", "https") or not urlsplit(endpoint).hostname):
        raise TracesError(f"--otlp-endpoint {endpoint}: expected http://HOST:PORT or https://HOST:PORT")
    if endpoint is None and not os.environ.get(ENDPOINT_VARIABLE):
        return NoTraces()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        what = f"--otlp-endpoint {endpoint}" if endpoint is not None else ENDPOINT_VARIABLE
        raise TracesError(f"{what} needs OpenTelemetry: install signalbox-sdn[otlp]") from error
    # It complains of each attempt; what people need to know is said here, once.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    # Without an endpoint it is the variable's, with all that the other variables say.
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + _PATH if endpoint is not None else None)
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "signalbox-controller"}
    return ChangeTraces(exporter, {"service.instance.id": instance, **named})


def _collecting(take: Callable[[ReadableSpan], None]) -> SpanProcessor:
    """A processor that hands on what has ended."""
    from opentelemetry.sdk.trace import SpanProcessor

    class Collecting(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            take(span)

    return Collecting()
