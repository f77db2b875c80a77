"""How far a job is: what the worker writes and the API shows."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict


class Stage(StrEnum):
    """What the worker is doing with the job."""

    WAITING = "waiting"
    LOADING = "loading"
    PRUNING = "pruning"
    SAVING = "saving"
    DONE = "done"


class TimeBasis(StrEnum):
    """What an estimate of the time left counts."""

    MASKS = "masks"
    """Sub-models still to try, at the median time of those tried in this attempt. What a round does
    besides is not counted, since none has ended in this attempt."""

    ROUNDS = "rounds"
    """Also what a round does besides: statistics, deciding, repairing, cutting; as long as in the
    rounds that have ended in this attempt."""


class Progress(BaseModel):
    """Progress of one job. What was reached stays shown when the job is resumed; times and speeds
    are those of the attempt that runs."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    stage: Stage = Stage.WAITING
    """What is being done."""

    round: int = 0
    """Current round, from 1; 0 before the first."""

    rounds: int = 0
    """Rounds that the target needs at most; 0 until the model is loaded."""

    masks_evaluated: int = 0
    """Sub-models evaluated in the current round, by this attempt or before it."""

    masks_resumed: int = 0
    """Of these, those that earlier attempts, or the job that this one retries, had evaluated."""

    masks_per_round: int = 0
    """Sub-models that the current round tries; 0 where it tries none."""

    sparsity: float = 0.0
    """Share of the non-embedding parameters removed so far, or planned to be."""

    perplexity_before: float | None = None
    """Of the dense model, on the calibration text among the sequences of trials."""

    perplexity: float | None = None
    """Of the model or the plan after the last finished round, on the same sequences."""

    seconds_per_mask: float | None = None
    """Median time of the sub-models evaluated so far in this attempt."""

    forward_passes_per_second: float | None = None
    """Measured over the last half minute in which sub-models were evaluated; a pass takes as many
    of the sequences as the device has room for at once."""

    seconds_left: float | None = None
    """Estimate, as `seconds_left_basis` says, as if each round to come tried as many sub-models as
    this one. Loading, own text and saving are not counted; null while there is nothing to go by."""

    seconds_left_basis: TimeBasis | None = None
    """What the estimate counts: `masks`, the sub-models still to try, at their median time;
    `rounds`, these and what rounds do besides, as long as it took in those that have ended. Both as
    measured in this attempt."""
