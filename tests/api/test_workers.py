"""Workers over HTTP."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from jobs.workers import WorkerStore
from tests.api.problems import require_problem
from tests.devices import GIB, gpu


@pytest.fixture
def workers(engine: Engine) -> WorkerStore:
    found = WorkerStore(engine)
    found.arrive("gpu server:0", gpu(80, 72), 60)
    return found


def test_workers_are_listed(client: TestClient, workers: WorkerStore) -> None:
    del workers
    (worker,) = client.get("/v1/workers").json()["items"]
    assert (worker["name"], worker["presence"], worker["job_id"]) == ("gpu server:0", "idle", None)
    assert (worker["device"], worker["device_kind"]) == ("NVIDIA A100", "cuda")
    assert (worker["memory_bytes"], worker["free_bytes"]) == (80 * GIB, 72 * GIB)
    assert worker["compute_capability"] == "8.0"
    assert client.get("/readyz").json()["workers"] == 1


def test_a_worker_is_told_to_leave(client: TestClient, workers: WorkerStore) -> None:
    for _ in range(2):
        response = client.post("/v1/workers/gpu%20server:0/drain")
        assert (response.status_code, response.json()["presence"]) == (200, "draining")
    assert workers.beat("gpu server:0", gpu(80, 72), 60)


def test_a_worker_that_is_not_there_is_a_problem(client: TestClient) -> None:
    problem = require_problem(client.post("/v1/workers/nobody/drain"), 404, "worker_not_found")
    assert "'nobody'" in problem["detail"]


def test_a_name_that_no_worker_can_have_is_a_problem(client: TestClient) -> None:
    require_problem(client.post("/v1/workers/a%00b/drain"), 422, "invalid_request")
