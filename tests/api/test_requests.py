"""What holds for every request: its id, its log line, who may ask, and how failures look."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from api.app import create_app
from api.body_limit import LARGEST_BODY
from api.loopback import is_local, is_local_name
from jobs.settings import Settings
from jobs.store import JobStore
from jobs.tokens import Token
from tests.api.problems import require_problem

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.mark.parametrize("offered", ["abc-123", "A.b_c", "x" * 128])
def test_a_sane_request_id_is_kept(client: TestClient, offered: str) -> None:
    response = client.get("/v1/jobs", headers={"X-Request-ID": offered})
    assert response.headers["x-request-id"] == offered


@pytest.mark.parametrize("offered", ["", "x" * 129, "two words", "line\x1fbreak", '{"a":1}'])
def test_any_other_request_id_is_replaced(client: TestClient, offered: str) -> None:
    response = client.get("/v1/jobs", headers={"X-Request-ID": offered})
    assert len(response.headers["x-request-id"]) == 32
    other = client.get("/v1/jobs", headers={"X-Request-ID": offered})
    assert other.headers["x-request-id"] != response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:8000", True),
        ("http://127.0.0.1:3000", True),
        ("https://evil.example", False),
        ("http://127.0.0.1.evil.example", False),
        ("null", False),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    client: TestClient, origin: str | None, allowed: bool
) -> None:
    """Browsers send a form or a plain text anywhere, unasked; but they say for whom."""
    headers = {} if origin is None else {"Origin": origin}
    for path, content in (("/v1/gc", b""), ("/v1/datasets", b"text")):
        sent = {"Content-Type": "text/plain", **headers}
        response = client.post(path, content=content, headers=sent)
        if allowed:
            assert response.status_code in {200, 201}
        else:
            require_problem(response, 403, "remote_peer")
    assert client.get("/v1/datasets", headers=headers).status_code == 200
    assert bool(client.get("/v1/datasets").json()["items"]) is allowed


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_without_end_is_not_read(client: TestClient, announced: bool) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(2 * LARGEST_BODY >> 20):
            yield b" " * (1 << 20)

    headers = {"Content-Type": "application/json"}
    if announced:
        headers["Content-Length"] = str(2 * LARGEST_BODY)
    response = client.post("/v1/jobs", content=pieces(), headers=headers)
    problem = require_problem(response, 413, "content_too_large")
    assert str(LARGEST_BODY) in problem["detail"]


def test_a_method_that_an_address_does_not_know_is_answered_with_those_it_knows(
    client: TestClient,
) -> None:
    for path, methods in (
        ("/v1/jobs", "GET, POST"),
        (f"/v1/webhooks/{UUID(int=1)}", "DELETE, GET"),
    ):
        response = client.put(path)
        require_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"].startswith(methods)


def test_an_unknown_address_is_a_problem(client: TestClient) -> None:
    require_problem(client.get("/v2/nothing"), 404, "not_found")
    require_problem(client.get("/v1/jobs/"), 404, "not_found")


def test_an_unknown_method_is_a_problem(client: TestClient) -> None:
    response = client.put("/v1/jobs")
    require_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"]


def test_a_fault_of_ours_is_a_problem_without_its_inside(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(store: JobStore, **_: object) -> None:
        raise RuntimeError("the secret inside")

    monkeypatch.setattr(JobStore, "list", broken)
    problem = require_problem(client.get("/v1/jobs"), 500, "internal_error")
    assert "secret" not in json.dumps(problem)


def test_each_request_writes_one_line(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings.model_copy(update={"log_level": "info"}))
    with TestClient(app) as client:
        client.get("/healthz?secret=1", headers={"X-Request-ID": "one"})
        client.get("/nothing", headers={"X-Request-ID": "two"})
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if "{" in line]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["request_id"], line["path"], line["status"]) for line in requests] == [
        ("one", "/healthz", 200),
        ("two", "/nothing", 404),
    ]
    assert requests[0]["method"] == "GET"
    assert requests[0]["seconds"] >= 0
    assert requests[0]["level"] == "info"


def test_a_peer_on_another_machine_is_refused(settings: Settings) -> None:
    with TestClient(create_app(settings), client=("192.0.2.7", 40000)) as client:
        for path in ("/v1/jobs", "/healthz", "/docs"):
            problem = require_problem(client.get(path), 403, "remote_peer")
            assert "192.0.2.7" in problem["detail"]
            assert "BONSAI_ALLOW_REMOTE" in problem["detail"]


def test_a_peer_on_another_machine_may_be_allowed(settings: Settings, engine: Engine) -> None:
    key = Token.generate().reveal()
    changes = {"allow_remote": True, "admin_key": SecretStr(key), "source_folders": ()}
    app = create_app(settings.model_copy(update=changes))
    with TestClient(app, client=("192.0.2.7", 40000)) as client:
        require_problem(client.get("/v1/jobs"), 401, "not_authenticated")
        headers = {"Authorization": f"Bearer {key}", "Host": "prune.example"}
        assert client.get("/v1/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        *((peer, True) for peer in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1", "", None)),
        *((peer, False) for peer in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0", "a.b")),
    ],
)
def test_local_peers_are_those_of_the_loopback(peer: str | None, expected: bool) -> None:
    assert is_local(peer) is expected


def test_jobs_are_taken_without_a_broker(settings: Settings, body: dict[str, Any]) -> None:
    deaf = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(deaf)) as client:
        response = client.post("/v1/jobs", json=body)
        assert response.status_code == 201
        assert client.get(response.headers["location"]).json()["state"] == "queued"


def test_the_application_is_light() -> None:
    program = (
        "import sys, api.app\n"
        "heavy = {'torch', 'transformers', 'worker', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("LOCALHOST", True),
        ("", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("10.0.0.7:8000", False),
        ("[bad", False),
    ],
)
def test_local_names_are_those_of_this_machine(host: str, expected: bool) -> None:
    assert is_local_name(host) == expected


def test_a_page_whose_name_was_made_to_point_here_is_refused(client: TestClient) -> None:
    answer = client.get("/v1/jobs", headers={"host": "evil.example"})
    problem = require_problem(answer, 403, "remote_peer")
    assert "evil.example" in problem["detail"]
