"""Downloading the files of a job, whole and in ranges."""

import base64
import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient

from jobs.artifacts import LocalArtifactStore
from tests.api.problems import require_problem
from tests.fake_worker import FakeWorker

WEIGHTS = bytes(range(256)) * 400
DIGEST = hashlib.sha256(WEIGHTS)
ETAG = f'"{DIGEST.hexdigest()}"'


@pytest.fixture
def path(client: TestClient, job: dict[str, Any], worker: FakeWorker) -> str:
    """The path of a published file."""
    worker.succeed(worker.claim(), {"model.safetensors": WEIGHTS, "report.json": b"{}"})
    return f"{job['links']['artifacts']}/model.safetensors"


def test_files_are_listed_with_size_and_digest(
    client: TestClient, path: str, job: dict[str, Any]
) -> None:
    listed = client.get(job["links"]["artifacts"]).json()
    assert listed["next_cursor"] is None
    assert [item["name"] for item in listed["items"]] == ["model.safetensors", "report.json"]
    assert listed["items"][0] == {
        "name": "model.safetensors",
        "size_bytes": len(WEIGHTS),
        "sha256": DIGEST.hexdigest(),
        "content_type": "application/octet-stream",
        "links": {"self": path},
    }


def test_there_are_no_files_before_the_end(client: TestClient, job: dict[str, Any]) -> None:
    assert client.get(job["links"]["artifacts"]).json() == {"items": [], "next_cursor": None}


def test_a_whole_file_comes_with_its_digest(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.content == WEIGHTS
    assert response.headers["etag"] == ETAG
    digest = base64.b64encode(DIGEST.digest()).decode()
    assert response.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["x-request-id"]
    assert (
        client.get(path.replace("model.safetensors", "report.json"))
        .headers["content-type"]
        .startswith("application/json")
    )


def test_head_tells_the_size_and_sends_nothing(client: TestClient, path: str) -> None:
    response = client.head(path)
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-length"] == str(len(WEIGHTS))
    assert response.headers["etag"] == ETAG


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-9", WEIGHTS[:10]),
        ("bytes=100000-", WEIGHTS[100_000:]),
        ("bytes=-5", WEIGHTS[-5:]),
    ],
)
def test_a_range_is_sent_alone(client: TestClient, path: str, wanted: str, expected: bytes) -> None:
    response = client.get(path, headers={"Range": wanted, "If-Range": ETAG})
    assert response.status_code == 206
    assert response.content == expected
    assert response.headers["etag"] == ETAG
    assert response.headers["content-range"].endswith(f"/{len(WEIGHTS)}")


def test_the_whole_file_is_sent_when_it_is_another_one(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert response.status_code == 200
    assert response.content == WEIGHTS


def test_a_range_outside_the_file_is_a_problem(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Range": f"bytes={len(WEIGHTS)}-"})
    require_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"].endswith(f"*/{len(WEIGHTS)}")


def test_a_range_that_cannot_be_read_is_a_problem(client: TestClient, path: str) -> None:
    require_problem(client.get(path, headers={"Range": "lines=1-2"}), 400, "malformed_request")


def test_an_unknown_name_is_answered_with_those_there_are(client: TestClient, path: str) -> None:
    response = client.get(path.replace("model.safetensors", "model.bin"))
    problem = require_problem(response, 404, "artifact_not_found")
    assert "model.safetensors, report.json" in problem["detail"]


@pytest.mark.parametrize("name", ["..%2Freport.json", "%2E%2E%2F", "a%2Fb", "%00", "%2Fetc"])
def test_a_name_never_leaves_the_job(client: TestClient, path: str, name: str) -> None:
    assert client.get(path.replace("model.safetensors", name)).status_code == 404


def test_a_file_that_was_lost_is_said_to_be_gone(
    client: TestClient, path: str, artifacts: LocalArtifactStore
) -> None:
    artifacts.delete("jobs")
    require_problem(client.get(path), 410, "artifact_gone")
