"""Killed at any moment, a job goes on from its ledger and ends with the very same bytes."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bonsai_core.config import PruneRequest
from bonsai_core.ledger import MemoryLedger
from bonsai_core.pruner import PruneResult, prune
from jobs.artifacts import sha256_of
from jobs.request import JobRequest
from tests.worker.conftest import Service, children_of

# The seed of the kill points: change it to try others.
SEED = 20402
# Both last for some hundred trials: time enough to be killed in.
RANDOM_MASKS = {"preset": "paper", "refit": True}
MEASURED_DAMAGE = {"preset": "best", "improvements": 40}


def undisturbed(request: JobRequest, folder: Path) -> PruneResult:
    """What comes of a run that nobody disturbs."""
    core = PruneRequest.model_validate(request.model_dump(include=set(PruneRequest.model_fields)))
    return prune(core, folder, ledger=MemoryLedger(), device="cpu")


def digests_of(folder: Path) -> dict[str, str]:
    """File names and digests."""
    return {path.name: sha256_of(path) for path in folder.iterdir()}


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


@pytest.mark.parametrize(
    "pruning",
    [RANDOM_MASKS, {**RANDOM_MASKS, "layout": "uniform"}, MEASURED_DAMAGE],
    ids=["random_masks", "uniform", "measured_damage"],
)
def test_a_job_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_run(
    service: Service,
    request_for: Callable[..., JobRequest],
    tmp_path: Path,
    pruning: dict[str, Any],
) -> None:
    request = request_for(**pruning)
    expected = undisturbed(request, tmp_path / "undisturbed")
    chance = random.Random(f"{SEED}-{pruning}")
    kills = [kill_child, kill_worker, kill_tree]
    chance.shuffle(kills)
    points = sorted(chance.sample(range(1, expected.masks_evaluated * 3 // 4), len(kills)))
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
    # The ledger's key refuses a trial that is measured twice, so the count is the proof.
    assert service.evaluated(job_id) == expected.masks_evaluated
    assert service.digests(job_id) == digests_of(expected.folder)
    scratch = service.settings.scratch_dir / str(job_id)
    assert [path for path in scratch.rglob("*") if path.name.endswith(".safetensors")] == []


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
