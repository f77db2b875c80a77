"""Where a job stands in the queue, as clients see it, and requests that the queue refuses."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from jobs.workers import WorkerStore
from tests.api.problems import only_error, require_problem
from tests.devices import GIB, HOST
from tests.fake_worker import FakeWorker


def submit(client: TestClient, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", json={**body, **fields})
    assert response.status_code == 201, response.text
    job: dict[str, Any] = response.json()
    return job


def standing(client: TestClient, job: dict[str, Any]) -> tuple[int | None, str | None]:
    shown = client.get(job["links"]["self"]).json()
    return shown["position"], shown["waiting_reason"]


def test_a_job_tells_its_position_or_why_it_waits(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    first = submit(client, body)
    urgent = submit(client, body, owner="team", schedule={"priority": "high"})
    later = submit(client, body, schedule={"not_before": "2999-01-01T00:00:00Z"})
    after = submit(client, body, schedule={"after": first["id"]})
    assert (urgent["owner"], urgent["position"], urgent["waiting_reason"]) == ("team", 1, None)
    expected = {
        urgent["id"]: (1, None),
        first["id"]: (2, None),
        later["id"]: (None, "not_before"),
        after["id"]: (None, "dependency"),
    }
    listed = client.get("/v1/jobs").json()["items"]
    assert {job["id"]: (job["position"], job["waiting_reason"]) for job in listed} == expected
    for job in (first, urgent, later, after):
        assert standing(client, job) == expected[job["id"]]
    worker.claim()
    assert standing(client, urgent) == (None, None)
    assert standing(client, first) == (1, None)


def test_a_job_tells_what_it_needs_of_a_device_and_that_none_has_it(
    client: TestClient, body: dict[str, Any], engine: Engine
) -> None:
    WorkerStore(engine).arrive("one", HOST, 60)
    estimated = submit(client, body)["request"]["device"]
    assert estimated["kind"] is None
    assert 0 < estimated["streamed_memory_bytes"] <= estimated["memory_bytes"] < GIB
    large = submit(client, body, device={"memory_bytes": 80 * GIB})
    assert large["request"]["device"]["memory_bytes"] == 80 * GIB
    assert standing(client, large) == (None, "no_fitting_device")
    family = {"template": body, "sparsities": [0.1, 0.2]}
    batch = client.post("/v1/batches", json=family).json()
    for job in batch["jobs"]:
        shown = client.get(f"/v1/jobs/{job['id']}").json()
        assert shown["request"]["device"] == estimated


@pytest.mark.parametrize(
    ("fields", "pointer", "words"),
    [
        (
            {"schedule": {"priority": "urgent"}},
            "/schedule/priority",
            "lowest, low, normal, high, highest",
        ),
        (
            {"schedule": {"window": {"hours": "22-7"}}},
            "/schedule/window/hours",
            "must be like 22:00-07:00",
        ),
        (
            {"schedule": {"window": {"hours": "22:00-07:00", "zone": "Mars"}}},
            "/schedule/window/zone",
            "must be an IANA time zone",
        ),
        ({"schedule": {"not_before": "tomorrow"}}, "/schedule/not_before", "RFC 3339"),
        (
            {"schedule": {"until": "x"}},
            "/schedule/until",
            "priority, not_before, deadline, after, window",
        ),
        ({"device": {"kind": "tpu"}}, "/device/kind", "cpu"),
        ({"device": {"memory_bytes": 0}}, "/device/memory_bytes", "greater than or equal to 1"),
        ({"device": {"memory": 1}}, "/device/memory", "kind, memory_bytes, streamed_memory_bytes"),
        (
            {"device": {"memory_bytes": 1, "streamed_memory_bytes": 2}},
            "/device",
            "streamed_memory_bytes must not be more than memory_bytes",
        ),
    ],
)
def test_a_schedule_or_needs_that_cannot_be_are_refused_by_name(
    client: TestClient, body: dict[str, Any], fields: dict[str, Any], pointer: str, words: str
) -> None:
    response = client.post("/v1/jobs", json={**body, **fields})
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert error["pointer"] == pointer
    assert words in f"{error['message']} {error['allowed']}"


def test_a_job_to_wait_for_must_exist(client: TestClient, body: dict[str, Any]) -> None:
    after = str(uuid4())
    response = client.post("/v1/jobs", json={**body, "schedule": {"after": after}})
    error = only_error(require_problem(response, 422, "unknown_dependency"))
    assert (error["pointer"], error["value"]) == ("/schedule/after", after)
    assert client.get("/v1/jobs").json()["items"] == []


def test_a_full_queue_is_a_conflict(
    settings: Settings, engine: Engine, body: dict[str, Any]
) -> None:
    small = settings.model_copy(update={"queued_per_owner": 1})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        submit(client, body, owner="team")
        response = client.post("/v1/jobs", json={**body, "owner": "team"})
        error = only_error(require_problem(response, 409, "quota_exceeded"))
        assert (error["pointer"], error["value"]) == ("/owner", "team")
        submit(client, body, owner="other")
