"""Downloading the files of a job, whole and in ranges, wherever they are kept."""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from jobs.artifacts import ArtifactStore
from jobs.settings import Settings
from jobs.store import JobStore
from tests.api.problems import require_problem
from tests.fake_worker import FakeWorker

WEIGHTS = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(WEIGHTS)
ETAG = f'"{DIGEST.hexdigest()}"'


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Files are kept in either place."""
    if request.param == "folder":
        return settings
    return settings.model_copy(update={"artifacts_url": request.getfixturevalue("s3_url")})


@pytest.fixture
def path(client: TestClient, job: dict[str, Any], worker: FakeWorker) -> str:
    """The path of a published file."""
    files = {"model.safetensors": WEIGHTS, "report.json": b"{}", "odd name#1.txt": b""}
    worker.succeed(worker.claim(), files)
    return f"{job['links']['artifacts']}/model.safetensors"


def test_files_are_listed_with_size_and_digest(
    client: TestClient, path: str, job: dict[str, Any]
) -> None:
    listed = client.get(job["links"]["artifacts"]).json()
    assert listed["next_cursor"] is None
    names = ["model.safetensors", "odd name#1.txt", "report.json"]
    assert sorted(item["name"] for item in listed["items"]) == names
    (model,) = [item for item in listed["items"] if item["name"] == "model.safetensors"]
    assert model == {
        "name": "model.safetensors",
        "size_bytes": len(WEIGHTS),
        "sha256": DIGEST.hexdigest(),
        "content_type": "application/octet-stream",
        "links": {"self": path, "link": f"{path}/link"},
    }
    assert listed["size_bytes"] == len(WEIGHTS) + 2
    here = job["links"]["artifacts"]
    assert listed["links"] == {"self": here, "archive": f"{job['links']['self']}/archive"}


def test_links_lead_to_the_files(client: TestClient, path: str, job: dict[str, Any]) -> None:
    del path
    for item in client.get(job["links"]["artifacts"]).json()["items"]:
        found = client.get(item["links"]["self"])
        assert hashlib.sha256(found.content).hexdigest() == item["sha256"]


def test_there_are_no_files_before_the_end(client: TestClient, job: dict[str, Any]) -> None:
    listed = client.get(job["links"]["artifacts"]).json()
    assert (listed["items"], listed["size_bytes"]) == ([], 0)


def test_a_whole_file_comes_with_its_digest(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.content == WEIGHTS
    assert response.headers["etag"] == ETAG
    digest = base64.b64encode(DIGEST.digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-length"] == str(len(WEIGHTS))
    assert response.headers["content-disposition"] == 'attachment; filename="model.safetensors"'
    assert response.headers["x-request-id"]
    odd = client.get(path.replace("model.safetensors", "odd%20name%231.txt"))
    assert (odd.status_code, odd.content) == (200, b"")
    assert odd.headers["content-disposition"] == "attachment; filename*=utf-8''odd%20name%231.txt"
    assert (
        client.get(path.replace("model.safetensors", "report.json"))
        .headers["content-type"]
        .startswith("application/json")
    )


def test_head_tells_the_size_and_sends_nothing(client: TestClient, path: str) -> None:
    response = client.head(path, headers={"Range": "bytes=0-9"})
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(WEIGHTS))
    assert response.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=100000-", 100_000, len(WEIGHTS)),
        ("bytes=-5", len(WEIGHTS) - 5, len(WEIGHTS)),
        ("bytes=0-", 0, len(WEIGHTS)),
        ("bytes=-99999999999", 0, len(WEIGHTS)),
        ("bytes=4000000-99999999999", 4_000_000, len(WEIGHTS)),
    ],
)
def test_a_range_is_sent_alone(
    client: TestClient, path: str, wanted: str, start: int, end: int
) -> None:
    response = client.get(path, headers={"Range": wanted, "If-Range": ETAG})
    assert response.status_code == 206
    assert response.content == WEIGHTS[start:end]
    assert response.headers["etag"] == ETAG
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{len(WEIGHTS)}"
    assert response.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("condition", ['"another"', f"W/{ETAG}", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_the_whole_file_is_sent_when_it_is_another_one(
    client: TestClient, path: str, condition: str
) -> None:
    response = client.get(path, headers={"Range": "bytes=5-", "If-Range": condition})
    assert response.status_code == 200
    assert response.content == WEIGHTS


def test_several_ranges_are_answered_with_the_whole(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Range": "bytes=0-4, 7-9"})
    assert (response.status_code, response.content) == (200, WEIGHTS)


@pytest.mark.parametrize("wanted", [f"bytes={len(WEIGHTS)}-", "bytes=-0", f"bytes={10**17}-"])
def test_a_range_outside_the_file_is_a_problem(client: TestClient, path: str, wanted: str) -> None:
    response = client.get(path, headers={"Range": wanted})
    require_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


@pytest.mark.parametrize(
    "wanted", ["lines=1-2", "bytes=", "bytes=-", "bytes=9-5", "bytes=a-b", "bytes=1" + "0" * 5000]
)
def test_a_range_that_cannot_be_read_is_a_problem(
    client: TestClient, path: str, wanted: str
) -> None:
    require_problem(client.get(path, headers={"Range": wanted}), 400, "malformed_request")


def test_an_unknown_name_is_answered_with_those_there_are(client: TestClient, path: str) -> None:
    response = client.get(path.replace("model.safetensors", "model.bin"))
    problem = require_problem(response, 404, "artifact_not_found")
    assert "model.safetensors, " in problem["detail"]


def test_a_file_that_was_lost_is_said_to_be_gone(
    client: TestClient, path: str, artifacts: ArtifactStore
) -> None:
    artifacts.delete("jobs")
    require_problem(client.get(path), 410, "artifact_gone")
    require_problem(client.get(f"{path}/link"), 410, "artifact_gone")


def test_a_file_that_was_cut_is_said_to_be_damaged(
    client: TestClient,
    path: str,
    artifacts: ArtifactStore,
    engine: Engine,
    job: dict[str, Any],
    tmp_path: Path,
) -> None:
    key = JobStore(engine).artifact(UUID(job["id"]), "model.safetensors").key
    cut = tmp_path / "cut"
    cut.write_bytes(WEIGHTS[:-1])
    artifacts.put(key, cut)
    problem = require_problem(client.get(path), 410, "artifact_gone")
    assert f"{len(WEIGHTS) - 1} of {len(WEIGHTS)} bytes" in problem["detail"]


def test_a_link_leads_to_the_file_or_is_refused_with_the_cure(
    client: TestClient, path: str, settings: Settings
) -> None:
    response = client.get(f"{path}/link", params={"seconds": 60})
    if settings.artifacts_url is None:
        problem = require_problem(response, 409, "no_links")
        assert path in problem["detail"]
        assert "BONSAI_ARTIFACTS_URL" in problem["detail"]
        return
    link = response.json()
    assert (link["size_bytes"], link["sha256"]) == (len(WEIGHTS), DIGEST.hexdigest())
    left = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(0) < left <= timedelta(seconds=60)
    got = httpx.get(link["url"], headers={"Range": "bytes=400-"}, trust_env=False)
    assert got.content == WEIGHTS[400:]


@pytest.mark.parametrize("seconds", [0, 604_801, "x"])
def test_a_link_is_good_for_a_week_at_most(
    client: TestClient, path: str, seconds: int | str
) -> None:
    response = client.get(f"{path}/link", params={"seconds": seconds})
    require_problem(response, 422, "invalid_request")
