"""Silence: the library tells its progress by events and leaves the terminal to the application."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils.logging import EmptyTqdm, set_tqdm_hook


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers and the hub's client while open; then all is as before.

    An application that wants them sets the hub's own HF_HUB_DISABLE_PROGRESS_BARS=0.
    """
    if HF_HUB_DISABLE_PROGRESS_BARS is False:
        yield
        return
    hub_was_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    previous = set_tqdm_hook(_no_bar)
    try:
        yield
    finally:
        set_tqdm_hook(previous)
        if not hub_was_disabled:
            enable_progress_bars()


def _no_bar(_factory: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return EmptyTqdm(*arguments, **options)
