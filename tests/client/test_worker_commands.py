"""`bonsai worker` against the real service."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine
from typer.testing import Result

from client import BonsaiClient
from jobs.workers import WorkerStore
from tests.devices import gpu

Bonsai = Callable[..., Result]


@pytest.fixture
def workers(engine: Engine) -> WorkerStore:
    found = WorkerStore(engine)
    found.arrive("night-1", gpu(80, 72), 60)
    return found


def test_workers_are_listed(bonsai: Bonsai, workers: WorkerStore) -> None:
    del workers
    shown = bonsai("worker", "list")
    assert "night-1" in shown.stdout
    assert "idle" in shown.stdout
    assert "72 of 80 GiB" in shown.stdout
    (worker,) = json.loads(bonsai("worker", "list", "--json").stdout)
    assert (worker["name"], worker["device"]) == ("night-1", "NVIDIA A100")


def test_a_worker_is_told_to_leave(
    bonsai: Bonsai, client: BonsaiClient, workers: WorkerStore
) -> None:
    assert bonsai("worker", "drain", "night-1").exit_code == 0
    assert [worker.presence for worker in client.workers()] == ["draining"]
    assert workers.beat("night-1", gpu(80, 72), 60)


def test_a_worker_that_is_not_there_is_named(bonsai: Bonsai) -> None:
    result = bonsai("worker", "drain", "nobody")
    assert result.exit_code == 1
    assert "'nobody'" in result.stderr
