"""The kernel kills a child for its memory: in a control group, so that nothing else is harmed."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from jobs.states import JobState
from tests.faults.conftest import Night

BYTES = 500_000_000
# The worker is in the group too, and stands still while the kernel looks for memory to take back:
# a lease of seconds would expire first.
LEASE_SECONDS = "60"
# Version 1 of control groups has a tree of its own for memory, version 2 one for all.
TREES = {
    Path("/sys/fs/cgroup/memory"): "memory.limit_in_bytes",
    Path("/sys/fs/cgroup"): "memory.max",
}


@pytest.fixture
def narrow() -> Iterator[Path]:
    """A control group with little memory."""
    tree = next(tree for tree in TREES if tree.is_dir())
    group = tree / f"bonsai-{uuid4()}"
    try:
        group.mkdir()
        (group / TREES[tree]).write_text(str(BYTES))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"only root may limit memory here: {error}")
    yield group
    group.rmdir()


def enclose(worker: subprocess.Popen[bytes], group: Path) -> None:
    (group / "cgroup.procs").write_text(str(worker.pid))


def end(worker: subprocess.Popen[bytes]) -> None:
    worker.terminate()
    worker.wait()


def test_f24_the_kernel_kills_a_child_for_its_memory(night: Night, narrow: Path) -> None:
    worker = night.start_worker(lease_seconds=LEASE_SECONDS)
    enclose(worker, narrow)
    job_id = night.submit(eat="2.3")
    night.succeed(seconds=180)
    end(worker)
    outcomes = [found.attempt.outcome for found in night.service.store.attempts(job_id)]
    assert outcomes == ["host_out_of_memory", "succeeded"]


def test_f24_a_job_that_always_takes_all_memory_fails(night: Night, narrow: Path) -> None:
    worker = night.start_worker(lease_seconds=LEASE_SECONDS)
    enclose(worker, narrow)
    greedy, modest = night.submit(eat="1.0", times="9"), night.submit()
    job = night.service.wait_final(greedy)
    assert job.error is not None
    assert (job.state, job.error["code"], job.attempts) == (
        JobState.FAILED,
        "host_out_of_memory",
        3,
    )
    assert "ran out of memory" in job.error["detail"]
    assert night.service.wait_final(modest).state == JobState.SUCCEEDED
    end(worker)
