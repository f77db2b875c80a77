"""Following a job: nothing missed and nothing twice, whatever comes between."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import Engine

from client import BonsaiClient, Event, Progress, ServiceError, UnexpectedAnswerError
from client import watch as watch_module
from client.sse import EventStream, Message
from jobs import progress as jobs_progress
from jobs.progress import Stage
from jobs.settings import Settings
from tests.fake_worker import FakeWorker
from tests.faults.conftest import connector
from tests.faults.proxy import Proxy
from tests.served import ServedProcess


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.tries.PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(watch_module, "POLL_SECONDS", 0.2)


def sequences(news: Any) -> list[int]:
    return [found.sequence for found in news if isinstance(found, Event)]


def test_events_and_progress_come_as_they_happen(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    job = client.submit(body)
    claim = worker.claim()
    watching = client.watch(job.id)
    seen = [next(watching) for _ in range(3)]
    assert [type(found) for found in seen] == [Event, Event, Progress]
    worker.progress(claim, jobs_progress.Progress(stage=Stage.PRUNING, round=2, rounds=3))
    changed = next(watching)
    assert isinstance(changed, Progress)
    assert (changed.stage, changed.round) == ("pruning", 2)
    worker.report(claim, "not_known_to_this_client", {"text": "ü\u2028\n"})
    worker.succeed(claim, {})
    seen += watching
    assert sequences(seen) == [1, 2, 3, 4]
    assert {event.type: event.data for event in seen if isinstance(event, Event)}[
        "not_known_to_this_client"
    ] == {"text": "ü\u2028\n"}
    assert sequences(client.watch(job.id, after=2)) == [3, 4]
    assert list(client.watch(job.id, after=4)) == []


def test_a_job_that_is_not_there_is_not_waited_for(client: BonsaiClient) -> None:
    with pytest.raises(ServiceError) as caught:
        list(client.watch("00000000-0000-0000-0000-000000000000"))
    assert caught.value.problem.code == "job_not_found"


def test_a_network_that_breaks_costs_no_event(
    url: str, body: dict[str, Any], worker: FakeWorker
) -> None:
    address = urlsplit(url)
    assert address.port is not None
    network = Proxy(connector(None, address.hostname, address.port))
    with BonsaiClient(f"http://127.0.0.1:{network.port}") as client:
        job = client.submit(body)
        claim = worker.claim()
        watching = client.watch(job.id)
        seen = list(islice(watching, 3))
        for number in range(3):
            network.cut()
            worker.report(claim, "round_finished", {"round": number})
            threading.Timer(0.2, network.mend).start()
            seen += islice(watching, 1)
        worker.succeed(claim, {})
        seen += watching
    network.close()
    assert sequences(seen) == [1, 2, 3, 4, 5, 6]


def test_f31_a_client_follows_over_a_restart_of_the_service(
    settings: Settings, engine: Engine, body: dict[str, Any], worker: FakeWorker
) -> None:
    service = ServedProcess(settings)
    try:
        service.start()
        with BonsaiClient(service.url) as client:
            job = client.submit(body)
            claim = worker.claim()
            watching = client.watch(job.id)
            seen = list(islice(watching, 3))
            service.stop()
            worker.report(claim, "round_finished", {"round": 1})
            restart = threading.Timer(0.5, service.start)
            restart.start()
            seen.append(next(watching))
            restart.join()
            worker.succeed(claim, {})
            seen += watching
    finally:
        service.close()
    assert sequences(seen) == [1, 2, 3, 4]


Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture
def between(url: str) -> Iterator[tuple[str, list[Answer]]]:
    """Something in between that hands on all but streams, and how it answers these."""
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.endswith("/stream"):
                answers[0](self)
                return
            response = httpx.get(url + self.path, timeout=60)
            self.send_response(response.status_code)
            self.send_header("Content-Type", response.headers["Content-Type"])
            self.end_headers()
            self.wfile.write(response.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    server.server_close()


def nowhere(handler: BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def a_page(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()


def kept_back(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.end_headers()
    threading.Event().wait(5)


@pytest.mark.parametrize("answer", [nowhere, a_page, kept_back])
def test_where_no_stream_comes_through_the_service_is_made_to_wait(
    client: BonsaiClient,
    between: tuple[str, list[Answer]],
    body: dict[str, Any],
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer,
) -> None:
    monkeypatch.setattr(watch_module, "SILENT_SECONDS", 0.5)
    address, answers = between
    answers.append(answer)
    job = client.submit(body)
    claim = worker.claim()
    with BonsaiClient(address) as far:
        watching = far.watch(job.id)
        seen = list(islice(watching, 3))
        assert [type(found) for found in seen] == [Event, Event, Progress]
        worker.progress(claim, jobs_progress.Progress(stage=Stage.PRUNING))
        seen.append(next(watching))
        assert isinstance(seen[-1], Progress)
        worker.succeed(claim, {})
        seen += watching
    assert sequences(seen) == [1, 2, 3]


def test_a_stream_that_says_something_else_is_not_taken_for_ours(
    client: BonsaiClient, between: tuple[str, list[Answer]], body: dict[str, Any]
) -> None:
    def nonsense(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b"data: hello\n\n")

    address, answers = between
    answers.append(nonsense)
    with BonsaiClient(address) as far, pytest.raises(UnexpectedAnswerError):
        list(far.watch(client.submit(body).id))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_messages_are_read_whatever_pieces_they_come_in(size: int) -> None:
    stream = (
        b": a comment\n\nretry: 2000\n\n"
        b'data: {"text": "\xc3\xbc"}\nid: 7\n\n'
        b"event: progress\r\ndata: one\r\ndata:two\r\n\r\n"
        b"event: cut off\ndata: x\n"
    )
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    found = EventStream()
    assert [message for piece in pieces for message in found.messages(piece)] == [
        Message(retry=2000),
        Message(data=json.dumps({"text": "ü"}, ensure_ascii=False), id="7"),
        Message(event="progress", data="one\ntwo"),
    ]


def test_waiting_asks_the_service_to_wait(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer comes with each change of state; nothing sleeps here in between."""
    monkeypatch.setattr("client.sender.time.sleep", lambda _: pytest.fail("slept"))
    job = client.submit(body)
    states = []

    def follow(now: Any) -> None:
        states.append(now.state)
        threading.Timer(0.2, {"queued": claim, "running": end}[now.state]).start()

    def claim() -> None:
        claims.append(worker.claim())

    def end() -> None:
        worker.succeed(claims[0], {})

    claims: list[Any] = []
    assert client.wait(job.id, on_progress=lambda now: now.is_final or follow(now)).is_final
    assert states == ["queued", "running"]
