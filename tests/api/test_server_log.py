"""What a server of the API writes: one JSON object a line, and one line for a request."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from jobs.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]


class Server:
    """uvicorn, started as the documents say, with no word about its logs."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory", "--port", "0"],
                env={
                    **os.environ,
                    "BONSAI_DATABASE_URL": settings.database_url,
                    "BONSAI_REDIS_URL": settings.redis_url,
                    "BONSAI_DATA_DIR": str(settings.data_dir),
                },
                cwd=PROJECT,
                stderr=stderr,
            )
        self.url = self._wait_until_it_runs()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def _wait_until_it_runs(self) -> str:
        end = time.monotonic() + 60
        while "running on" not in self._log.read_text():
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.05)
        (line,) = [line["event"] for line in self.lines() if "running on" in line["event"]]
        return next(word for word in line.split() if word.startswith("http://"))

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@pytest.fixture
def server(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Server]:
    server = Server(settings, tmp_path / "api.log")
    yield server
    server.stop()


def test_every_line_is_an_object_and_a_request_has_one(
    server: Server, body: dict[str, Any]
) -> None:
    headers = {"X-Request-ID": "from-a-test", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    made = httpx.post(f"{server.url}/v1/jobs", json=body, headers=headers)
    assert made.status_code == 201, made.text
    server.stop()
    lines = server.lines()
    assert all(line["process"] == "api" and line["timestamp"] for line in lines)
    of_request = [line for line in lines if line.get("request_id") == "from-a-test"]
    assert [line["event"] for line in of_request] == ["job_submitted", "request"]
    assert of_request[0]["job_id"] == made.json()["id"]
    assert {line["trace_id"] for line in of_request} == {"a" * 32}
    assert not [line for line in lines if "HTTP/1.1" in line["event"]]


def test_a_job_is_found_from_the_request_that_has_submitted_it(
    client: TestClient, body: dict[str, Any]
) -> None:
    job = client.post("/v1/jobs", json=body, headers={"X-Request-ID": "abc-1"}).json()
    client.post(f"{job['links']['cancel']}")
    again = client.post(job["links"]["retry"], headers={"X-Request-ID": "abc-2"}).json()
    for found, data in (
        (job, {"request_id": "abc-1"}),
        (again, {"request_id": "abc-2", "retry_of": job["id"]}),
    ):
        event = client.get(found["links"]["events"]).json()["items"][0]
        assert (event["type"], event["data"]) == ("submitted", data)


@pytest.mark.parametrize(
    "caller", ["nonsense", "00-" + "z" * 32 + "-" + "b" * 16 + "-01", "a" * 500]
)
def test_a_trace_that_is_none_is_not_kept(
    client: TestClient, engine: Engine, body: dict[str, Any], caller: str
) -> None:
    made = client.post("/v1/jobs", json=body, headers={"traceparent": caller})
    assert made.status_code == 201
    with engine.connect() as connection:
        kept = connection.exec_driver_sql("SELECT traceparent FROM jobs").scalar_one()
    assert kept is None
