"""What of a utility can be checked where a request from another machine arrives. No torch here."""

from collections.abc import Sequence
from pathlib import Path

from bonsai_core.errors import InvalidUtilityError
from bonsai_core.utilities.names import require_known
from bonsai_core.utilities.settings import ChoiceSettings, WeightedUtility


def require_remote(parts: Sequence[WeightedUtility]) -> None:
    """Refuse what is unknown, what would run code that the request names, and missing files.

    Raises:
        InvalidUtilityError: see above; the problem, the names allowed and the cure are named.
    """
    for part in parts:
        require_known(part.name, remote=True)
        if part.name == "choice":
            _require_file(ChoiceSettings.model_validate(part.settings).path)


def _require_file(source: str) -> None:
    path = Path(source)
    if not path.is_absolute() or not path.is_file():
        raise InvalidUtilityError(
            "there is no such file where the service runs",
            field="pruning.utility",
            value=source,
            allowed="the absolute path of a .jsonl file of questions",
            cure="give a file that API and workers share",
        )
