"""The token sequences of a run: what is listened to, and what trials are measured on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bonsai_core.calibration import calibration_batch, digest_of
from bonsai_core.config import PruneRequest
from bonsai_core.events import GoOn, regardless
from bonsai_core.generation import mixed, written
from bonsai_core.models import LoadedModel
from bonsai_core.seeds import generator


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences [N, S] int64 on the model's device, of the given text and of the model's own.

    Attributes:
        listened: for statistics and repairs.
        tried: for trials, their beginnings; not among those listened to, if there are enough.
        given: those of them that are of the given text, whole.
        sha256: of all that are of the given text.
    """

    listened: Tensor
    tried: Tensor
    given: Tensor
    sha256: str


def batch_of(loaded: LoadedModel, request: PruneRequest, go_on: GoOn = regardless) -> Batch:
    """Read the calibration text, and let the dense model write its share.

    Raises:
        InvalidCalibrationError: the text is missing, unreadable, empty or too short.
    """
    seed, length = request.pruning.seed, request.calibration.sequence_length
    source = request.calibration.model_copy(update={"samples": request.given_samples})
    text = calibration_batch(source, loaded.tokenizer, seed)
    random = generator(seed, 0, "own text")
    own = written(loaded, request.own_samples, length, random, go_on)
    given = text.to(loaded.device)
    for_trials, own_for_trials = request.trial_given_samples, request.trial_own_samples
    heard = (given[: len(given) - for_trials], own[: len(own) - own_for_trials])
    tried = (given[len(given) - for_trials :], own[len(own) - own_for_trials :])
    listened = mixed(*heard)
    return Batch(
        listened=listened if len(listened) else mixed(*tried),
        tried=torch.cat(tried)[:, : request.trial_length],
        given=tried[0],
        sha256=digest_of(text),
    )
