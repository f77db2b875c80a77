"""No room for a file is told from other errors, in whatever words it comes."""

import errno
import resource
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from worker.room import no_room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_system_says_so(number: int) -> None:
    assert no_room(OSError(number, "no"))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = OSError(number, "no")
    assert no_room(wrapped)


def test_it_is_heard_through_safetensors(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(Exception, match="os error") as caught:
            save_file({"x": torch.zeros(100_000)}, tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert no_room(caught.value)


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no"), FileNotFoundError("no"), ValueError("28"), None]
)
def test_other_errors_are_others(error: BaseException | None) -> None:
    assert not no_room(error)
