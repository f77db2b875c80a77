"""Streams of events: nothing missed, nothing twice, and nothing held while they are idle."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event
from sqlalchemy.pool import QueuePool

from api import app as app_module
from api import event_stream
from api.app import create_app
from jobs.connections import connect
from jobs.progress import Progress, Stage
from jobs.settings import Settings
from tests.api.problems import only_error, require_problem
from tests.fake_worker import FakeWorker
from tests.faults.conftest import database, through
from tests.faults.proxy import Proxy
from tests.served import ServedProcess, served

__all__ = ["database"]

Message = dict[str, str]
STREAMS = 500


def messages(lines: Iterator[str]) -> Iterator[Message]:
    """The messages of a stream, and its comments, as they come."""
    message: Message = {}
    for line in lines:
        if not line:
            yield message
            message = {}
            continue
        name, _, value = line.partition(":")
        message[name or "comment"] = value.removeprefix(" ")


def followed(url: str, job_id: str, last: int | None = None) -> Iterator[Message]:
    """The messages of a job's stream, until it ends or breaks."""
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    address = f"{url}/v1/jobs/{job_id}/events/stream"
    with httpx.stream("GET", address, headers=headers, timeout=60) as response:
        assert response.status_code == 200, response.read()
        yield from messages(response.iter_lines())


def sequences(found: list[Message]) -> list[int]:
    return [int(message["id"]) for message in found if "id" in message]


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    with served(create_app(settings)) as url:
        yield url


@pytest.fixture
def job_id(url: str, body: dict[str, Any]) -> str:
    return str(httpx.post(f"{url}/v1/jobs", json=body).json()["id"])


def test_a_stream_tells_what_was_and_what_comes_and_ends_with_the_job(
    url: str, job_id: str, worker: FakeWorker
) -> None:
    claim = worker.claim()
    stream = followed(url, job_id)
    assert next(stream) == {"retry": str(event_stream.RETRY_MILLISECONDS)}
    seen = [next(stream) for _ in range(2)]
    worker.report(claim, "round_finished", {"round": 1, "note": "ü\u2028\n"})
    worker.succeed(claim, {})
    seen += stream
    assert seen[-1] == {"event": "end", "data": '{"state": "succeeded"}'}
    told = [message for message in seen if "id" in message]
    assert sequences(seen) == [1, 2, 3, 4]
    assert all("event" not in message for message in told)
    page = httpx.get(f"{url}/v1/jobs/{job_id}/events").json()
    assert [json.loads(message["data"]) for message in told] == page["items"]


def test_progress_is_told_when_it_changes(url: str, job_id: str, worker: FakeWorker) -> None:
    claim = worker.claim()
    shown = (
        json.loads(message["data"])
        for message in followed(url, job_id)
        if message.get("event") == "progress"
    )
    assert next(shown) == Progress().model_dump(mode="json")
    for number in (1, 2):
        progress = Progress(stage=Stage.PRUNING, round=number, rounds=3, masks_evaluated=7)
        worker.progress(claim, progress)
        assert next(shown) == progress.model_dump(mode="json")


def test_a_reader_says_what_it_has(client: TestClient, job: dict[str, Any]) -> None:
    stream = f"{job['links']['events']}/stream"
    client.post(job["links"]["cancel"])
    for last, expected in [(0, [1, 2]), (1, [2])]:
        for asked in (
            {"params": {"last_event_id": last}},
            {"headers": {"Last-Event-ID": str(last)}},
        ):
            response = client.get(stream, **asked)
            assert response.headers["Content-Type"].startswith("text/event-stream")
            assert response.headers["Cache-Control"] == "no-store"
            found = list(messages(iter(response.text.splitlines())))
            assert sequences(found) == expected
            assert found[-1]["event"] == "end"
    both = client.get(stream, params={"last_event_id": 0}, headers={"Last-Event-ID": "1"})
    assert sequences(list(messages(iter(both.text.splitlines())))) == [2]
    over = client.get(stream, headers={"Last-Event-ID": "2"})
    assert (over.status_code, over.content) == (204, b"")


@pytest.mark.parametrize("last", ["x", "-1", "", "99999999999"])
def test_what_is_no_sequence_is_refused(client: TestClient, job: dict[str, Any], last: str) -> None:
    stream = f"{job['links']['events']}/stream"
    problem = require_problem(
        client.get(stream, headers={"Last-Event-ID": last}), 422, "invalid_request"
    )
    assert only_error(problem)["pointer"] == "/Last-Event-ID"


def test_an_idle_stream_is_kept_alive(
    url: str, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.05)
    stream = followed(url, job_id)
    comments = [message for message, _ in zip(stream, range(6), strict=False)][-3:]
    assert comments == [{"comment": "still here"}] * 3
    stream.close()  # type: ignore[attr-defined]


def test_f31_a_reader_sees_every_event_once_over_restarts_of_the_api(
    settings: Settings, engine: Engine, body: dict[str, Any], worker: FakeWorker
) -> None:
    """Stopped in the middle, and killed, while events come."""
    api = ServedProcess(settings)
    try:
        api.start()
        job_id = str(httpx.post(f"{api.url}/v1/jobs", json=body).json()["id"])
        claim = worker.claim()
        reader = Reader(api.url, job_id)
        for number, how in enumerate((signal.SIGTERM, signal.SIGKILL)):
            worker.report(claim, "round_started", {"round": number})
            wait_until(lambda last=3 + 2 * number: last in reader.seen)
            api.stop(how)
            worker.report(claim, "round_finished", {"round": number})
            api.start()
        worker.succeed(claim, {})
        reader.join(60)
    finally:
        api.close()
    assert reader.seen == list(range(1, 8))
    assert reader.connections > 2


class Reader(threading.Thread):
    """Follows a job as a browser does: comes back with the last id until it is told the end."""

    def __init__(self, url: str, job_id: str) -> None:
        super().__init__(daemon=True)
        self.seen: list[int] = []
        self.connections = 0
        self._url = url
        self._job_id = job_id
        self.start()

    def run(self) -> None:
        while True:
            try:
                for message in followed(self._url, self._job_id, self.seen[-1] if self.seen else 0):
                    self.connections += "retry" in message
                    self.seen += sequences([message])
                    if message.get("event") == "end":
                        return
            except httpx.TransportError:
                pass
            time.sleep(0.05)


def test_a_stop_of_the_api_does_not_wait_for_its_streams(
    settings: Settings, engine: Engine, body: dict[str, Any]
) -> None:
    """Nothing but the application ends them: the server has no limit of its own."""
    api = ServedProcess(settings)
    try:
        api.start()
        job_id = str(httpx.post(f"{api.url}/v1/jobs", json=body).json()["id"])
        stream = followed(api.url, job_id)
        for _ in range(3):
            next(stream)
        api.stop()
        assert list(stream) == []
    finally:
        api.close()


def test_a_database_that_is_away_ends_no_stream(
    settings: Settings,
    engine: Engine,
    database: Proxy,
    body: dict[str, Any],
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_stream, "KEEP_ALIVE_SECONDS", 0.2)
    away = settings.model_copy(update={"database_url": through(database, settings)})
    with served(create_app(away)) as url:
        job_id = str(httpx.post(f"{url}/v1/jobs", json=body).json()["id"])
        stream = followed(url, job_id)
        for _ in range(3):
            next(stream)
        database.cut()
        claim = worker.claim()
        assert [next(stream) for _ in range(5)] == [{"comment": "still here"}] * 5
        database.mend()
        worker.succeed(claim, {})
        rest = list(stream)
    assert sequences(rest) == [2, 3]
    assert rest[-1]["event"] == "end"


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> list[Engine]:
    """The engines that the application opens."""
    opened: list[Engine] = []

    def opening(settings: Settings) -> Engine:
        opened.append(connect(settings))
        return opened[-1]

    monkeypatch.setattr(app_module, "connect", opening)
    return opened


def test_f32_five_hundred_idle_streams_hold_no_connection_and_ask_one_question(
    pool: list[Engine],
    settings: Settings,
    engine: Engine,
    body: dict[str, Any],
    worker: FakeWorker,
) -> None:
    with served(create_app(settings)) as url:
        jobs = [httpx.post(f"{url}/v1/jobs", json=body).json()["id"] for _ in range(5)]
        statements: list[str] = []
        listen(pool[0], statements)
        asyncio.run(idle(url, jobs, worker, pool[0], statements))


def listen(engine: Engine, statements: list[str]) -> None:
    def executed(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", executed)


async def idle(
    url: str, jobs: list[str], worker: FakeWorker, engine: Engine, statements: list[str]
) -> None:
    readers = [await open_stream(url, jobs[number % 5]) for number in range(STREAMS)]
    await asyncio.gather(*(read_until(reader, b"event: progress") for reader, _ in readers))
    connections = engine.pool
    assert isinstance(connections, QueuePool)
    assert connections.size() == 10
    statements.clear()
    held = []
    for _ in range(40):
        held.append(connections.checkedout())
        await asyncio.sleep(0.05)
    # A look of the watcher, or of those who send to webhooks, may be seen in the act; whatever is
    # asked, is asked once for all.
    assert sorted(held)[len(held) // 2] == 0
    assert max(held) <= 6
    assert 0 < len(statements) < 50
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answers = await asyncio.gather(*(client.get(f"/v1/jobs/{job}") for job in jobs * 4))
        assert {answer.status_code for answer in answers} == {200}
        cancelled = await asyncio.gather(*(client.post(f"/v1/jobs/{job}/cancel") for job in jobs))
        assert {answer.json()["state"] for answer in cancelled} == {"cancelled"}
    await asyncio.gather(*(read_until(reader, b"event: end") for reader, _ in readers))
    for _, writer in readers:
        writer.close()


async def open_stream(url: str, job_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(request_of(job_id))
    return reader, writer


def request_of(job_id: str) -> bytes:
    return f"GET /v1/jobs/{job_id}/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def read_until(reader: asyncio.StreamReader, words: bytes) -> None:
    async with asyncio.timeout(120):
        await reader.readuntil(words)


def test_f32_a_reader_that_takes_nothing_is_cut(
    url: str,
    job_id: str,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """More is sent to it than any buffer on the way holds; another reader does not notice."""
    monkeypatch.setattr(event_stream, "SEND_SECONDS", 0.5)
    claim = worker.claim()
    for _ in range(20):
        worker.report(claim, "told", {"text": "x" * 1_000_000})
    address = urlsplit(url)
    assert address.port is not None
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.hostname, address.port))
        slow.sendall(request_of(job_id))
        reader = Reader(url, job_id)
        wait_until(lambda: "slow_reader_cut" in caplog.text)
        worker.succeed(claim, {})
        reader.join(60)
        got = b""
        while piece := slow.recv(1 << 20):
            got += piece
    assert reader.seen == list(range(1, 24))
    assert b"id: 1\n" in got
    assert b"event: end" not in got


def wait_until(reached: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)
