"""Killed at any moment, a job goes on from its ledger and ends with the very same bytes."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bonsai_core.config import PruneRequest
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import prune
from jobs.artifacts import sha256_of
from jobs.request import JobRequest
from tests.worker.conftest import Service, children_of

# The seed of the kill points: change it to try others.
SEED = 20402
MASKS = 300


def expected_digests(request: JobRequest, folder: Path) -> dict[str, str]:
    """What a run that nobody disturbs gives: file names and digests."""
    core = PruneRequest.model_validate(request.model_dump(include=set(PruneRequest.model_fields)))
    result = prune(core, folder, ledger=MemoryLedger(), device="cpu")
    return {path.name: sha256_of(path) for path in result.folder.iterdir()}


def kill_child(service: Service) -> None:
    for process_id in children_of(service.workers[-1].pid):
        os.kill(process_id, signal.SIGKILL)


def kill_worker(service: Service) -> None:
    child = children_of(service.workers[-1].pid)
    service.workers[-1].kill()
    service.workers[-1].wait()
    wait_gone(child)
    service.start_worker()


def kill_tree(service: Service) -> None:
    worker = service.workers[-1]
    processes = [*children_of(worker.pid), worker.pid]
    for process_id in processes:
        os.kill(process_id, signal.SIGKILL)
    worker.wait()
    service.start_worker()


def wait_gone(process_ids: list[int], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{process_id}").exists() for process_id in process_ids):
        assert time.monotonic() < end, "the child outlived its worker"
        time.sleep(0.02)


@pytest.mark.parametrize("layout", ["per_layer", "uniform"])
def test_a_job_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_run(
    service: Service,
    request_for: Callable[..., JobRequest],
    tmp_path: Path,
    layout: str,
) -> None:
    request = request_for(layout=layout)
    chance = random.Random(f"{SEED}-{layout}")
    kills = [kill_child, kill_worker, kill_tree]
    chance.shuffle(kills)
    points = sorted(chance.sample(range(1, MASKS), len(kills)))
    service.start_worker()
    job_id = service.submit(request)

    for point, kill in zip(points, kills, strict=True):
        service.wait_evaluated(job_id, point)
        attempt = service.store.show(job_id).attempts
        time.sleep(chance.random() * 0.3)
        kill(service)
        # The next kill must hit the attempt that goes on, not the one just killed.
        service.wait_attempt(job_id, attempt + 1)

    job = service.wait_final(job_id)
    assert job.state == "succeeded", job.error
    assert job.attempts == 1 + len(kills)
    # The ledger's key refuses a mask that is evaluated twice, so the count is the proof.
    assert service.evaluated(job_id) == MASKS
    assert service.digests(job_id) == expected_digests(request, tmp_path / "undisturbed")


def test_a_child_dies_with_its_worker(
    service: Service, request_for: Callable[..., JobRequest]
) -> None:
    worker = service.start_worker()
    job_id = service.submit(request_for())
    service.wait_evaluated(job_id, 1)
    children = children_of(worker.pid)
    assert len(children) == 1
    worker.kill()
    worker.wait()
    wait_gone(children)
