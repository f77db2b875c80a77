"""validate_only: what a submit would check and come to, and nothing of it stays."""

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from api.app import create_app
from jobs.doorbell import QUEUE
from jobs.records import Batch, Event, IdempotencyKey, Job
from jobs.settings import Settings
from jobs.workers import WorkerStore
from tests.api.problems import only_error, require_problem
from tests.devices import GIB, HOST, gpu
from tests.fake_worker import FakeWorker

DRY = {"validate_only": "true"}
PARAMETERS = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64
"""Of the small model, without embeddings."""


def validate(client: TestClient, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", params=DRY, json={**body, **fields})
    assert response.status_code == 200, response.text
    estimate: dict[str, Any] = response.json()
    return estimate


def run(worker: FakeWorker, *, tokens: int, parameters: int = PARAMETERS, masks: int = 10) -> Any:
    """Claim the next job, and say what the core says when it has loaded the model."""
    claim = worker.claim()
    told = {"trials": masks, "trial_tokens": tokens // 2, "forward_tokens": tokens}
    worker.report(claim, "model_loaded", {"non_embedding_parameters": parameters, **told})
    return claim


def lasted(engine: Engine, claim: Any, seconds: float) -> None:
    """Have an attempt that has ended begun so long before."""
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE attempts SET started_at = ended_at - make_interval(secs => %s) "
            "WHERE fencing_token = %s",
            (seconds, claim.fencing_token),
        )


def test_an_estimate_tells_what_the_job_would_take(
    client: TestClient, body: dict[str, Any], engine: Engine
) -> None:
    WorkerStore(engine).arrive("one", HOST, 60)
    found = validate(client, body, name="small")
    submitted = client.post("/v1/jobs", json={**body, "name": "small"}).json()
    assert found["request"] == submitted["request"]
    assert found["parameters"] == PARAMETERS
    # The dense model and three or four losses of a gate in each layer; improvements; the plans;
    # the dampings.
    assert (found["rounds"], found["masks"]) == (5, 1 + 2 * 3 + 2 * (1 + 2 * 2) + 3 + 4)
    assert 0 < found["masks_at_least"] <= found["masks"]
    assert found["forward_tokens"] > 4 * 64
    assert found["memory_bytes"] == found["request"]["device"]["memory_bytes"]
    assert found["streamed_memory_bytes"] <= found["memory_bytes"]
    for size in ("result_bytes", "checkpoint_bytes", "scratch_bytes"):
        assert found[size] > 0
    assert (found["position"], found["waiting_reason"], found["unknown"]) == (1, None, None)
    assert found["workers"] == [
        {"name": "one", "device": "cpu", "device_kind": "cpu", "fits": True, "whole": True}
    ]
    assert found["durations"] == [
        {"device": "cpu", "seconds": None, "basis": "not_known", "jobs": 0, "parameters": None}
    ]


def test_nothing_is_stored_and_no_bell_rings(
    client: TestClient, body: dict[str, Any], engine: Engine, redis_url: str
) -> None:
    connection = redis.Redis.from_url(redis_url)
    connection.delete(QUEUE)
    for _ in range(2):
        response = client.post(
            "/v1/jobs", params=DRY, json=body, headers={"Idempotency-Key": "once"}
        )
        assert response.status_code == 200
    with Session(engine) as session:
        batches = session.scalar(select(func.count()).select_from(Batch))
        client.post("/v1/batches", params=DRY, json={"jobs": [body, body]})
        kept = [
            session.scalar(select(func.count()).select_from(table))
            for table in (Job, Event, IdempotencyKey, Batch)
        ]
    assert kept == [0, 0, 0, batches]
    assert connection.llen(QUEUE) == 0
    connection.close()


@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("target.sparsity", 0.99, "unreachable_target"),
        ("target.sparsity", 2, "invalid_request"),
        ("model.source", "/nowhere/model", "invalid_model"),
        ("calibration.source", "/nowhere/text.txt", "invalid_calibration"),
        ("pruning.recipe", "elegance", "invalid_recipe"),
        ("pruning.utility", "elegance", "invalid_utility"),
        ("schedule.after", "00000000-0000-0000-0000-000000000000", "unknown_dependency"),
        ("name", "nul\0", "invalid_request"),
    ],
)
def test_what_a_submit_refuses_is_refused_alike(
    client: TestClient, body: dict[str, Any], path: str, value: Any, code: str
) -> None:
    bad = json.loads(json.dumps(body))
    section, _, field = path.partition(".")
    bad[section] = {**bad.get(section, {}), field: value} if field else value
    real = require_problem(client.post("/v1/jobs", json=bad), 422, code)
    dry = require_problem(client.post("/v1/jobs", params=DRY, json=bad), 422, code)
    assert {**dry, "request_id": ""} == {**real, "request_id": ""}


def test_a_quota_counts_what_is_queued_and_not_what_was_tried(
    settings: Settings, engine: Engine, body: dict[str, Any]
) -> None:
    small = settings.model_copy(update={"queued_per_owner": 1})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        for _ in range(3):
            validate(client, body, owner="team")
        client.post("/v1/jobs", json={**body, "owner": "team"})
        response = client.post("/v1/jobs", params=DRY, json={**body, "owner": "team"})
        assert only_error(require_problem(response, 409, "quota_exceeded"))["value"] == "team"


def test_it_tells_where_the_job_would_stand(client: TestClient, body: dict[str, Any]) -> None:
    for _ in range(2):
        client.post("/v1/jobs", json=body)
    assert validate(client, body)["position"] == 3
    assert validate(client, body, schedule={"priority": "high"})["position"] == 1
    later = validate(client, body, schedule={"not_before": "2999-01-01T00:00:00Z"})
    assert (later["position"], later["waiting_reason"]) == (None, "not_before")


def test_it_tells_which_workers_could_take_it(
    client: TestClient, body: dict[str, Any], engine: Engine
) -> None:
    workers = WorkerStore(engine)
    workers.arrive("host", HOST, 60)
    workers.arrive("large", gpu(80), 60)
    workers.arrive("small", gpu(8), 60)
    workers.arrive("gone", gpu(80), -1)
    needs = {"memory_bytes": 40 * GIB, "streamed_memory_bytes": 4 * GIB}
    found = validate(client, body, device=needs)
    fits = {worker["name"]: (worker["fits"], worker["whole"]) for worker in found["workers"]}
    assert fits == {"host": (False, False), "large": (True, True), "small": (False, False)}
    beyond = validate(client, body, device={**needs, "memory_bytes": 100 * GIB})
    fits = {worker["name"]: (worker["fits"], worker["whole"]) for worker in beyond["workers"]}
    assert fits == {"host": (False, False), "large": (True, False), "small": (True, False)}
    nowhere = validate(client, body, device={"memory_bytes": 200 * GIB})
    assert not any(worker["fits"] for worker in nowhere["workers"])
    assert nowhere["waiting_reason"] == "no_fitting_device"


def test_a_duration_is_measured_on_finished_jobs_of_the_model(
    client: TestClient, body: dict[str, Any], worker: FakeWorker, engine: Engine
) -> None:
    WorkerStore(engine).arrive("fake", HOST, 60)
    client.post("/v1/jobs", json=body)
    claim = run(worker, tokens=1_000_000)
    worker.succeed(claim, {})
    lasted(engine, claim, 500)
    found = validate(client, body)
    (duration,) = found["durations"]
    assert (duration["basis"], duration["jobs"]) == ("measured_on_this_model", 1)
    assert duration["parameters"] == PARAMETERS
    assert duration["seconds"] == pytest.approx(found["forward_tokens"] * 500 / 1_000_000)


def test_a_duration_is_scaled_from_the_models_of_the_nearest_size(
    client: TestClient, body: dict[str, Any], worker: FakeWorker, engine: Engine, tmp_path: Path
) -> None:
    WorkerStore(engine).arrive("fake", HOST, 60)
    for number, (size, seconds) in enumerate([(2, 500), (1000, 1)]):
        other = tmp_path / f"other-{number}"
        other.mkdir()
        (other / "config.json").write_text(
            (Path(body["model"]["source"]) / "config.json").read_text()
        )
        client.post("/v1/jobs", json={**body, "model": {"source": str(other)}})
        claim = run(worker, tokens=1_000_000, parameters=size * PARAMETERS)
        worker.succeed(claim, {})
        lasted(engine, claim, seconds)
    found = validate(client, body)
    (duration,) = found["durations"]
    assert (duration["basis"], duration["jobs"]) == ("scaled_from_other_models", 1)
    assert duration["parameters"] == 2 * PARAMETERS
    # Half the parameters, half the time for each token.
    assert duration["seconds"] == pytest.approx(found["forward_tokens"] * 250 / 1_000_000)


def test_a_duration_is_measured_on_the_trials_of_running_jobs(
    client: TestClient, body: dict[str, Any], worker: FakeWorker, engine: Engine
) -> None:
    WorkerStore(engine).arrive("fake", HOST, 60)
    client.post("/v1/jobs", json=body)
    claim = run(worker, tokens=1_000_000, masks=10)
    assert validate(client, body)["durations"][0]["basis"] == "not_known"
    worker.evaluate(claim, number=1, trials=4)  # each 0.1 s for 50,000 tokens
    found = validate(client, body)
    (duration,) = found["durations"]
    assert (duration["basis"], duration["jobs"]) == ("measured_on_this_model", 1)
    assert duration["seconds"] == pytest.approx(found["forward_tokens"] * 0.1 / 50_000)


def test_what_cannot_be_told_is_said(client: TestClient, body: dict[str, Any]) -> None:
    found = validate(client, body, model={"source": "owner/name"})
    assert "hub" in found["unknown"]
    for field in ("rounds", "masks", "forward_tokens", "parameters", "memory_bytes"):
        assert found[field] is None
    assert found["position"] == 1


def test_a_batch_is_tried_as_a_whole(client: TestClient, body: dict[str, Any]) -> None:
    family = {"template": body, "sparsities": [0.1, 0.2]}
    response = client.post("/v1/batches", params=DRY, json=family)
    assert response.status_code == 200, response.text
    found = response.json()
    assert [job["position"] for job in found["jobs"]] == [1, 2]
    assert found["masks"] == sum(job["masks"] for job in found["jobs"])
    assert found["forward_tokens"] == sum(job["forward_tokens"] for job in found["jobs"])
    first, second = (job["result_bytes"] for job in found["jobs"])
    assert first > second
    bad = {**family, "sparsities": [0.1, 0.99]}
    problem = require_problem(
        client.post("/v1/batches", params=DRY, json=bad), 422, "unreachable_target"
    )
    assert only_error(problem)["pointer"] == "/template/target/sparsity"
