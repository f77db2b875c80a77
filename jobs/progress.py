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


class Progress(BaseModel):
    """Progress of one job."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    stage: Stage = Stage.WAITING
    """What is being done."""

    round: int = 0
    """Current round, from 1; 0 before the first."""

    rounds: int = 0
    """Rounds that the target needs at most; 0 until the model is loaded."""

    masks_evaluated: int = 0
    """Sub-models evaluated in the current round."""

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

    seconds_left: float | None = None
    """Estimate: sub-models still to try, as many in each round as in this one, times their time."""
