"""Submissions over a network that loses answers: tried again, and made once."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner, Result

from client import BonsaiClient, ClientError, ServiceError, UnreachableServiceError
from client.cli import app
from client.operations import TRIES
from tests.faults.conftest import connector
from tests.faults.proxy import Proxy

Bonsai = Callable[..., Result]


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.tries.PAUSE_SECONDS", 0.001)


@pytest.fixture
def network(url: str) -> Iterator[Proxy]:
    """The way to the service."""
    address = urlsplit(url)
    assert address.port is not None
    proxy = Proxy(connector(None, address.hostname, address.port))
    yield proxy
    proxy.close()


@pytest.fixture
def far(network: Proxy) -> Bonsai:
    """Runs the command with some arguments, on this side of the network."""

    def run(*arguments: str) -> Result:
        environment = {"BONSAI_URL": f"http://127.0.0.1:{network.port}", "COLUMNS": "200"}
        return CliRunner(env=environment).invoke(app, arguments)

    return run


@pytest.fixture
def command(body: dict[str, Any]) -> tuple[str, ...]:
    return (
        *("submit", body["model"]["source"], "--calibration", body["calibration"]["source"]),
        *("--sparsity", "0.3", "--samples", "4", "--sequence-length", "64"),
    )


def test_a_job_whose_answer_is_lost_is_submitted_once(
    client: BonsaiClient, network: Proxy, far: Bonsai, command: tuple[str, ...]
) -> None:
    network.swallow_reply_to(b'"calibration"')
    result = far(*command)
    assert network.swallowed
    assert result.exit_code == 0, result.output
    assert [job.id for job in client.jobs()] == [result.stdout.strip()]


def test_a_batch_whose_answer_is_lost_is_submitted_once(
    client: BonsaiClient, network: Proxy, far: Bonsai, body: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({"template": body, "sparsities": [0.1, 0.3]}))
    network.swallow_reply_to(b'"sparsities"')
    result = far("batch", "submit", str(file))
    assert network.swallowed
    assert result.exit_code == 0, result.output
    assert {job.batch_id for job in client.jobs()} == {result.stdout.strip()}
    assert len(list(client.jobs())) == 2


def test_each_command_is_a_submission_of_its_own_unless_it_names_one(
    client: BonsaiClient,
    bonsai: Bonsai,
    command: tuple[str, ...],
    body: dict[str, Any],
    tmp_path: Path,
) -> None:
    assert len({bonsai(*command).stdout for _ in range(2)}) == 2
    named = (*command, "--idempotency-key", "nightly-2026-12-01")
    assert len({bonsai(*named).stdout for _ in range(2)}) == 1
    assert len(list(client.jobs())) == 3
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({"jobs": [body]}))
    batch = ("batch", "submit", str(file), "--idempotency-key", "nightly-2026-12-01")
    assert len({bonsai(*batch).stdout for _ in range(2)}) == 1
    assert len(list(client.jobs())) == 4


def test_a_name_that_belongs_to_another_request_is_refused(
    bonsai: Bonsai, command: tuple[str, ...]
) -> None:
    named = (*command, "--idempotency-key", "nightly-2026-12-01")
    job_id = bonsai(*named).stdout.strip()
    result = bonsai(*named, "--seed", "1")
    assert result.exit_code == 1
    assert job_id in result.stderr
    assert "new key" in result.stderr


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "café", "x" * 256])
def test_a_name_that_no_header_holds_is_refused(
    client: BonsaiClient, body: dict[str, Any], key: str
) -> None:
    with pytest.raises(ClientError, match="1 to 255 visible ASCII characters"):
        client.submit(body, idempotency_key=key)
    assert list(client.jobs()) == []


@dataclass
class Away:
    """A service that is away: what it answers instead, and the keys that it has heard."""

    status: int = 503
    retry_after: str | None = None
    keys: list[str] = field(default_factory=list)


@pytest.fixture
def away() -> Away:
    return Away()


@pytest.fixture
def caller(away: Away) -> Iterator[BonsaiClient]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            away.keys.append(self.headers["Idempotency-Key"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(away.status)
            if away.retry_after is not None:
                self.send_header("Retry-After", away.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with BonsaiClient(f"http://127.0.0.1:{server.server_port}") as client:
        yield client
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_service_that_stays_away_is_asked_some_times_with_one_key(
    caller: BonsaiClient, away: Away, status: int
) -> None:
    away.status = status
    for number in (1, 2):
        with pytest.raises(ServiceError, match=str(status)):
            caller.submit({})
        assert (len(away.keys), len(set(away.keys))) == (number * TRIES, number)


@pytest.mark.parametrize("status", [400, 409, 422, 500])
def test_an_answer_that_would_stay_the_same_is_not_asked_for_again(
    caller: BonsaiClient, away: Away, status: int
) -> None:
    away.status = status
    with pytest.raises(ServiceError):
        caller.submit({})
    assert len(away.keys) == 1


@pytest.mark.parametrize(
    ("said", "waited"),
    [("7", 7), ("0", 0.001), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.001), (None, 0.001)],
)
def test_a_service_that_says_when_is_asked_then(
    caller: BonsaiClient,
    away: Away,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    said: str | None,
    waited: float,
) -> None:
    away.retry_after = said
    pauses: list[float] = []
    monkeypatch.setattr("client.sender.time.sleep", pauses.append)
    with pytest.raises(ServiceError):
        caller.submit({})
    assert pauses[0] == waited
    assert caplog.messages[0] == f"{caller.base_url} is away, trying again in {waited:g} s"


def test_a_service_that_is_away_for_long_is_not_waited_for(
    caller: BonsaiClient, away: Away
) -> None:
    away.retry_after = "3600"
    with pytest.raises(ServiceError):
        caller.submit({})
    assert len(away.keys) == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://", "no address"])
def test_an_address_without_a_service_is_given_up(address: str) -> None:
    with pytest.raises(UnreachableServiceError), BonsaiClient(address) as client:
        client.submit({})
