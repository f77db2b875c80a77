"""Logs of attempts: page by page, from their end, and as they come."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from jobs.attempts import Claim
from jobs.log_lines import LogStore
from jobs.records import Attempt, LogLine
from tests.api.problems import require_problem
from tests.api.test_long_poll import Ask, ask, service, waiting
from tests.fake_worker import FakeWorker

__all__ = ["ask", "service", "waiting"]


@pytest.fixture
def logs(engine: Engine) -> LogStore:
    return LogStore(engine)


@pytest.fixture
def claim(job: dict[str, Any], worker: FakeWorker) -> Claim:
    return worker.claim()


def path_of(claim: Claim, attempt: int = 1) -> str:
    return f"/v1/jobs/{claim.job_id}/attempts/{attempt}/logs"


def texts(page: dict[str, Any]) -> list[str]:
    return [line["text"] for line in page["items"]]


def test_lines_come_in_order_page_by_page(client: TestClient, claim: Claim, logs: LogStore) -> None:
    logs.keep(claim.fencing_token, {number: f"line {number}" for number in range(1, 6)})
    first = client.get(path_of(claim), params={"limit": 3}).json()
    assert set(first["items"][0]) == {"number", "at", "text"}
    assert texts(first) == ["line 1", "line 2", "line 3"]
    cursor = first["next_cursor"]
    assert cursor == first["last_cursor"]
    rest = client.get(path_of(claim), params={"limit": 3, "cursor": cursor}).json()
    assert texts(rest) == ["line 4", "line 5"]
    assert (rest["next_cursor"], rest["ended"]) == (None, False)
    logs.keep(claim.fencing_token, {6: "line 6"})
    more = client.get(path_of(claim), params={"cursor": rest["last_cursor"]}).json()
    assert texts(more) == ["line 6"]


def test_the_last_lines_come_alone(client: TestClient, claim: Claim, logs: LogStore) -> None:
    empty = client.get(path_of(claim), params={"tail": 2}).json()
    assert (empty["items"], empty["next_cursor"]) == ([], None)
    logs.keep(claim.fencing_token, {number: f"line {number}" for number in range(1, 6)})
    assert texts(client.get(path_of(claim), params={"tail": 2}).json()) == ["line 4", "line 5"]
    since = {"tail": 2, "cursor": empty["last_cursor"]}
    assert len(texts(client.get(path_of(claim), params=since).json())) == 5


def test_each_attempt_has_its_own_log(
    client: TestClient, claim: Claim, logs: LogStore, worker: FakeWorker
) -> None:
    worker.release(claim, "drained")
    again = worker.claim()
    logs.keep(claim.fencing_token, {1: "of the first"})
    logs.keep(again.fencing_token, {1: "of the second"})
    attempts = client.get(f"/v1/jobs/{claim.job_id}/attempts").json()["items"]
    pages = [client.get(attempt["links"]["logs"]).json() for attempt in attempts]
    assert [texts(page) for page in pages] == [["of the first"], ["of the second"]]
    assert [page["ended"] for page in pages] == [True, False]


def test_a_line_that_is_waited_for_comes(
    service: Any, body: dict[str, Any], ask: Ask, worker: FakeWorker, logs: LogStore
) -> None:
    service.post("/v1/jobs", json=body)
    claim = worker.claim()
    answer = ask(path_of(claim), wait=60)
    logs.keep(claim.fencing_token, {1: "hello"})
    page = answer.result(60).json()
    assert texts(page) == ["hello"]
    answer = ask(path_of(claim), wait=60, cursor=page["last_cursor"])
    worker.release(claim, "drained")
    page = answer.result(60).json()
    assert (page["items"], page["ended"]) == ([], True)
    assert service.get(path_of(claim), params={"wait": 0.1, "limit": 1}).json()["ended"]


def test_what_there_is_not_is_said(client: TestClient, claim: Claim) -> None:
    problem = require_problem(client.get(path_of(claim, 2)), 404, "attempt_not_found")
    assert "numbers 1 to 1" in problem["detail"]
    missing = f"/v1/jobs/{uuid4()}/attempts/1/logs"
    require_problem(client.get(missing), 404, "job_not_found")
    require_problem(client.get(path_of(claim), params={"cursor": "x"}), 422, "invalid_cursor")
    for bad in ({"limit": 0}, {"limit": 1001}, {"tail": 0}, {"tail": 1001}, {"wait": 61}):
        require_problem(client.get(path_of(claim), params=bad), 422, "invalid_request")
    require_problem(client.get(path_of(claim, 0)), 422, "invalid_request")


def test_keeping_a_line_twice_keeps_it_once(claim: Claim, logs: LogStore, engine: Engine) -> None:
    for text in ("said", "said again"):
        logs.keep(claim.fencing_token, {1: text})
    assert stored(engine, claim.job_id) == {1: "said"}


def test_lines_that_are_left_out_leave_a_word(claim: Claim, logs: LogStore, engine: Engine) -> None:
    logs.keep(claim.fencing_token, {number: f"line {number}" for number in range(1, 7)})
    for last in (3, 5):
        logs.keep(claim.fencing_token, {}, (2, last))
    found = stored(engine, claim.job_id)
    assert list(found) == [1, 2, 6]
    assert "lines 2 to 5 are left out" in found[2]


def test_lines_of_an_attempt_that_is_gone_are_not_kept(
    claim: Claim, logs: LogStore, engine: Engine
) -> None:
    logs.keep(claim.fencing_token + 1000, {1: "too late"})
    assert stored(engine, claim.job_id) == {}


def stored(engine: Engine, job_id: UUID) -> dict[int, str]:
    of_job = select(Attempt.fencing_token).where(Attempt.job_id == job_id)
    lines = select(LogLine).where(LogLine.fencing_token.in_(of_job)).order_by(LogLine.number)
    with Session(engine) as session:
        return {line.number: line.text for line in session.scalars(lines)}
