"""The ledger: what a run has measured and decided, written as it happens.

A run that starts with a ledger that is not empty evaluates only what is missing. Three
implementations exist: `MemoryLedger` here, `bonsai_core.file_ledger` and the worker's in Postgres.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from bonsai_core.errors import InputsChangedError

Tensors = Mapping[str, Tensor]


class RoundRecord(BaseModel):
    """What one round decided and measured. The same in every run of the same job."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    """From 1."""
    removed: dict[str, list[int]]
    """Units that went, or are planned to go, by gate name, in the numbering of the dense model."""
    cut: bool
    """Whether they went; a plan replaces that of the round before."""
    damping: float | None
    """Of the repair by least squares; None without repair."""
    sparsity: float
    """Share of the original non-embedding parameters removed or planned to be."""
    perplexity: float
    """With these units absent, on the given text among the sequences of trials."""
    trials: int
    """Sub-models whose utility the round's decision used."""
    utilities: tuple[float, float, float] | None = None
    """Least, median and greatest utility of them; None without trials."""
    predictions: list[tuple[float, float]] = []
    """Of each trial, its utility as the others tell it, and as it was measured; where the recipe
    fits a model to them."""
    notes: dict[str, float | None]
    """What else the recipe found out."""


class Ledger(Protocol):
    """What the loop needs of a ledger. Every write is durable when the call returns."""

    def open(self, fingerprint: str) -> None:
        """Bind to these inputs; InputsChangedError if the ledger belongs to others."""
        ...

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """The finished rounds, in order from 1."""
        ...

    def weights(self, number: int) -> Tensors:
        """The repaired output projections of a finished round, by gate name."""
        ...

    def prior(self, number: int) -> Tensors | None:
        """The prior scores of a begun round by gate name; None if it has not begun."""
        ...

    def begin_round(self, number: int, prior: Tensors) -> None:
        """Keep the prior of a round before any of its masks is evaluated."""
        ...

    def utilities(self, number: int) -> Mapping[int, float]:
        """The utilities measured so far in a round, by trial."""
        ...

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """Keep the utility of one trial."""
        ...

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """Keep a round's decision and its repaired weights; the round is finished."""
        ...


class LaterRounds:
    """The rounds of a ledger after the first few, numbered from 1: those of one target of several.

    Args:
        ledger: the whole.
        before: rounds that belong to the targets before.
    """

    def __init__(self, ledger: Ledger, before: int) -> None:
        self._ledger = ledger
        self._before = before

    def open(self, fingerprint: str) -> None:
        """See `Ledger.open`."""
        self._ledger.open(fingerprint)

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """See `Ledger.finished_rounds`; those of further targets come last."""
        return [
            record.model_copy(update={"number": record.number - self._before})
            for record in self._ledger.finished_rounds()[self._before :]
        ]

    def weights(self, number: int) -> Tensors:
        """See `Ledger.weights`."""
        return self._ledger.weights(self._before + number)

    def prior(self, number: int) -> Tensors | None:
        """See `Ledger.prior`."""
        return self._ledger.prior(self._before + number)

    def begin_round(self, number: int, prior: Tensors) -> None:
        """See `Ledger.begin_round`."""
        self._ledger.begin_round(self._before + number, prior)

    def utilities(self, number: int) -> Mapping[int, float]:
        """See `Ledger.utilities`."""
        return self._ledger.utilities(self._before + number)

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """See `Ledger.record`."""
        self._ledger.record(self._before + number, trial, utility, seconds)

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """See `Ledger.finish_round`."""
        number = self._before + record.number
        self._ledger.finish_round(record.model_copy(update={"number": number}), weights)


def require_same_inputs(ledger: str, kept: str, now: str) -> None:
    """Refuse a ledger of other inputs.

    Raises:
        InputsChangedError: the fingerprints differ.
    """
    if kept != now:
        raise InputsChangedError(
            f"the ledger in {ledger} belongs to another model, calibration text or request",
            field="ledger",
            value=now,
            allowed=kept,
            cure="resume with the same inputs, or start anew without the old ledger",
        )


@dataclass
class _Round:
    prior: Tensors
    utilities: dict[int, float]
    record: RoundRecord | None = None
    weights: Tensors | None = None


class MemoryLedger:
    """A ledger that lasts as long as the object: for notebooks and tests."""

    def __init__(self) -> None:
        self._fingerprint: str | None = None
        self._rounds: dict[int, _Round] = {}

    def open(self, fingerprint: str) -> None:
        """See `Ledger.open`."""
        self._fingerprint = self._fingerprint or fingerprint
        require_same_inputs("memory", self._fingerprint, fingerprint)

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """See `Ledger.finished_rounds`."""
        rounds = (self._rounds[number] for number in sorted(self._rounds))
        return [entry.record for entry in rounds if entry.record is not None]

    def weights(self, number: int) -> Tensors:
        """See `Ledger.weights`."""
        return self._rounds[number].weights or {}

    def prior(self, number: int) -> Tensors | None:
        """See `Ledger.prior`."""
        return self._rounds[number].prior if number in self._rounds else None

    def begin_round(self, number: int, prior: Tensors) -> None:
        """See `Ledger.begin_round`."""
        self._rounds[number] = _Round(prior, {})

    def utilities(self, number: int) -> Mapping[int, float]:
        """See `Ledger.utilities`."""
        return dict(self._rounds[number].utilities) if number in self._rounds else {}

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:  # noqa: ARG002
        """See `Ledger.record`."""
        self._rounds[number].utilities[trial] = utility

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """See `Ledger.finish_round`."""
        entry = self._rounds[record.number]
        entry.record, entry.weights = record, dict(weights)
