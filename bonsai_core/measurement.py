"""A model measured as it will be used: likelihoods, questions, memory, speeds, what it writes."""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bonsai_core.config import ModelSource
from bonsai_core.errors import InvalidModelError
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.events import GoOn, regardless
from bonsai_core.exam import Exam, exam_on
from bonsai_core.families import context_of
from bonsai_core.harness import Harness, TaskScore
from bonsai_core.models import (
    LiveModel,
    device_named,
    load_saved,
    locate,
    logits_of,
    non_embedding_parameters,
    parameters,
)
from bonsai_core.probe import probe_tokens
from bonsai_core.utilities.quiz import Quiz

WRITTEN_TOKENS = 32
"""Tokens that are written after a prompt, for speeds and as samples."""

REPEATS = 3
"""Of each speed, of which the median counts."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was found of one model.

    Attributes:
        parameters: tied ones once.
        non_embedding_parameters: without the input embedding and the output head.
        file_bytes: of its weights' files.
        weight_bytes: of its weights in memory.
        peak_memory_bytes: of the device while speeds were measured; None on a CPU.
        mean_nll: of each text of the exam, in nats per token.
        perplexity: of each text of the exam.
        accuracy: share of the questions answered right; None without questions.
        margin: by how many nats the right answer leads the best other, on average.
        tasks: what tasks of lm-evaluation-harness give; none where none were named.
        prefill_tokens_per_second: reading one prompt.
        decode_tokens_per_second: writing after it, one token at a time, with a cache.
        completions: how it goes on with each prompt, the most likely token each time.
        seconds: that all of it took.
    """

    parameters: int
    non_embedding_parameters: int
    file_bytes: int
    weight_bytes: int
    peak_memory_bytes: int | None
    mean_nll: dict[str, float]
    perplexity: dict[str, float]
    accuracy: float | None
    margin: float | None
    tasks: list[TaskScore]
    prefill_tokens_per_second: float
    decode_tokens_per_second: float
    completions: list[str]
    seconds: float
    device: str
    dtype: str


def measure(
    source: ModelSource, live: LiveModel, exam: Exam, go_on: GoOn = regardless
) -> Measurement:
    """Put an exam to a model that is loaded.

    Args:
        source: where it was loaded from, for the size of its files.
        live: the model.
        exam: what it is asked.
        go_on: called before each forward pass.

    Raises:
        BrokenNumericsError: a likelihood is not finite.
        InvalidTaskError: a task cannot be asked.
    """
    started = time.perf_counter()
    nll = {
        text.name: mean_nll(live.model, live.family, text.windows.to(live.device), go_on)
        for text in exam.texts
    }
    margins = Quiz(live, exam.questions).margins(go_on) if exam.questions else []
    completions = [_completion(live, prompt, go_on) for prompt in exam.prompts]
    prefill, decode, peak = _speeds(live, exam.prompt_tokens, go_on)
    return Measurement(
        parameters=parameters(live.model),
        non_embedding_parameters=non_embedding_parameters(live.model),
        file_bytes=_file_bytes(source),
        weight_bytes=sum(weight.nbytes for weight in live.model.parameters()),
        peak_memory_bytes=peak,
        mean_nll=nll,
        perplexity={name: perplexity_of(value) for name, value in nll.items()},
        accuracy=sum(margin > 0 for margin in margins) / len(margins) if margins else None,
        margin=sum(margins) / len(margins) if margins else None,
        tasks=exam.harness.scores(live) if exam.harness else [],
        prefill_tokens_per_second=prefill,
        decode_tokens_per_second=decode,
        completions=completions,
        seconds=time.perf_counter() - started,
        device=str(live.device),
        dtype=str(next(live.model.parameters()).dtype).removeprefix("torch."),
    )


def compare(
    models: list[ModelSource],
    text: Path,
    *,
    window: int,
    windows: int | None,
    device: str,
    harness: Harness | None = None,
) -> tuple[Exam, list[Measurement]]:
    """Put the same exam, on one text, to several models, one after the other.

    Args:
        models: folders, hub ids or GGUF files; pruned models need no remote code.
        text: a `.txt` or `.jsonl` file.
        window: tokens per window, from 2.
        windows: how many windows; None for all that the text has.
        device: auto, cpu, cuda or cuda:N.
        harness: tasks of lm-evaluation-harness that each is asked, too.

    Raises:
        InvalidCalibrationError: the text is missing or shorter than asked.
        InvalidModelError: a model cannot be loaded, or has another tokenizer than the first.
        InvalidTaskError: a task cannot be asked.
        UnsupportedModelError: it is of no family we know.
    """
    place = device_named(device)
    exam: Exam | None = None
    found = []
    for source in models:
        live = load_saved(source, place)
        own = exam_on(live, text, window=window, windows=windows, harness=harness)
        exam = exam or own
        if not torch.equal(own.texts[0].windows, exam.texts[0].windows):
            raise InvalidModelError(
                "its tokenizer splits the text otherwise than that of the first model, so "
                "perplexities per token cannot be compared",
                field="model.source",
                value=source.source,
                allowed="models with one tokenizer, such as a model and what was pruned from it",
            )
        found.append(measure(source, live, exam))
        del live
    assert exam is not None, "there is at least one model"
    return exam, found


@torch.inference_mode()
def _written(
    live: LiveModel, tokens: Tensor, count: int, go_on: GoOn
) -> tuple[Tensor, list[float]]:
    """The most likely tokens after some [1, P], and when each was there; [1, N], [N + 1].

    N is `count`, or as many as the model's context has room for.
    """
    backbone: Any = live.backbone
    count = min(count, _context(live) - tokens.shape[1] + 1)
    logits = logits_of(live.model, live.family)
    written, times, past = [tokens], [_now(live)], None
    for _ in range(count):
        go_on()
        found = backbone(input_ids=written[-1], past_key_values=past, use_cache=True)
        past = found.past_key_values
        written.append(logits(found.last_hidden_state[:, -1:]).argmax(-1))
        times.append(_now(live))
    return torch.cat(written[1:], dim=1), times


def _completion(live: LiveModel, prompt: str, go_on: GoOn) -> str:
    tokens = live.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    if not tokens.numel():
        return ""
    tokens = tokens[:, -(_context(live) // 2) :].to(live.device)
    found, _ = _written(live, tokens, WRITTEN_TOKENS, go_on)
    return str(live.tokenizer.decode(found[0], skip_special_tokens=True))


def _speeds(live: LiveModel, length: int, go_on: GoOn) -> tuple[float, float, int | None]:
    """Tokens per second of reading a prompt, of writing after it; bytes of the device at most."""
    vocabulary = live.model.get_input_embeddings().weight.shape[0]
    prompt = probe_tokens(vocabulary).repeat(1, length)[:, :length].to(live.device)
    _written(live, prompt, 2, go_on)  # warm-up: kernels chosen, memory allocated
    cuda = live.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(live.device)
    reading, writing = [], []
    for _ in range(REPEATS):
        _, times = _written(live, prompt, 1 + WRITTEN_TOKENS, go_on)
        reading.append(length / (times[1] - times[0]))
        writing.append((len(times) - 2) / (times[-1] - times[1]))
    peak = torch.cuda.max_memory_allocated(live.device) if cuda else None
    return statistics.median(reading), statistics.median(writing), peak


def _context(live: LiveModel) -> int:
    return context_of(live.model.config.to_dict()) or sys.maxsize


def _now(live: LiveModel) -> float:
    if live.device.type == "cuda":
        torch.cuda.synchronize(live.device)
    return time.perf_counter()


def _file_bytes(source: ModelSource) -> int:
    pattern = source.gguf_file or "*.safetensors"
    return sum(path.stat().st_size for path in locate(source).glob(pattern))
