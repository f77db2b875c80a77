"""The header Idempotency-Key: a submission that is made again makes nothing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.problems import only_error, require_problem

HEADER = "Idempotency-Key"
REPLAYED = "idempotency-replayed"
KEY = {HEADER: "8e03978e-40d5-43dd-bc93-6894a57f9324"}


def jobs(client: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/jobs?limit=200").json()["items"]
    return found


def bodies(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"/v1/jobs": body, "/v1/batches": {"jobs": [body, body]}}


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
def test_the_second_answer_is_the_first_one_and_says_so(
    client: TestClient, body: dict[str, Any], path: str
) -> None:
    first, second = (client.post(path, json=bodies(body)[path], headers=KEY) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert REPLAYED not in first.headers
    assert second.headers[REPLAYED] == "true"


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
def test_another_request_with_the_same_key_is_refused(
    client: TestClient, body: dict[str, Any], path: str
) -> None:
    made = client.post(path, json=bodies(body)[path], headers=KEY).json()
    other = {**bodies(body)[path], "name": "other"}
    problem = require_problem(
        client.post(path, json=other, headers=KEY), 422, "idempotency_key_reused"
    )
    assert made["id"] in problem["detail"]
    assert "new key" in problem["detail"]
    error = only_error(problem)
    assert (error["pointer"], error["value"]) == (f"/{HEADER}", KEY[HEADER])


def test_f28_fifty_at_once_with_one_key_make_one_job(
    client: TestClient, body: dict[str, Any]
) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(
            pool.map(lambda _: client.post("/v1/jobs", json=body, headers=KEY), range(50))
        )
    assert {answer.status_code for answer in answers} == {201}
    (job,) = jobs(client)
    assert {answer.json()["id"] for answer in answers} == {job["id"]}
    assert [REPLAYED in answer.headers for answer in answers].count(False) == 1
    (event,) = client.get(job["links"]["events"]).json()["items"]
    assert event["type"] == "submitted"
    response = client.post("/v1/jobs", json={**body, "name": "other"}, headers=KEY)
    require_problem(response, 422, "idempotency_key_reused")


def test_what_was_queued_stays_so_though_its_files_have_gone(
    client: TestClient, body: dict[str, Any], text_file: Path
) -> None:
    for path, request in bodies(body).items():
        made = client.post(path, json=request, headers=KEY).json()
        text_file.rename(text_file.with_suffix(".gone"))
        again = client.post(path, json=request, headers=KEY)
        assert (again.status_code, again.json()["id"]) == (201, made["id"])
        text_file.with_suffix(".gone").rename(text_file)


def test_the_answer_is_the_job_as_it_is_now(client: TestClient, body: dict[str, Any]) -> None:
    job = client.post("/v1/jobs", json=body, headers=KEY).json()
    client.post(job["links"]["cancel"])
    again = client.post("/v1/jobs", json=body, headers=KEY).json()
    assert (again["id"], again["state"]) == (job["id"], "cancelled")


def test_a_request_that_is_refused_does_not_use_its_key_up(
    settings: Settings, engine: Engine, body: dict[str, Any]
) -> None:
    small = settings.model_copy(update={"queued_per_owner": 1})
    with TestClient(create_app(small), raise_server_exceptions=False) as client:
        bad = {**body, "target": {"sparsity": 0.99}}
        response = client.post("/v1/jobs", json=bad, headers=KEY)
        require_problem(response, 422, "unreachable_target")
        first = client.post("/v1/jobs", json=body, headers={HEADER: "first"}).json()
        response = client.post("/v1/jobs", json=body, headers=KEY)
        require_problem(response, 409, "quota_exceeded")
        client.post(first["links"]["cancel"])
        response = client.post("/v1/jobs", json=body, headers=KEY)
        assert (response.status_code, REPLAYED in response.headers) == (201, False)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/batches"])
@pytest.mark.parametrize("key", [b"", b"two words", b"x" * 256, b"caf\xc3\xa9", b"tab\tbed"])
def test_a_bad_key_is_named_with_what_is_allowed(
    client: TestClient, body: dict[str, Any], path: str, key: bytes
) -> None:
    response = client.post(path, json=bodies(body)[path], headers={HEADER.encode(): key})
    error = only_error(require_problem(response, 422, "invalid_request"))
    assert (error["pointer"], error["value"]) == (f"/{HEADER}", key.decode("latin-1"))
    assert HEADER in error["message"]
    assert error["allowed"] == "1 to 255 visible ASCII characters"
    assert jobs(client) == []


@pytest.mark.parametrize("key", ["x", "~" * 255, "nightly-2026-12-01", '"quoted"'])
def test_a_key_may_be_any_word(client: TestClient, body: dict[str, Any], key: str) -> None:
    for _ in range(2):
        assert client.post("/v1/jobs", json=body, headers={HEADER: key}).status_code == 201
    assert len(jobs(client)) == 1
