"""What a dense model and those made from it are asked: the same texts, questions and prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bonsai_core.calibration import calibration_batch, digest_of, held_out_batch, read_text
from bonsai_core.cloze import questions_from
from bonsai_core.config import PruneRequest
from bonsai_core.evaluation import first_windows
from bonsai_core.events import GoOn, regardless
from bonsai_core.families import context_of
from bonsai_core.generation import written
from bonsai_core.models import LiveModel
from bonsai_core.seeds import generator
from bonsai_core.utilities.questions import Question
from bonsai_core.utilities.quiz import fits

WINDOW = 512
"""Tokens of a window, where sequences and context are as long."""

WINDOWS = 16
OWN_SEQUENCES = 16
OWN_LENGTH = 256
QUESTIONS = 64
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
    """

    texts: Sequence[Text]
    questions: Sequence[Question]
    questions_from: str
    prompts: Sequence[str]
    prompt_tokens: int

    def protocol(self) -> dict[str, Any]:
        """All that makes its numbers comparable, as plain values."""
        return {
            "texts": {text.name: text.protocol() for text in self.texts},
            "questions": {"count": len(self.questions), "from": self.questions_from},
            "prompt_tokens": self.prompt_tokens,
        }


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
    source = request.calibration.model_copy(update={"samples": request.given_samples} | place)
    held_out = held_out_batch(source, live.tokenizer, seed, WINDOWS)
    seen = not len(held_out)
    near = calibration_batch(source, live.tokenizer, seed)[-WINDOWS:] if seen else held_out
    which = "which the run has used, having no others" if seen else "which the run has not used"
    own = written(live, OWN_SEQUENCES, min(length, OWN_LENGTH), generator(seed, 0, "report"), go_on)
    texts = [
        Text("calibration", f"windows of the calibration text {which}", near[:, :length]),
        Text("own", "text that the dense model has written for the report", own.cpu()),
    ]
    content, origin = "\n".join(live.tokenizer.batch_decode(near)), texts[0].description
    if wish is not None and wish.text is not None:
        content, origin = "".join(read_text(wish.text, "report.text")), Path(wish.text).name
        windows = some_windows(Path(wish.text), live.tokenizer, length)
        texts.append(Text("given", f"the first windows of {origin}", windows))
    beginnings = live.tokenizer.batch_decode(near[:PROMPTS, :PROMPT_TOKENS])
    return Exam(
        texts=texts,
        questions=fitting_questions(live, content, QUESTIONS),
        questions_from=origin,
        prompts=(wish.prompts if wish else ()) or beginnings,
        prompt_tokens=prompt_tokens(live),
    )


def exam_on(live: LiveModel, text: Path, *, window: int, windows: int | None) -> Exam:
    """An exam on one text alone: its first windows, and questions from all of it.

    Raises:
        InvalidCalibrationError: the text cannot be read, or is shorter than asked.
    """
    found = first_windows(text, live.tokenizer, window=window, windows=windows)
    return Exam(
        texts=[Text("text", f"the first windows of {text.name}", found)],
        questions=fitting_questions(live, "".join(read_text(str(text))), QUESTIONS),
        questions_from=text.name,
        prompts=(),
        prompt_tokens=prompt_tokens(live),
    )


def fitting_questions(live: LiveModel, content: str, count: int) -> list[Question]:
    """So many questions about a text, or as many as it gives, that can be put to the model."""
    found = questions_from(content, live.tokenizer, count)
    return [question for question in found if fits(live, question)]


def some_windows(text: Path, tokenizer: Any, length: int) -> Tensor:
    """The first windows of a text, at most `WINDOWS`; shorter ones if it has not even one."""
    tokens = first_windows(text, tokenizer, window=2, windows=None).flatten()
    length = min(length, len(tokens))
    return tokens[: WINDOWS * length][: len(tokens) // length * length].reshape(-1, length)


def prompt_tokens(live: LiveModel) -> int:
    """Of the prompt whose reading is timed; half the context leaves room to write."""
    return max(1, _window(live, WINDOW) // 2)


def _window(live: LiveModel, length: int) -> int:
    context = context_of(live.model.config.to_dict()) or length
    return min(length, context, WINDOW)
