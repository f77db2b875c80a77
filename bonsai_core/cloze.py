"""Multiple-choice questions from held-out text: which words come next?

A context ends inside a paragraph; one choice is how it goes on, the others are from elsewhere in
the same text, of the same length in tokens. A model answers by log-likelihood, without training.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bonsai_core.calibration import tokenize
from bonsai_core.seeds import generator
from bonsai_core.utilities.questions import Question

CHOICES = 4
CONTEXT_WORDS = 32
"""Some 40 tokens of most texts and tokenizers."""
CONTINUATION_WORDS = (8, 9, 10)
# What WikiText puts for a rare word: a choice full of them says nothing.
_UNKNOWN = "<unk>"
_WRONG_SPANS_PER_QUESTION = 40


def questions_from(content: str, tokenizer: Any, count: int) -> list[Question]:
    """Questions from paragraphs all over a text; fewer where it does not have so many.

    The same ones every time.
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
    return Question(context=context, choices=choices, answer=answer)
