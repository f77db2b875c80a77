"""Names that want out of their job, over a real socket, as they are written."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.store import JobStore
from tests.client.conftest import url
from tests.fake_worker import FakeWorker

__all__ = ["url"]

HOSTILE = (
    "..",
    "%2e%2e",
    "..%2Freport.json",
    "..%2F..%2F..%2Fetc%2Fpasswd",
    "../../../../etc/passwd",
    "%2e%2e%2f",
    "%2Fetc%2Fpasswd",
    "/etc/passwd",
    "model%2F",
    "%252e%252e%252fetc",
    "..%5C..%5Cetc",
    "C:%5Cboot.ini",
    "file:%5C%5Cetc",
    "%00",
    "model%00.json",
    "%EF%BC%8E%EF%BC%8E%EF%BC%8Fetc",
    "m%D0%BEdel",
    "%FF%FE",
    "%C0%AE%C0%AE",
    "a" * 5000,
    "model.",
    "MODEL",
    "model%20",
)


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "folder":
        return settings
    return settings.model_copy(update={"artifacts_url": request.getfixturevalue("s3_url_through")})


def ask(url: str, path: str) -> tuple[http.client.HTTPResponse, Any]:
    """The answer to a path that nobody has tidied up."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.endheaders()
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, json.loads(content)


def test_a_hostile_name_gets_its_problem_and_no_file_is_looked_for(
    url: str,
    engine: Engine,
    body: dict[str, Any],
    worker: FakeWorker,
    settings: Settings,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = JobStore(engine).submit(JobRequest.model_validate(body))
    worker.succeed(worker.claim(), {"model": b"weights", "report.json": b"{}"})
    opened: list[Path] = []
    if settings.artifacts_url:
        asked = request.getfixturevalue("gateway").asked
    else:
        asked = opened
        real = Path.is_file

        def watched(path: Path) -> bool:
            opened.append(path)
            return real(path)

        monkeypatch.setattr(Path, "is_file", watched)
    before = len(asked)
    for name in HOSTILE:
        for rest in ("", "/link"):
            response, problem = ask(url, f"/v1/jobs/{job.id}/artifacts/{name}{rest}")
            assert (response.status, problem["code"]) == (404, "artifact_not_found"), name
            assert response.getheader("X-Injected") is None
    assert len(asked) == before
    # The watch does see what is looked for.
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    connection.request("GET", f"/v1/jobs/{job.id}/artifacts/model")
    assert connection.getresponse().read() == b"weights"
    connection.close()
    assert len(asked) > before
