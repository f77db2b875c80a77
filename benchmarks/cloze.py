"""Multiple-choice questions from held-out text: which words come next?

A context ends inside a paragraph; one choice is how it goes on, the others are from elsewhere in
the same text, of the same length in tokens. A model answers by log-likelihood, without training.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bonsai_core.calibration import tokenize
from bonsai_core.families import Family
from bonsai_core.models import logits_of
from bonsai_core.seeds import generator

CHOICES = 4
CONTEXT_WORDS = 32
"""Some 40 tokens of most texts and tokenizers."""
CONTINUATION_WORDS = (8, 9, 10)
# What WikiText puts for a rare word: a choice full of them says nothing.
_UNKNOWN = "<unk>"
_WRONG_SPANS_PER_QUESTION = 40


@dataclass(frozen=True, slots=True)
class Question:
    """A context, ways to go on, each beginning with a space, and the number of the true one."""

    context: str
    choices: tuple[str, ...]
    answer: int


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


def questions_from(content: str, tokenizer: Any, count: int) -> list[Question]:
    """Questions from paragraphs all over a text; the same ones every time.

    Raises:
        SystemExit: the text does not have so many.
    """
    random = generator(0, 0, "cloze")
    paragraphs = [words for line in content.split("\n") if len(words := line.split()) >= _least()]
    pool = _spans(paragraphs, tokenizer, _WRONG_SPANS_PER_QUESTION * count, random)
    questions: list[Question] = []
    # Each paragraph is asked about once, in a random order, so no part of the text weighs more.
    for number in random.permutation(len(paragraphs)).tolist():
        if len(questions) == count:
            break
        question = _question(number, paragraphs[number], pool, tokenizer, random)
        if question is not None:
            questions.append(question)
    if len(questions) < count:
        raise SystemExit(f"the text gives {len(questions)} questions; {count} were asked for")
    return questions


def _least() -> int:
    return CONTEXT_WORDS + max(CONTINUATION_WORDS)


Span = tuple[int, str]
"""A paragraph's number and some words of it, with a space before each."""


def _spans(
    paragraphs: Sequence[list[str]], tokenizer: Any, count: int, random: np.random.Generator
) -> dict[int, list[Span]]:
    """Words from all over the text, by their number of tokens."""
    pool = defaultdict(list)
    for _ in range(count if paragraphs else 0):
        number = int(random.integers(len(paragraphs)))
        words = int(random.choice(CONTINUATION_WORDS))
        start = int(random.integers(len(paragraphs[number]) - words + 1))
        span = _joined(paragraphs[number][start : start + words])
        if _UNKNOWN not in span:
            pool[len(tokenize([span], tokenizer))].append((number, span))
    return dict(pool)


def _joined(words: Sequence[str]) -> str:
    return "".join(f" {word}" for word in words)


def _question(
    number: int,
    paragraph: list[str],
    pool: dict[int, list[Span]],
    tokenizer: Any,
    random: np.random.Generator,
) -> Question | None:
    """A question about one paragraph; None where no wrong choices are as long as the true one."""
    words = int(random.choice(CONTINUATION_WORDS))
    start = int(random.integers(CONTEXT_WORDS, len(paragraph) - words + 1))
    context = _joined(paragraph[start - CONTEXT_WORDS : start]).strip()
    true = _joined(paragraph[start : start + words])
    as_long = pool.get(len(tokenize([true], tokenizer)), [])
    wrong = sorted({span for other, span in as_long if other != number and span != true})
    if _UNKNOWN in true or len(wrong) < CHOICES - 1:
        return None
    choices = [wrong[i] for i in random.choice(len(wrong), CHOICES - 1, replace=False)]
    answer = int(random.integers(CHOICES))
    choices.insert(answer, true)
    return Question(context, tuple(choices), answer)


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
    return [Question(row["context"], tuple(row["choices"]), row["answer"]) for row in rows]


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
