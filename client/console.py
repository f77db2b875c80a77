"""Where commands write: results on standard output, everything else on standard error."""

import json
from typing import Any

from rich.console import Console

# Wide enough that a table in a pipe or a file is not cut.
_PIPE_COLUMNS = 160


def results() -> Console:
    """For what a command was asked for."""
    return _console(stderr=False)


def messages() -> Console:
    """For progress, hints and errors."""
    return _console(stderr=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output, as it is, in no colour."""
    results().print(json.dumps(value, indent=2, default=str), soft_wrap=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    return console
