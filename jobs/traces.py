"""Traces: what happens to a job, as spans, for whoever collects them.

They are recorded by OpenTelemetry where its standard variables name a collector; without these
nothing of it is imported.
"""

import os
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog

Attributes = Mapping[str, str | int | float]

TRACEPARENT = "TRACEPARENT"
"""The environment variable by which a process that is started learns what it is below."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

_log = structlog.get_logger(__name__)


class Span:
    """Something that takes time; this one is not recorded.

    Attributes:
        traceparent: names it, as in W3C Trace Context, for others to be below it or linked to it.
    """

    traceparent: str | None = None

    def note(self, attributes: Attributes) -> None:
        """Tell more about it."""

    def rename(self, name: str) -> None:
        """Give it a better name."""

    def end(self, error: str | None = None) -> None:
        """It is over, with an error or without. What is over does not end again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end(None if kind is None else kind.__name__)


class Traces:
    """Where the spans of a process begin; these record none."""

    def start(
        self,
        name: str,
        attributes: Attributes,
        *,
        parent: str | None = None,
        link: str | None = None,
        is_request: bool = False,
    ) -> Span:
        """Begin a span.

        Args:
            name: one of few.
            attributes: see `Span.note`.
            parent: the `traceparent` that it is below; None: it is the root of a trace.
            link: the `traceparent` of what has led to it.
            is_request: whether it answers one.
        """
        del name, attributes, parent, link, is_request
        return Span()

    def close(self) -> None:
        """Send what has ended, within two seconds or not at all."""


def traces_of(process: str) -> Traces:
    """The traces of a process, such as "api": recorded, if a collector is named."""
    if not any(map(os.environ.get, _ENDPOINTS)):
        return Traces()
    try:
        from jobs.open_telemetry import RecordedTraces  # noqa: PLC0415 - an extra
    except ImportError as error:
        cure = "pip install 'bonsai-pruning[tracing]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        _log.error("traces_off", error=str(error), cure=cure)
        return Traces()
    return RecordedTraces(process)


def named(values: Attributes) -> Attributes:
    """Attributes under names of ours."""
    return {f"bonsai.{name}": value for name, value in values.items()}


def traced(traceparent: str | None) -> dict[str, str]:
    """What a log says of the trace that its lines belong to, if there is one."""
    trace_id = trace_id_of(traceparent)
    return {} if trace_id is None else {"trace_id": trace_id}


def trace_id_of(traceparent: str | None) -> str | None:
    """The trace that a `traceparent` belongs to; None where it is none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return found and found[1]
