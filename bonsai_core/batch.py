"""The token sequences of a run: what is listened to, and what trials are measured on.

The first token of a sequence sees only itself. Models make a sink of it that all others attend to,
with states hundreds of times larger than theirs (arXiv 2402.17762), and a repair that has seen the
first tokens of some hundred sequences does not keep it for others: a pruned model then fails on a
whole sequence because of the token it begins with. But a sequence of one token is enough to see
one, so thousands of them cost next to nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bonsai_core.budget import TOKENS_PER_OPENING
from bonsai_core.calibration import calibration_batch, digest_of
from bonsai_core.config import PruneRequest
from bonsai_core.events import GoOn, regardless
from bonsai_core.generation import mixed, vocabulary_of, written
from bonsai_core.models import LoadedModel
from bonsai_core.seeds import generator


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences [N, S] int64 on the model's device, of the given text and of the model's own.

    Attributes:
        listened: for statistics and repairs.
        openings: [F] int64, for the same: tokens that sequences may begin with.
        tried: for trials, their beginnings; not among those listened to, if there are enough.
        given: those of them that are of the given text, whole.
        sha256: of all that are of the given text.
    """

    listened: Tensor
    openings: Tensor
    tried: Tensor
    given: Tensor
    sha256: str


def batch_of(
    loaded: LoadedModel,
    request: PruneRequest,
    go_on: GoOn = regardless,
    *,
    text_file: Path | None = None,
) -> Batch:
    """Read the calibration text, and let the dense model write some more.

    Args:
        text_file: read in place of what the request names.

    Raises:
        InvalidCalibrationError: the text is missing, unreadable, empty or too short.
    """
    seed, length = request.pruning.seed, request.calibration.sequence_length
    place = {} if text_file is None else {"source": str(text_file)}
    source = request.calibration.model_copy(update=place)
    text = calibration_batch(source, loaded.tokenizer, seed)
    random = generator(seed, 0, "own text")
    own = written(loaded.live, request.own_samples, length, random, go_on)
    given = text.to(loaded.device)
    for_trials, own_for_trials = request.trial_given_samples, request.trial_own_samples
    heard = (given[: len(given) - for_trials], own[: len(own) - own_for_trials])
    tried = (given[len(given) - for_trials :], own[len(own) - own_for_trials :])
    listened = mixed(*heard)
    return Batch(
        listened=listened if len(listened) else mixed(*tried),
        openings=_openings(loaded, given, request),
        tried=torch.cat(tried)[:, : request.trial_length],
        given=tried[0],
        sha256=digest_of(text),
    )


def _openings(loaded: LoadedModel, given: Tensor, request: PruneRequest) -> Tensor:
    """Half of them as they come in the given text, half from the whole vocabulary, and those that
    the tokeniser adds by itself."""
    half = -(-request.calibration.tokens // TOKENS_PER_OPENING // 2)
    random = generator(request.pruning.seed, 0, "openings")
    text = given.flatten().cpu().numpy()
    vocabulary = vocabulary_of(loaded.live)
    drawn = random.integers(vocabulary, size=half)
    special = [token for token in loaded.tokenizer.all_special_ids if token < vocabulary]
    chosen = np.concatenate([random.choice(text, half), drawn, np.array(special, dtype=np.int64)])
    return torch.from_numpy(chosen.astype(np.int64)).to(loaded.device)
