"""Spans of what a child does, from what the core tells: loading, each round, saving, storing."""

import os

from bonsai_core import events
from jobs.attempts import Claim
from jobs.traces import TRACEPARENT, Attributes, Span, Traces, named


class Spans:
    """A listener of the core that has one span open at a time, below that of the attempt."""

    def __init__(self, traces: Traces, claim: Claim) -> None:
        self._traces = traces
        self._about = named(claim.ids)
        self._open = Span()
        self._begin("load")

    def __call__(self, event: events.Event) -> None:
        """See `bonsai_core.events.Listener`."""
        match event:
            case events.ModelLoaded():
                self._open.note(
                    {
                        "bonsai.architecture": event.architecture,
                        "bonsai.device": event.device,
                        "bonsai.parameters": event.parameters,
                    }
                )
                self._open.end()
            case events.MemoryExhausted():
                self._open.end("memory_exhausted")
                self._begin("load")
            case events.RoundStarted():
                self._begin("round", {"bonsai.round": event.round, "bonsai.masks": event.masks})
            case events.RoundFinished():
                self._open.note(
                    {"bonsai.sparsity": event.sparsity, "bonsai.perplexity": event.perplexity}
                )
                self._open.end()
            case events.SaveStarted():
                self._begin("save")
            case events.ModelSaved():
                self._begin("store")

    def _begin(self, name: str, attributes: Attributes | None = None) -> None:
        self._open.end()
        parent = os.environ.get(TRACEPARENT)
        self._open = self._traces.start(name, {**self._about, **(attributes or {})}, parent=parent)

    def end(self, error: str | None) -> None:
        """What is open is over, with an error or without, and all of it is sent."""
        self._open.end(error)
        self._traces.close()
