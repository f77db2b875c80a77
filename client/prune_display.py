"""Shows a prune that runs in this process: bars on a terminal, and a line for each round."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from bonsai_core.events import (
    Event,
    MaskEvaluated,
    MemoryExhausted,
    ModelLoaded,
    ModelSaved,
    OwnTextStarted,
    RoundFinished,
    RoundStarted,
)
from client.tables import duration


class PruneDisplay:
    """Listens to a run; use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._rounds = self._bars.add_task("loading", total=None)
        self._trials = self._bars.add_task("trials", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def hear(self, event: Event) -> None:
        """Show an event."""
        match event:
            case OwnTextStarted():
                self._bars.update(self._rounds, description="the model writes calibration text")
            case ModelLoaded():
                self._loaded(event)
            case RoundStarted():
                self._bars.update(self._rounds, description="rounds", total=event.rounds)
                self._bars.reset(
                    self._trials,
                    total=event.masks,
                    completed=event.masks_in_ledger,
                    visible=event.masks > 0,
                )
            case MemoryExhausted():
                self._bars.update(
                    self._rounds,
                    description=f"out of memory: {event.sequences} sequences at once from now on",
                )
            case MaskEvaluated():
                self._bars.advance(self._trials)
            case RoundFinished():
                self._finished(event)
            case ModelSaved():
                self._bars.update(self._trials, visible=False)

    def measuring(self) -> None:
        """Show that the result is there and its report is being made."""
        self._bars.update(self._rounds, description="measuring for the report", total=None)

    def _loaded(self, event: ModelLoaded) -> None:
        self._bars.update(self._rounds, description="rounds", total=event.rounds)
        self._console.print(
            f"{event.architecture} on {event.device} in {event.dtype}: "
            f"{event.parameters:,} parameters, {event.non_embedding_parameters:,} outside the "
            f"embeddings, perplexity {event.perplexity:.3f}; at most {event.rounds} rounds",
            soft_wrap=True,
        )

    def _finished(self, event: RoundFinished) -> None:
        self._bars.update(self._rounds, completed=event.round, total=event.rounds)
        self._console.print(
            f"round {event.round}/{event.rounds}: sparsity {event.sparsity:.4f}, "
            f"perplexity {event.perplexity:.3f}, {duration(event.seconds)}",
            soft_wrap=True,
        )
