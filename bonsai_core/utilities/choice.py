"""The utility `choice`: multiple-choice questions from a file."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bonsai_core.events import GoOn, regardless
from bonsai_core.utilities.questions import bad_line, read_questions
from bonsai_core.utilities.quiz import Quiz, UnfitQuestionError
from bonsai_core.utilities.settings import ChoiceSettings, Score
from bonsai_core.utilities.utility import LiveModel, require_finite


class ChoiceUtility:
    """The mean margin in nats by which the answer leads, or the share of questions where it does.

    The calibration sequences are not used; see `Quiz` for how a choice is scored.
    """

    name = "choice"

    def __init__(self, live: LiveModel, _sequences: Tensor, settings: Mapping[str, Any]) -> None:
        self._settings = ChoiceSettings.model_validate(dict(settings))
        path = Path(self._settings.path).expanduser()
        asked = read_questions(path, self._settings.questions)
        self.digest = hashlib.sha256(path.read_bytes()).hexdigest()
        questions = [numbered.question for numbered in asked]
        try:
            self._quiz = Quiz(live, questions, self._settings.likelihood)
        except UnfitQuestionError as error:
            raise bad_line(path, asked[error.number].line, error.problem, error.cure) from error

    def measure(self, go_on: GoOn = regardless) -> float:
        """See `Utility.measure`."""
        margins = self._quiz.margins(go_on)
        require_finite(sum(margins), self.name)
        if self._settings.score is Score.ACCURACY:
            return sum(margin > 0 for margin in margins) / len(margins)
        return sum(margins) / len(margins)
