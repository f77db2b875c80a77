"""The library prints nothing, and leaves the settings of others as they were."""

import pytest
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from transformers.utils import logging

from bonsai_core.quiet import quiet


def show_a_bar() -> None:
    for _ in logging.tqdm(range(3), desc="Loading"):
        pass


def test_bars_are_silent_inside_and_as_before_afterwards(
    capfd: pytest.CaptureFixture[str],
) -> None:
    enable_progress_bars()
    with quiet():
        assert are_progress_bars_disabled()
        show_a_bar()
        with quiet():
            show_a_bar()
        show_a_bar()
    assert capfd.readouterr().err == ""
    assert not are_progress_bars_disabled()
    show_a_bar()
    assert "Loading" in capfd.readouterr().err


def test_bars_that_were_disabled_stay_so() -> None:
    disable_progress_bars()
    with quiet():
        pass
    assert are_progress_bars_disabled()
    enable_progress_bars()


def test_an_error_inside_does_not_keep_bars_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    show_a_bar()
    assert "Loading" in capfd.readouterr().err
