"""Many jobs in one request, one report, one cancel."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker

MODEL = {"source": "owner/name"}


def submit(client: TestClient, **batch: Any) -> dict[str, Any]:
    response = client.post("/v1/batches", json=batch)
    assert response.status_code == 201, response.text
    found: dict[str, Any] = response.json()
    assert response.headers["location"] == found["links"]["self"]
    return found


def without(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**body, **changes}


def test_a_list_of_jobs_is_queued_in_its_order(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    names = [f"job-{number}" for number in range(5)]
    batch = submit(client, name="night", jobs=[without(body, name=name) for name in names])
    assert (batch["name"], batch["counts"], batch["finished"]) == ("night", {"queued": 5}, False)
    assert [job["name"] for job in batch["jobs"]] == names
    for job in batch["jobs"]:
        shown = client.get(job["links"]["self"]).json()
        assert shown["batch_id"] == batch["id"]
    assert [str(worker.claim().job_id) for _ in names] == [job["id"] for job in batch["jobs"]]


def test_a_template_is_varied_over_models_and_sparsities(
    client: TestClient, body: dict[str, Any]
) -> None:
    models = [body["model"], {"source": "owner/other"}]
    batch = submit(client, template=body, models=models, sparsities=[0.1, 0.3])
    found = [(job["model"], job["target"]["sparsity"]) for job in batch["jobs"]]
    assert found == [(m["source"], sparsity) for m in models for sparsity in (0.1, 0.3)]
    alone = submit(client, template=body)
    assert [job["target"]["sparsity"] for job in alone["jobs"]] == [body["target"]["sparsity"]]


def test_the_report_tells_how_each_job_fared(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    batch = submit(client, jobs=[body] * 3)
    worker.fail(worker.claim())
    worker.succeed(worker.claim(), {})
    report = client.get(batch["links"]["self"]).json()
    assert report["counts"] == {"failed": 1, "succeeded": 1, "queued": 1}
    failed, succeeded, queued = report["jobs"]
    assert failed["error"]["code"] == "broken_numerics"
    assert succeeded["result"]["sparsity"] == 0.3
    assert not report["finished"]
    again = client.post(failed["links"]["retry"]).json()
    assert again["batch_id"] == batch["id"]
    client.post(queued["links"]["cancel"])
    client.post(again["links"]["cancel"])
    assert client.get(batch["links"]["self"]).json()["finished"]


def test_one_cancel_ends_all_that_has_not_ended(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    batch = submit(client, jobs=[body] * 4)
    worker.fail(worker.claim())
    running = worker.claim()
    client.post(batch["jobs"][2]["links"]["pause"])
    for _ in range(2):
        report = client.post(batch["links"]["cancel"]).json()
        assert [job["state"] for job in report["jobs"]] == [
            *("failed", "cancelling", "cancelled", "cancelled")
        ]
    worker.release(running, "cancelled")
    assert client.get(batch["links"]["self"]).json()["finished"]


def test_a_job_that_is_refused_is_named_and_nothing_is_queued(
    client: TestClient, body: dict[str, Any]
) -> None:
    unreachable = without(body, target={"sparsity": 0.999})
    response = client.post("/v1/batches", json={"jobs": [body, unreachable]})
    error = only_error(require_problem(response, 422, "unreachable_target"))
    assert error["pointer"] == "/jobs/1/target/sparsity"
    response = client.post("/v1/batches", json={"template": body, "sparsities": [0.1, 0.999]})
    error = only_error(require_problem(response, 422, "unreachable_target"))
    assert (error["pointer"], error["value"]) == ("/template/target/sparsity", 0.999)
    assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    ("batch", "pointer", "words"),
    [
        ({}, "", "give either jobs or a template"),
        ({"jobs": []}, "", "give either jobs or a template"),
        ({"jobs": ["BODY"], "template": "BODY"}, "", "give either jobs or a template"),
        ({"jobs": ["BODY"], "sparsities": [0.1]}, "", "jobs say their own"),
        ({"template": "BODY", "sparsities": [0.1] * 40, "models": [MODEL] * 40}, "", "1600"),
        ({"template": "BODY", "sparsities": [1.5]}, "/sparsities/0", "below 1"),
        ({"jobs": [{"calibration": {"source": "a/b"}}]}, "/jobs/0/model", "Field required"),
        ({"jobs": ["BODY"], "until": 1}, "/until", "name, jobs, template, models, sparsities"),
        ({"template": "BODY", "models": [{"source": "a\0b"}]}, "/models/0/source", "NUL"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_by_name(
    client: TestClient, body: dict[str, Any], batch: dict[str, Any], pointer: str, words: str
) -> None:
    whole = {
        key: body
        if value == "BODY"
        else [body if item == "BODY" else item for item in value]
        if isinstance(value, list)
        else value
        for key, value in batch.items()
    }
    problem = require_problem(client.post("/v1/batches", json=whole), 422, "invalid_request")
    errors = {error["pointer"]: error for error in problem["errors"]}
    assert pointer in errors
    assert words in f"{errors[pointer]['message']} {errors[pointer]['allowed']}"


def test_a_batch_counts_against_the_quota_as_a_whole(
    settings: Settings, engine: Engine, body: dict[str, Any]
) -> None:
    small = settings.model_copy(update={"queued_per_owner": 2})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        response = client.post("/v1/batches", json={"jobs": [body] * 3})
        require_problem(response, 409, "quota_exceeded")
        assert client.get("/v1/jobs").json()["items"] == []
        submit(client, jobs=[body] * 2)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel")])
def test_an_unknown_batch_is_not_found(client: TestClient, method: str, path: str) -> None:
    batch_id = str(uuid4())
    response = client.request(method, f"/v1/batches/{batch_id}{path}")
    assert batch_id in require_problem(response, 404, "batch_not_found")["detail"]
