"""The child process as its supervisor sees it."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobs.attempts import Claim
from jobs.devices import DeviceKind
from jobs.request import JobRequest
from worker.child_process import ChildProcess


def test_a_child_that_dies_before_it_is_told_its_job_has_an_exit_code(
    request_for: Callable[..., JobRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = subprocess.Popen

    def dead(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)
        process.wait()
        return process

    monkeypatch.setattr(subprocess, "Popen", dead)
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    claim = Claim(uuid4(), 1, 1, request_for())
    child = ChildProcess(claim, tmp_path, "worker.child", DeviceKind.CPU)
    assert not child.is_running(0)
    assert child.exit_code == 1
    assert child.log_tail() == ""
