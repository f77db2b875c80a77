"""What a run tells whoever listens. The core does not know who that is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnTextStarted:
    """The model is in memory, and writes its share of the calibration text, token by token."""

    sequences: int
    sequence_length: int


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """The model and the calibration batch are in memory."""

    architecture: str
    device: str
    dtype: str
    parameters: int
    non_embedding_parameters: int
    rounds: int
    """Rounds that the target needs at most."""
    perplexity: float
    """Of the dense model, on the given text among the sequences of trials, taken whole."""
    trials: int | None = None
    """Sub-models that will be tried, at most; None: the recipe does not tell."""
    trial_tokens: int | None = None
    """Forward tokens of these (`bonsai_core.budget`)."""
    forward_tokens: int | None = None
    """Of everything, at most."""


@dataclass(frozen=True, slots=True)
class MemoryExhausted:
    """The device ran out of memory: the run begins again from its ledger, with less at once."""

    wanted: str
    """What there was no room for, in words."""
    sequences: int
    """Calibration sequences of a forward pass from now on."""


@dataclass(frozen=True, slots=True)
class RoundStarted:
    """A round's trials are chosen."""

    round: int
    rounds: int
    masks: int
    masks_in_ledger: int
    """Trials that an earlier run evaluated already."""
    sparsity: float
    """Cut before the round; a plan is not counted."""


@dataclass(frozen=True, slots=True)
class MaskEvaluated:
    """One trial was evaluated now, not read from the ledger."""

    round: int
    trial: int
    utility: float
    seconds: float


@dataclass(frozen=True, slots=True)
class RoundFinished:
    """A round has cut its units, or planned which go."""

    round: int
    rounds: int
    sparsity: float
    """Share of the non-embedding parameters removed so far, or planned to be."""
    perplexity: float
    """With the plan in place, or after the cut, on the same text."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SaveStarted:
    """The target is met; the result is being written, which takes a while for a large model."""

    folder: str


@dataclass(frozen=True, slots=True)
class ModelSaved:
    """The result lies in its folder."""

    folder: str
    parameters: int
    sparsity: float


Event = (
    OwnTextStarted
    | ModelLoaded
    | MemoryExhausted
    | RoundStarted
    | MaskEvaluated
    | RoundFinished
    | SaveStarted
    | ModelSaved
)
Listener = Callable[[Event], None]
"""Called in the thread of the run, between forward passes; what it raises ends the run."""

Stop = Callable[[], bool]
"""Asked between two forward passes; True ends the run with `Stopped`."""

GoOn = Callable[[], None]
"""Called before each forward pass; raises `Stopped` where the run shall end."""


def regardless() -> None:
    """A `GoOn` that never ends anything."""
