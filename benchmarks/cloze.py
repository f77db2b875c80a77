"""Cloze questions of a benchmark: kept in a file, and scored.

They come from `bonsai_core.cloze`. A model answers by log-likelihood, without training.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bonsai_core.calibration import tokenize
from bonsai_core.cloze import questions_from
from bonsai_core.families import Family
from bonsai_core.models import logits_of
from bonsai_core.utilities.questions import Question


@dataclass(frozen=True, slots=True)
class Score:
    """How a model did.

    Attributes:
        accuracy: share of the questions whose true choice is the most likely one.
        margin: mean of the true choice's log-likelihood minus the best wrong one's, in nats.
        questions: how many there were.
    """

    accuracy: float
    margin: float
    questions: int


def so_many_from(content: str, tokenizer: Any, count: int) -> list[Question]:
    """So many questions from a text.

    Raises:
        SystemExit: it does not have them.
    """
    questions = questions_from(content, tokenizer, count)
    if len(questions) < count:
        raise SystemExit(f"the text gives {len(questions)} questions; {count} were asked for")
    return questions


def write(questions: Sequence[Question], path: Path) -> None:
    """One JSON object per line: context, choices, answer."""
    lines = [
        json.dumps({"context": q.context, "choices": q.choices, "answer": q.answer})
        for q in questions
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> list[Question]:
    """What `write` wrote."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [Question.model_validate(row) for row in rows]


def score(model: Any, family: Family, tokenizer: Any, questions: Sequence[Question]) -> Score:
    """How well a model tells the true choice, by summed log-likelihood."""
    right, margins = 0, []
    for question in questions:
        likelihoods = log_likelihoods(model, family, tokenizer, question)
        others = [value for i, value in enumerate(likelihoods) if i != question.answer]
        margins.append(likelihoods[question.answer] - max(others))
        right += margins[-1] > 0
    return Score(right / len(questions), float(np.mean(margins)), len(questions))


@torch.inference_mode()
def log_likelihoods(model: Any, family: Family, tokenizer: Any, question: Question) -> list[float]:
    """The log-likelihood of each choice after the context, in nats.

    The context goes through the model once; all choices follow it in one batch.
    """
    backbone = model.get_submodule(family.backbone)
    device = next(model.parameters()).device
    context, choices = _ids(question, tokenizer)
    seen = backbone(input_ids=context[None].to(device), use_cache=True)
    seen.past_key_values.batch_repeat_interleave(len(choices))
    # Padding stands to the right, where causal attention lets nothing look at it.
    ids = torch.nn.utils.rnn.pad_sequence(choices, batch_first=True).to(device)
    states = backbone(
        input_ids=ids, past_key_values=seen.past_key_values, use_cache=True
    ).last_hidden_state
    before = seen.last_hidden_state[:, -1:].expand(len(choices), -1, -1)
    logits = logits_of(model, family)(torch.cat([before, states[:, :-1]], dim=1))
    likely = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    return list(_sums(likely.double(), [len(choice) for choice in choices]))


def _ids(question: Question, tokenizer: Any) -> tuple[Tensor, list[Tensor]]:
    """Tokens of the context, and of what each choice adds to it."""
    context = tokenize([question.context], tokenizer)
    whole = [tokenize([question.context + choice], tokenizer) for choice in question.choices]
    return context, [tokens[len(context) :] for tokens in whole]


def _sums(likely: Tensor, lengths: Sequence[int]) -> Iterator[float]:
    for row, length in zip(likely, lengths, strict=True):
        yield float(row[:length].sum())
