"""Showing and listing jobs, what may be asked of them, their events and attempts."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from jobs.progress import Progress, Stage
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker

ENDPOINTS = [
    ("GET", "/v1/jobs/{}"),
    *(("POST", f"/v1/jobs/{{}}/{wish}") for wish in ("pause", "resume", "cancel", "retry")),
    ("GET", "/v1/jobs/{}/attempts"),
    ("GET", "/v1/jobs/{}/attempts/1/logs"),
    ("GET", "/v1/jobs/{}/events"),
    ("GET", "/v1/jobs/{}/events/stream"),
    ("GET", "/v1/jobs/{}/artifacts"),
    ("GET", "/v1/jobs/{}/artifacts/report.json"),
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_an_unknown_id_is_not_found(client: TestClient, method: str, path: str) -> None:
    job_id = str(uuid4())
    problem = require_problem(client.request(method, path.format(job_id)), 404, "job_not_found")
    assert job_id in problem["detail"]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_what_is_no_id_is_said_to_be_none(client: TestClient, method: str, path: str) -> None:
    problem = require_problem(client.request(method, path.format("x")), 422, "invalid_request")
    error = only_error(problem)
    assert (error["pointer"], error["value"]) == ("/job_id", "x")
    assert "path parameter job_id" in error["message"]


def test_a_running_job_shows_its_progress(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    progress = Progress(stage=Stage.PRUNING, round=2, rounds=6, masks_evaluated=3, sparsity=0.05)
    worker.progress(worker.claim(), progress)
    shown = client.get(job["links"]["self"]).json()
    assert (shown["state"], shown["attempts"]) == ("running", 1)
    assert shown["started_at"].endswith("Z")
    assert shown["progress"] == progress.model_dump(mode="json")


def test_a_failed_job_shows_its_error(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    worker.fail(worker.claim())
    shown = client.get(job["links"]["self"]).json()
    assert (shown["state"], shown["error"]["code"]) == ("failed", "broken_numerics")
    assert shown["finished_at"]


def test_pages_have_no_gap_while_jobs_come_in(client: TestClient, body: dict[str, Any]) -> None:
    ids = [client.post("/v1/jobs", json=body).json()["id"] for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        parameters = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/jobs", params=parameters).json()
        assert len(page["items"]) <= 3
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        client.post("/v1/jobs", json=body)
    assert seen == ids[::-1]


def test_jobs_are_listed_by_state(
    client: TestClient, job: dict[str, Any], body: dict[str, Any], worker: FakeWorker
) -> None:
    worker.fail(worker.claim())
    waiting = client.post("/v1/jobs", json=body).json()
    for state, expected in [("failed", [job["id"]]), ("queued", [waiting["id"]]), ("running", [])]:
        page = client.get("/v1/jobs", params={"state": state}).json()
        assert [item["id"] for item in page["items"]] == expected


@pytest.mark.parametrize(
    ("parameters", "code", "pointer"),
    [
        ({"limit": 0}, "invalid_request", "/limit"),
        ({"limit": "many"}, "invalid_request", "/limit"),
        ({"state": "sleeping"}, "invalid_request", "/state/0"),
        ({"status": "running"}, "invalid_request", "/status"),
        ({"sort": "name"}, "invalid_request", "/sort"),
        ({"label": "team"}, "invalid_request", "/label/0"),
        ({"created_after": "yesterday"}, "invalid_request", "/created_after"),
        ({"created_after": "2026-12-01T00:00:00"}, "invalid_request", "/created_after"),
        ({"cursor": "x" * 301}, "invalid_request", "/cursor"),
    ],
)
def test_a_bad_parameter_is_named(
    client: TestClient, parameters: dict[str, Any], code: str, pointer: str
) -> None:
    problem = require_problem(client.get("/v1/jobs", params=parameters), 422, code)
    assert only_error(problem)["pointer"] == pointer


@pytest.mark.parametrize("cursor", ["nonsense", "WzFd", "bnVsbA", "é", "W251bGwsbnVsbF0"])
def test_a_cursor_of_somebody_else_is_refused(
    client: TestClient, job: dict[str, Any], cursor: str
) -> None:
    response = client.get("/v1/jobs", params={"cursor": cursor})
    assert cursor in require_problem(response, 422, "invalid_cursor")["detail"]
    if cursor != "WzFd":  # [1] is a place among events
        response = client.get(job["links"]["events"], params={"cursor": cursor})
        require_problem(response, 422, "invalid_cursor")


def test_events_come_in_order_page_by_page(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    claim = worker.claim()
    for number in (1, 2):
        worker.report(claim, "round_finished", {"round": number})
    first = client.get(job["links"]["events"], params={"limit": 3}).json()
    rest = client.get(
        job["links"]["events"], params={"limit": 3, "cursor": first["next_cursor"]}
    ).json()
    events = first["items"] + rest["items"]
    assert rest["next_cursor"] is None
    assert [event["sequence"] for event in events] == [1, 2, 3, 4]
    assert [event["type"] for event in events] == [
        *("submitted", "running", "round_finished", "round_finished")
    ]
    assert set(events[-1]) == {"sequence", "at", "type", "data"}
    assert events[-1]["data"] == {"round": 2}


def event_types(client: TestClient, job: dict[str, Any]) -> list[str]:
    return [event["type"] for event in client.get(job["links"]["events"]).json()["items"]]


def test_a_queued_job_is_cancelled_at_once_and_once(
    client: TestClient, job: dict[str, Any]
) -> None:
    response = client.post(job["links"]["cancel"])
    assert response.status_code == 200
    cancelled = response.json()
    assert cancelled["state"] == "cancelled"
    assert client.post(job["links"]["cancel"]).json() == cancelled
    assert event_types(client, job) == ["submitted", "cancelled"]


def test_a_queued_job_is_paused_and_resumed_at_once(
    client: TestClient, job: dict[str, Any]
) -> None:
    for _ in range(2):
        assert client.post(job["links"]["pause"]).json()["state"] == "paused"
    for _ in range(2):
        assert client.post(job["links"]["resume"]).json()["state"] == "queued"
    assert event_types(client, job) == ["submitted", "paused", "resumed"]


@pytest.mark.parametrize(
    ("wish", "wished", "reached"),
    [("pause", "pausing", "paused"), ("cancel", "cancelling", "cancelled")],
)
def test_a_running_job_is_paused_or_cancelled_by_its_worker(
    client: TestClient,
    job: dict[str, Any],
    worker: FakeWorker,
    wish: str,
    wished: str,
    reached: str,
) -> None:
    claim = worker.claim()
    for _ in range(2):
        response = client.post(job["links"][wish])
        assert (response.status_code, response.json()["state"]) == (200, wished)
    assert worker.wished(claim) == wished
    worker.release(claim, reached)
    assert client.post(job["links"][wish]).json()["state"] == reached
    assert event_types(client, job) == ["submitted", "running", wished, reached]


def test_cancel_wins_over_pause(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    claim = worker.claim()
    client.post(job["links"]["pause"])
    assert client.post(job["links"]["cancel"]).json()["state"] == "cancelling"
    for wish in ("pause", "resume"):
        problem = require_problem(client.post(job["links"][wish]), 409, "illegal_move")
        assert "is cancelling" in problem["detail"]
        assert "legal: cancel" in problem["detail"]
    worker.release(claim, "cancelled")
    assert client.get(job["links"]["self"]).json()["state"] == "cancelled"


@pytest.mark.parametrize("wish", ["pause", "resume", "cancel"])
@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_nothing_is_asked_of_a_job_that_has_ended(
    client: TestClient, job: dict[str, Any], worker: FakeWorker, state: str, wish: str
) -> None:
    claim = worker.claim()
    if state == "failed":
        worker.fail(claim)
    else:
        worker.succeed(claim, {})
    before = client.get(job["links"]["self"]).json()
    problem = require_problem(client.post(job["links"][wish]), 409, "illegal_move")
    assert f"is {state}: no {wish} now" in problem["detail"]
    assert ("legal: retry" if state == "failed" else "nothing") in problem["detail"]
    assert client.get(job["links"]["self"]).json() == before


def test_a_failed_job_is_retried_by_another_one(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    worker.fail(worker.claim())
    response = client.post(job["links"]["retry"])
    assert response.status_code == 201
    again = response.json()
    assert response.headers["location"] == again["links"]["self"]
    assert (again["retry_of"], again["state"]) == (job["id"], "queued")
    assert client.post(job["links"]["retry"]).json() == again
    assert client.get(job["links"]["self"]).json()["state"] == "failed"
    assert worker.claim().job_id == UUID(again["id"])


def test_attempts_tell_who_held_a_job_and_why_each_let_go(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    assert client.get(job["links"]["attempts"]).json() == {"items": [], "next_cursor": None}
    claim = worker.claim()
    worker.evaluate(claim, number=1, trials=3)
    worker.release(claim, "drained")
    worker.claim()
    first, second = client.get(job["links"]["attempts"]).json()["items"]
    assert (first["number"], first["worker"], first["device"]) == (1, "fake", "cpu")
    assert (first["outcome"], first["masks_evaluated"]) == ("drained", 3)
    assert first["last_mask"] == {"round": 1, "trial": 2}
    assert first["fencing_token"] < second["fencing_token"]
    assert (second["outcome"], second["ended_at"], second["last_mask"]) == (None, None, None)
