"""What every model is asked, dense or pruned: perplexity on three texts, and questions on two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks.cloze import score
from benchmarks.texts import Text, spread, windows_of
from bonsai_core.evaluation import mean_nll, perplexity_of
from bonsai_core.families import Family
from bonsai_core.utilities.questions import Question

_SURELY = 1.1


@dataclass(frozen=True, slots=True)
class Marks:
    """What a model reached; each by text."""

    perplexity: Mapping[str, float]
    accuracy: Mapping[str, float]
    margin: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Exam:
    """Token windows and questions, by text; the same for every model of one tokenizer."""

    windows: Mapping[str, Tensor]
    questions: Mapping[str, Sequence[Question]]
    all_windows: Mapping[str, Tensor]
    """All windows of the evaluation text."""

    def take(self, model: Any, family: Family, tokenizer: Any) -> Marks:
        """Perplexity on the windows, and the questions."""
        scores = {
            name: score(model, family, tokenizer, questions)
            for name, questions in self.questions.items()
        }
        return Marks(
            _perplexities(model, family, self.windows),
            {name: found.accuracy for name, found in scores.items()},
            {name: found.margin for name, found in scores.items()},
        )

    def take_all_windows(self, model: Any, family: Family) -> Marks:
        """Perplexity on the whole evaluation text."""
        return Marks(_perplexities(model, family, self.all_windows), {}, {})


def _perplexities(model: Any, family: Family, windows: Mapping[str, Tensor]) -> dict[str, float]:
    device = next(model.parameters()).device
    return {
        name: perplexity_of(mean_nll(model, family, sequences.to(device)))
        for name, sequences in windows.items()
    }


def windows_for(
    evaluation: Text, others: Sequence[Text], tokenizer: Any, *, length: int, first: int, other: int
) -> tuple[dict[str, Tensor], Tensor]:
    """The windows by text: the first of the evaluation text, evenly spread ones of the others.

    Also all windows of the evaluation text.
    """
    everything = windows_of(evaluation, tokenizer, length)
    windows = {evaluation.name: everything[:first]}
    for text in others:
        windows[text.name] = spread(windows_of(text, tokenizer, length), other)
    return windows, everything


def beyond(text: Text, tokens: int, tokenizer: Any) -> str:
    """What follows the first so many tokens, and a little more: not seen in any of their windows.

    Lines are counted one by one, which gives a few tokens more than the text as a whole has.
    """
    seen, lines = 0, text.content.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if seen >= _SURELY * tokens:
            return "".join(lines[number:])
        seen += len(tokenizer(line, add_special_tokens=False, verbose=False)["input_ids"])
    return ""
