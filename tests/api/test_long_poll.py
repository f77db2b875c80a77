"""Requests that wait for news: answered with it, or without it when the time is over."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from api.watch import IsNews, Watcher
from jobs.settings import Settings
from jobs.store import Glance
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker
from tests.served import served

Ask = Callable[..., Future[httpx.Response]]


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released each time that somebody begins to wait."""
    begun = threading.Semaphore(0)
    until = Watcher.until

    async def seen(watcher: Watcher, job_id: Any, is_news: IsNews, seconds: float) -> Glance | None:
        begun.release()
        return await until(watcher, job_id, is_news, seconds)

    monkeypatch.setattr(Watcher, "until", seen)
    return begun


@pytest.fixture
def service(settings: Settings, engine: Engine) -> Iterator[httpx.Client]:
    with served(create_app(settings)) as url, httpx.Client(base_url=url, timeout=90) as client:
        yield client


@pytest.fixture
def job(service: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.post("/v1/jobs", json=body).json()
    return found


@pytest.fixture
def ask(service: httpx.Client, waiting: threading.Semaphore) -> Iterator[Ask]:
    """Asks in a thread, and comes back when the service waits."""
    with ThreadPoolExecutor() as pool:

        def asked(path: str, **parameters: Any) -> Future[httpx.Response]:
            answer = pool.submit(service.get, path, params=parameters)
            assert waiting.acquire(timeout=60)
            return answer

        yield asked


def test_a_page_of_events_comes_when_something_happens(
    service: httpx.Client, job: dict[str, Any], ask: Ask, worker: FakeWorker
) -> None:
    events = job["links"]["events"]
    first = service.get(events, params={"wait": 60}).json()
    assert [event["type"] for event in first["items"]] == ["submitted"]
    assert (first["next_cursor"], first["job_state"]) == (None, "queued")
    answer = ask(events, wait=60, cursor=first["last_cursor"])
    assert not answer.done()
    claim = worker.claim()
    second = answer.result(60).json()
    assert [event["type"] for event in second["items"]] == ["running"]
    worker.succeed(claim, {})
    third = service.get(events, params={"wait": 60, "cursor": second["last_cursor"]}).json()
    assert [event["type"] for event in third["items"]] == ["succeeded"]
    assert third["job_state"] == "succeeded"


def test_a_page_without_events_leads_on(
    service: httpx.Client, job: dict[str, Any], worker: FakeWorker
) -> None:
    events = job["links"]["events"]
    cursor = service.get(events).json()["last_cursor"]
    for wait in (0, 0.2):
        empty = service.get(events, params={"wait": wait, "cursor": cursor}).json()
        assert empty == {
            "items": [],
            "next_cursor": None,
            "last_cursor": cursor,
            "job_state": "queued",
        }
    worker.claim()
    (event,) = service.get(events, params={"cursor": cursor}).json()["items"]
    assert event["type"] == "running"


def test_pages_with_a_next_one_are_not_waited_for(
    service: httpx.Client, job: dict[str, Any]
) -> None:
    service.post(job["links"]["pause"])
    page = service.get(job["links"]["events"], params={"limit": 1, "wait": 60}).json()
    assert page["next_cursor"] == page["last_cursor"]


def test_nothing_is_waited_for_of_a_job_that_has_ended(
    client: TestClient, body: dict[str, Any], waiting: threading.Semaphore
) -> None:
    job = client.post("/v1/jobs", json=body).json()
    client.post(job["links"]["cancel"])
    cursor = client.get(job["links"]["events"]).json()["last_cursor"]
    page = client.get(job["links"]["events"], params={"cursor": cursor, "wait": 60}).json()
    assert (page["items"], page["job_state"]) == ([], "cancelled")
    shown = client.get(job["links"]["self"], params={"wait": 60, "state": "cancelled"}).json()
    assert shown["state"] == "cancelled"
    assert not waiting.acquire(blocking=False)


def test_a_job_comes_when_it_is_in_another_state(
    service: httpx.Client, job: dict[str, Any], ask: Ask, worker: FakeWorker
) -> None:
    path = job["links"]["self"]
    for parameters in ({}, {"state": "queued"}):
        answer = ask(path, wait=60, **parameters)
        assert not answer.done()
        claim = worker.claim()
        assert answer.result(60).json()["state"] == "running"
        worker.release(claim, "drained")
    at_once = service.get(path, params={"wait": 60, "state": "running"}).json()
    assert at_once["state"] == "queued"
    as_it_is = service.get(path, params={"wait": 0.2, "state": "queued"}).json()
    assert (as_it_is["state"], as_it_is["position"]) == ("queued", 1)


def test_who_waits_when_the_service_stops_is_answered(
    settings: Settings, engine: Engine, body: dict[str, Any], waiting: threading.Semaphore
) -> None:
    watchers: list[Watcher] = []
    make = Watcher.__init__

    def kept(watcher: Watcher, *arguments: Any) -> None:
        watchers.append(watcher)
        make(watcher, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watcher, "__init__", kept)
        app = create_app(settings)
        with served(app) as url, ThreadPoolExecutor() as pool:
            job = httpx.post(f"{url}/v1/jobs", json=body).json()
            path = f"{url}{job['links']['self']}?wait=60"
            answer = pool.submit(httpx.get, path, timeout=90)
            assert waiting.acquire(timeout=60)
            watchers[0].stop()
            assert answer.result(60).json()["state"] == "queued"
            assert httpx.get(path, timeout=90).json()["state"] == "queued"


@pytest.mark.parametrize("path", ["", "/events"])
@pytest.mark.parametrize("wait", ["-1", "61", "soon", "nan"])
def test_a_wait_is_bounded(client: TestClient, body: dict[str, Any], path: str, wait: str) -> None:
    job = client.post("/v1/jobs", json=body).json()
    response = client.get(f"{job['links']['self']}{path}", params={"wait": wait})
    assert only_error(require_problem(response, 422, "invalid_request"))["pointer"] == "/wait"
