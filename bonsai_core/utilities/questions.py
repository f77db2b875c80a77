"""Multiple-choice questions from a JSON lines file. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bonsai_core.errors import InvalidUtilityError

_SHAPE = '{"context": "The sky is", "choices": [" blue", " wet"], "answer": 0}'


class Question(BaseModel):
    """A context, what may follow it, and the index of what should. A choice is appended as it is:
    it carries its own leading space."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    context: str = Field(min_length=1)
    choices: list[str] = Field(min_length=2, max_length=256)
    answer: int = Field(ge=0)

    @model_validator(mode="after")
    def _one_of_several_is_right(self) -> "Question":
        if self.answer >= len(self.choices):
            raise ValueError(f"answer {self.answer} is none of {len(self.choices)} choices")
        if len(set(self.choices)) < len(self.choices):
            raise ValueError("two choices are the same")
        if "" in self.choices:
            raise ValueError("a choice is empty")
        return self


@dataclass(frozen=True, slots=True)
class NumberedQuestion:
    """A question with the line it stands in, from 1."""

    line: int
    question: Question


def read_questions(path: Path, most: int | None = None) -> list[NumberedQuestion]:
    """The questions of a file, at most `most` from its beginning; blank lines are skipped.

    Raises:
        InvalidUtilityError: there is no such file, it cannot be read, holds no question or fewer
            than `most`, or a line is not one; the line is named.
    """
    found: list[NumberedQuestion] = []
    for line, text in _lines(path):
        if len(found) == most:
            break
        if text.strip():
            found.append(NumberedQuestion(line, _question(path, line, text)))
    if len(found) < (most or 1):
        raise InvalidUtilityError(
            f"the file has {len(found)} questions",
            field="pruning.utility",
            value=str(path),
            allowed=f"at least {most or 1}, one per line, such as {_SHAPE}",
        )
    return found


def bad_line(path: Path, line: int, problem: str, cure: str = "") -> InvalidUtilityError:
    """The error for one line of a file of questions."""
    return InvalidUtilityError(
        f"line {line}: {problem}",
        field="pruning.utility",
        value=str(path),
        allowed=f"one object per line, such as {_SHAPE}",
        cure=cure,
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from enumerate(file, start=1)
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
        raise InvalidUtilityError(
            f"the questions cannot be read: {problem}",
            field="pruning.utility",
            value=str(path),
            allowed="a .jsonl file of questions",
        ) from error


def _question(path: Path, line: int, text: str) -> Question:
    try:
        return Question.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(step) for step in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        raise bad_line(path, line, f"{place}: {message}" if place else message) from error
