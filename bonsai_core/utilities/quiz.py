"""Multiple-choice questions put to a live model: each choice is scored by its likelihood."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bonsai_core.errors import InvalidCalibrationError
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import require_context
from bonsai_core.models import LiveModel
from bonsai_core.portions import positions_at_once, sequences_at_once
from bonsai_core.utilities.questions import Question
from bonsai_core.utilities.settings import Likelihood


class UnfitQuestionError(ValueError):
    """A question that cannot be put to this model: which one, counted from 0, and why."""

    def __init__(self, number: int, problem: str, cure: str = "") -> None:
        super().__init__(f"question {number}: {problem}")
        self.number = number
        self.problem = problem
        self.cure = cure


@dataclass(frozen=True, slots=True)
class _Row:
    """One choice behind its context: tokens[scored:] are what its likelihood is taken of."""

    tokens: list[int]
    scored: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one forward pass, padded on the right: a causal model never sees it."""

    rows: Tensor
    """[n] int64: numbers of the rows."""
    tokens: Tensor
    """[n, L] int64."""
    attention: Tensor
    """[n, L] int64: 1 for a token, 0 for padding."""
    scored: Tensor
    """[n, L - 1] bool: positions that predict a scored token."""


class Quiz:
    """Questions to one model.

    Context and choice are tokenised together, without special tokens as the calibration text is;
    see `_rows_of` for where a choice begins.

    Raises:
        UnfitQuestionError: one of them cannot be put to the model.
    """

    def __init__(
        self,
        live: LiveModel,
        questions: Sequence[Question],
        likelihood: Likelihood = Likelihood.SUM,
    ) -> None:
        self._live = live
        self._likelihood = likelihood
        self._answers = [question.answer for question in questions]
        rows = [_rows_of(live, number, question) for number, question in enumerate(questions)]
        self._choices = [len(group) for group in rows]
        flat = [row for group in rows for row in group]
        self._lengths = torch.tensor([len(row.tokens) - row.scored for row in flat])
        self._batches = _batches(flat, live.device)

    def margins(self, go_on: GoOn = regardless) -> list[float]:
        """By how many nats each answer leads the best other choice; negative where it does not."""
        likelihoods = self._likelihoods(go_on)
        if self._likelihood is Likelihood.MEAN:
            likelihoods = likelihoods / self._lengths
        groups = torch.split(likelihoods, self._choices)
        return [_margin(of, answer) for of, answer in zip(groups, self._answers, strict=True)]

    @torch.inference_mode()
    def _likelihoods(self, go_on: GoOn) -> Tensor:
        """The summed log-likelihood of each row's scored tokens; [rows] float64 on the CPU."""
        found = torch.empty(len(self._lengths), dtype=torch.float64, device=self._live.device)
        for batch in self._batches:
            go_on()
            found[batch.rows] = self._of_batch(batch)
        return found.cpu()

    def _of_batch(self, batch: _Batch) -> Tensor:
        """[n] float64; the head runs on scored positions only."""
        hidden = self._live.backbone(
            input_ids=batch.tokens, attention_mask=batch.attention, use_cache=False
        ).last_hidden_state[:, :-1]
        states, labels = hidden[batch.scored], batch.tokens[:, 1:][batch.scored]
        chunk = positions_at_once(self._live.device)
        picked = [
            self._live.log_probabilities(some).gather(1, tokens[:, None])
            for some, tokens in zip(
                torch.split(states, chunk), torch.split(labels, chunk), strict=True
            )
        ]
        # A table, since adding into rows by index has no fixed order on a GPU.
        table = torch.zeros(batch.scored.shape, dtype=torch.float64, device=self._live.device)
        table[batch.scored] = torch.cat(picked)[:, 0].double()
        return table.sum(dim=1)


def fits(live: LiveModel, question: Question) -> bool:
    """Whether a question can be put to a model."""
    try:
        _rows_of(live, 0, question)
    except UnfitQuestionError:
        return False
    return True


def _margin(likelihoods: Tensor, answer: int) -> float:
    """By how much the answer leads the best other choice; negative where it does not."""
    others = torch.cat([likelihoods[:answer], likelihoods[answer + 1 :]])
    return (likelihoods[answer] - others.max()).item()


def _rows_of(live: LiveModel, number: int, question: Question) -> list[_Row]:
    """The rows of one question's choices.

    Context and choice are encoded as one text, for a token may span their border. A choice is
    scored from the first token in which the context's encoding and those of all the choices
    differ: every choice of a question is then judged behind the very same tokens.

    Raises:
        UnfitQuestionError: a choice adds no token, nothing comes before it, or it is longer than
            the model's context.
    """
    context = _encoded(question.context, live)
    texts = [_encoded(question.context + choice, live) for choice in question.choices]
    shared = _shared_prefix([context, *texts])
    if shared == 0:
        raise UnfitQuestionError(
            number,
            "context and choices begin with different tokens, so nothing predicts the first",
            "begin the context with a word of its own, such as 'Question:'",
        )
    if min(map(len, texts)) == shared:
        raise UnfitQuestionError(number, "a choice adds no token to the context")
    try:
        require_context(live.model.config.to_dict(), max(map(len, texts)))
    except InvalidCalibrationError as error:
        problem = f"{error.value} tokens are {error.problem}"
        raise UnfitQuestionError(number, problem) from error
    return [_Row(tokens, shared) for tokens in texts]


def _encoded(text: str, live: LiveModel) -> list[int]:
    return list(live.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _shared_prefix(texts: Sequence[Sequence[int]]) -> int:
    """How many tokens all of them begin with."""
    length = 0
    for tokens in zip(*texts, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length


def _batches(rows: Sequence[_Row], device: torch.device) -> list[_Batch]:
    """Rows of like length together, the longest first; as many as one forward pass takes."""
    order = sorted(range(len(rows)), key=lambda number: -len(rows[number].tokens))
    batches, start = [], 0
    while start < len(order):
        count = sequences_at_once(len(rows[order[start]].tokens), device)
        batches.append(_padded(rows, order[start : start + count], device))
        start += count
    return batches


def _padded(rows: Sequence[_Row], numbers: Sequence[int], device: torch.device) -> _Batch:
    longest = max(len(rows[number].tokens) for number in numbers)
    tokens = torch.zeros((len(numbers), longest), dtype=torch.int64)
    attention = torch.zeros_like(tokens)
    scored = torch.zeros((len(numbers), longest - 1), dtype=torch.bool)
    for at, number in enumerate(numbers):
        row, length = rows[number], len(rows[number].tokens)
        tokens[at, :length] = torch.tensor(row.tokens)
        attention[at, :length] = 1
        scored[at, row.scored - 1 : length - 1] = True
    return _Batch(
        torch.tensor(numbers, device=device),
        tokens.to(device),
        attention.to(device),
        scored.to(device),
    )
