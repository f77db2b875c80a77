"""What a dense model and those made from it are asked: the same texts, questions and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bonsai_core.calibration import (
    beginning,
    calibration_batch,
    digest_of,
    held_out_batch,
    read_text,
    tokenize,
)
from bonsai_core.cloze import questions_from
from bonsai_core.config import PruneRequest
from bonsai_core.errors import InvalidCalibrationError
from bonsai_core.evaluation import first_windows
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import context_of
from bonsai_core.generation import written
from bonsai_core.harness import Harness
from bonsai_core.models import LiveModel
from bonsai_core.seeds import generator
from bonsai_core.utilities.questions import Question
from bonsai_core.utilities.quiz import fits

WINDOW = 512
"""Tokens of a window, where sequences and context are as long."""

MOST_WINDOWS = 16
"""Of each text; fewer where they would take longer than the calibration, on a CPU mostly."""

OWN_LENGTH = 256
MOST_QUESTIONS = 64
_QUESTION_TOKENS = 512
"""Of the calibration, for each question, whose four choices take some 200 with their contexts."""

_TEXTS = 3
PROMPTS = 3
PROMPT_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Text:
    """Windows of one text.

    Attributes:
        name: what it is, in a word or two.
        description: how it was chosen.
        windows: [N, S] int64 token ids, on the CPU, without overlap and special tokens.
    """

    name: str
    description: str
    windows: Tensor

    def protocol(self) -> dict[str, Any]:
        """All that makes its numbers comparable, as plain values."""
        return {
            "description": self.description,
            "windows": self.windows.shape[0],
            "window": self.windows.shape[1],
            "tokens_sha256": digest_of(self.windows),
        }


@dataclass(frozen=True, slots=True)
class Exam:
    """What each model is asked.

    Attributes:
        texts: for perplexity.
        questions: which words go on a paragraph of a text.
        questions_from: that text, in words.
        prompts: texts that each model is to go on with.
        prompt_tokens: length of the prompt for speeds.
        harness: tasks of lm-evaluation-harness; None for none.
    """

    texts: Sequence[Text]
    questions: Sequence[Question]
    questions_from: str
    prompts: Sequence[str]
    prompt_tokens: int
    harness: Harness | None = None

    def protocol(self) -> dict[str, Any]:
        """All that makes its numbers comparable, as plain values."""
        return {
            "texts": {text.name: text.protocol() for text in self.texts},
            "questions": {"count": len(self.questions), "from": self.questions_from},
            "prompt_tokens": self.prompt_tokens,
        } | ({"harness": self.harness.protocol()} if self.harness else {})


def exam_for(
    live: LiveModel,
    request: PruneRequest,
    *,
    text_file: Path | None = None,
    go_on: GoOn = regardless,
) -> Exam:
    """The exam of a prune's models, made with the dense one.

    Perplexity on windows of the calibration text that the run has not used, if it has more than
    were taken; on text that the dense model writes now; and on a text of the request's choice.

    Args:
        live: the dense model.
        request: what was asked.
        text_file: read in place of the calibration text that the request names.
        go_on: called before each forward pass.

    Raises:
        InvalidCalibrationError: a text cannot be read, or is too short.
    """
    wish = request.report
    seed, length = request.pruning.seed, _window(live, request.calibration.sequence_length)
    place = {} if text_file is None else {"source": str(text_file)}
    source = request.calibration.model_copy(update=place)
    tokens = request.calibration.tokens
    windows = max(2, min(MOST_WINDOWS, tokens // (_TEXTS * length)))
    held_out = held_out_batch(source, live.tokenizer, seed, windows)
    seen = not len(held_out)
    near = calibration_batch(source, live.tokenizer, seed)[-windows:] if seen else held_out
    which = "which the run has used, having no others" if seen else "which the run has not used"
    random = generator(seed, 0, "report")
    own = written(live, windows, min(length, OWN_LENGTH), random, go_on)
    texts = [
        Text("calibration", f"windows of the calibration text {which}", near[:, :length]),
        Text("own", "text that the dense model has written for the report", own.cpu()),
    ]
    content, origin = "\n".join(live.tokenizer.batch_decode(near)), texts[0].description
    if wish.text is not None:
        content, origin = beginning(wish.text, "report.text"), Path(wish.text).name
        first = some_windows(content, live.tokenizer, length, windows)
        texts.append(Text("given", f"the first windows of {origin}", first))
    beginnings = live.tokenizer.batch_decode(near[:PROMPTS, :PROMPT_TOKENS])
    return Exam(
        texts=texts,
        questions=fitting_questions(
            live, content, min(MOST_QUESTIONS, max(8, tokens // _QUESTION_TOKENS))
        ),
        questions_from=origin,
        prompts=wish.prompts or beginnings,
        prompt_tokens=prompt_tokens(live),
    )


def exam_on(
    live: LiveModel, text: Path, *, window: int, windows: int | None, harness: Harness | None = None
) -> Exam:
    """An exam on one text alone: its first windows, and questions from all of it; and tasks.

    Raises:
        InvalidCalibrationError: the text cannot be read, or is shorter than asked.
    """
    found = first_windows(text, live.tokenizer, window=window, windows=windows)
    return Exam(
        texts=[Text("text", f"the first windows of {text.name}", found)],
        questions=fitting_questions(live, "".join(read_text(str(text))), MOST_QUESTIONS),
        questions_from=text.name,
        prompts=(),
        prompt_tokens=prompt_tokens(live),
        harness=harness,
    )


def fitting_questions(live: LiveModel, content: str, count: int) -> list[Question]:
    """So many questions about a text, or as many as it gives, that can be put to the model."""
    found = questions_from(content, live.tokenizer, count)
    return [question for question in found if fits(live, question)]


def some_windows(content: str, tokenizer: Any, length: int, most: int) -> Tensor:
    """The first windows of a text, at most so many; a shorter one if it has not even one.

    Raises:
        InvalidCalibrationError: it has nothing to predict.
    """
    tokens = tokenize([content], tokenizer)
    if len(tokens) < 2:
        raise InvalidCalibrationError(
            "there is nothing in it to predict",
            field="report.text",
            value=f"{len(tokens)} tokens",
            allowed="a text of two tokens at least",
        )
    length = min(length, len(tokens))
    return tokens[: len(tokens) // length * length].reshape(-1, length)[:most]


def prompt_tokens(live: LiveModel) -> int:
    """Of the prompt whose reading is timed; half the context leaves room to write."""
    return max(1, _window(live, WINDOW) // 2)


def _window(live: LiveModel, length: int) -> int:
    context = context_of(live.model.config.to_dict()) or length
    return min(length, context, WINDOW)
