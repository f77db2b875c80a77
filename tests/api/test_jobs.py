"""Showing, listing and cancelling jobs, and their events."""

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from jobs.progress import Progress, Stage
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker

ENDPOINTS = [
    ("GET", "/v1/jobs/{}"),
    ("POST", "/v1/jobs/{}/cancel"),
    ("GET", "/v1/jobs/{}/events"),
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
        ({"state": "paused"}, "invalid_request", "/state"),
        ({"cursor": "x" * 201}, "invalid_request", "/cursor"),
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


def test_a_queued_job_is_cancelled_at_once_and_once(
    client: TestClient, job: dict[str, Any]
) -> None:
    response = client.post(job["links"]["cancel"])
    assert response.status_code == 200
    cancelled = response.json()
    assert (cancelled["state"], cancelled["cancel_requested"]) == ("cancelled", True)
    assert client.post(job["links"]["cancel"]).json() == cancelled
    events = client.get(job["links"]["events"]).json()["items"]
    assert [event["type"] for event in events] == ["submitted", "cancelled"]


def test_a_running_job_is_cancelled_by_its_worker(
    client: TestClient, job: dict[str, Any], worker: FakeWorker
) -> None:
    claim = worker.claim()
    for _ in range(2):
        wished = client.post(job["links"]["cancel"])
        assert wished.status_code == 200
        assert (wished.json()["state"], wished.json()["cancel_requested"]) == ("running", True)
    assert worker.wants_cancel(claim)
    worker.cancelled(claim)
    assert client.post(job["links"]["cancel"]).json()["state"] == "cancelled"


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(
    client: TestClient, job: dict[str, Any], worker: FakeWorker, state: str
) -> None:
    claim = worker.claim()
    if state == "failed":
        worker.fail(claim)
    else:
        worker.succeed(claim, {})
    problem = require_problem(client.post(job["links"]["cancel"]), 409, "illegal_move")
    assert state in problem["detail"]
    assert client.get(job["links"]["self"]).json()["cancel_requested"] is False
