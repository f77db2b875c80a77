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
    """Masks evaluated in the current round."""

    masks_per_round: int = 0
    """Masks that the current round needs."""

    sparsity: float = 0.0
    """Share of the non-embedding parameters removed so far."""

    perplexity_before: float | None = None
    """Perplexity of the dense model on the calibration batch."""

    perplexity: float | None = None
    """Perplexity after the last finished round, on the calibration batch."""

    seconds_per_mask: float | None = None
    """Median time of the masks evaluated so far in this attempt."""

    seconds_left: float | None = None
    """Estimate: masks still to evaluate times `seconds_per_mask`; the rest of a round is small."""
