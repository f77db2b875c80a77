"""The whole service as a user runs it, killed in the middle of a job."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from client.responses import Job
from client.service import BonsaiClient
from jobs.request import JobRequest
from tests.worker.conftest import PROJECT, digests_but_of_reports
from tests.worker.test_kill import digests_of, undisturbed

SECONDS = 120


class Tree:
    """`bonsai up` on a data folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.client = BonsaiClient(f"http://127.0.0.1:{self.port}")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["up", "--data", str(self.data), "--port", str(self.port), "--device", "cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "client", *command],
            cwd=PROJECT,
            stdout=subprocess.DEVNULL,
            env={
                **os.environ,
                "BONSAI_LEASE_SECONDS": "4",
                "BONSAI_HEARTBEAT_SECONDS": "0.5",
                "BONSAI_SWEEP_SECONDS": "0.5",
            },
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    def wait(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while True:
            with suppress(Exception):  # the service is away while it starts
                if reached():
                    return
            assert time.monotonic() < end, "the service did not get there"
            time.sleep(0.1)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.delenv("BONSAI_DATABASE_URL", raising=False)
    monkeypatch.delenv("BONSAI_REDIS_URL", raising=False)
    return Tree(tmp_path / "data")


def test_a_job_survives_the_death_of_the_whole_tree_with_the_same_bytes(
    tree: Tree, request_for: Callable[..., JobRequest], tmp_path: Path
) -> None:
    request = request_for()
    jobs: list[Job] = []

    def submitted() -> bool:
        jobs.append(tree.client.submit(request.model_dump(mode="json")))
        return True

    def now() -> Job:
        return tree.client.job(jobs[0].id)

    tree.start()
    try:
        tree.wait(submitted)
        tree.wait(lambda: now().progress.masks_evaluated > 30)
        tree.kill()
        tree.start()
        tree.wait(lambda: now().is_final)
        job = now()
        assert job.state == "succeeded", job.error
        assert job.attempts == 2
        digests = digests_but_of_reports(tree.client.artifacts(job.id))
        assert digests == digests_of(undisturbed(request, tmp_path / "undisturbed").folder)
        assert tree.stop() == 0
    finally:
        tree.kill()
