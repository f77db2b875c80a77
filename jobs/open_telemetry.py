"""Traces that are recorded and sent to a collector, by a thread of their own.

A collector that is away costs spans, and nothing else.
"""

import os
import threading

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace import Span as OpenTelemetrySpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from jobs.traces import Attributes, Span, Traces

_CLOSING_SECONDS = 2.0


class RecordedTraces(Traces):
    """See `Traces`; the service is called `bonsai-` and the process, or `OTEL_SERVICE_NAME`."""

    def __init__(self, process: str) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME") or f"bonsai-{process}"
        resource = Resource.create({"service.name": name})
        # Its own hook would wait at the end of the process for a collector that is away.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("bonsai")

    def start(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: str | None = None,
        link: str | None = None,
        is_request: bool = False,
    ) -> Span:
        """See `Traces.start`."""
        linked = get_current_span(_context(link)).get_span_context()
        span = self._tracer.start_span(
            name,
            context=_context(parent),
            kind=SpanKind.SERVER if is_request else SpanKind.INTERNAL,
            links=[Link(linked)] if linked.is_valid else [],
            attributes=dict(attributes),
        )
        return RecordedSpan(span)

    def close(self) -> None:
        """See `Traces.close`."""
        sender = threading.Thread(target=self._provider.shutdown, daemon=True)
        sender.start()
        sender.join(_CLOSING_SECONDS)


class RecordedSpan(Span):
    """See `Span`."""

    def __init__(self, span: OpenTelemetrySpan) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span, Context()))
        self.traceparent = carrier.get("traceparent")

    def note(self, attributes: Attributes) -> None:
        """See `Span.note`."""
        self._span.set_attributes(dict(attributes))

    def rename(self, name: str) -> None:
        """See `Span.rename`."""
        self._span.update_name(name)

    def end(self, error: str | None = None) -> None:
        """See `Span.end`."""
        if not self._span.is_recording():
            return
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


def _context(traceparent: str | None) -> Context:
    """Where a `traceparent` says that one is; nowhere, if it says nothing."""
    carrier = {} if traceparent is None else {"traceparent": traceparent}
    return TraceContextTextMapPropagator().extract(carrier, context=Context())
