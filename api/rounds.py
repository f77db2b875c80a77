"""Rounds of a job, as they go over the wire."""

from datetime import datetime
from typing import Self

from api.wire import Wire
from jobs.rounds import RoundAccount


class Round(Wire):
    """What one round of a job did."""

    number: int
    """From 1."""

    started_at: datetime
    finished_at: datetime | None
    """Null: it goes on, or was interrupted and will."""

    masks: int | None
    """Sub-models that it tries; null: not chosen yet."""

    masks_evaluated: int
    mask_seconds: float
    """That these took together."""

    seconds: float | None
    """From its start to its end, in the attempt that has finished it; null: it has not ended."""

    sparsity: float | None
    """Share of the non-embedding parameters removed at its end, or planned to be; null: it has not
    ended."""

    perplexity: float | None
    """With them absent, on the given text among the sequences of trials."""

    cut: bool | None
    """Whether they went; a plan is replaced by that of the next round."""

    removed: dict[str, int] | None
    """Units that went, or are planned to go, by gate."""

    @classmethod
    def of(cls, account: RoundAccount) -> Self:
        """The round of a row."""
        row = account.round
        record = row.record or {}
        removed = record.get("removed")
        return cls(
            number=row.number,
            started_at=row.started_at,
            finished_at=row.finished_at,
            masks=account.masks,
            masks_evaluated=account.evaluated,
            mask_seconds=account.mask_seconds,
            seconds=account.seconds,
            sparsity=record.get("sparsity"),
            perplexity=record.get("perplexity"),
            cut=record.get("cut"),
            removed=removed and {gate: len(units) for gate, units in removed.items()},
        )


class RoundPage(Wire):
    """All rounds of a job that were begun, the first one first."""

    items: list[Round]
    next_cursor: None = None
    """Always null: a job has few rounds."""
