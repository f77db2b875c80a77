"""Pins and collections over HTTP."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.problems import require_problem
from tests.fake_worker import FakeWorker


@pytest.fixture
def keeping_none(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    """A service that keeps nothing of what has ended, at once."""
    del engine
    hasty = settings.model_copy(update={"keep_per_owner": 0, "expiry_notice_hours": 0.0})
    with TestClient(create_app(hasty)) as client:
        yield client


@pytest.fixture
def done(keeping_none: TestClient, body: dict[str, Any], worker: FakeWorker) -> dict[str, Any]:
    links: dict[str, Any] = keeping_none.post("/v1/jobs", json=body).json()["links"]
    worker.succeed(worker.claim(), {"model.safetensors": b"weights"})
    return links


def test_what_is_not_kept_is_told_announced_and_removed(
    keeping_none: TestClient, done: dict[str, Any]
) -> None:
    file = f"{done['artifacts']}/model.safetensors"
    for _ in range(2):
        told = keeping_none.post("/v1/gc?dry_run=true").json()
        assert [(item["why"], item["is_due"]) for item in told["items"]] == [("count", False)]
        assert (told["size_bytes"], told["items"][0]["size_bytes"]) == (0, 7)
    keeping_none.post("/v1/gc")
    assert keeping_none.get(done["self"]).json()["expires_at"] is not None
    assert keeping_none.get(file).status_code == 200
    removed = keeping_none.post("/v1/gc").json()
    assert (removed["size_bytes"], removed["items"][0]["is_due"]) == (7, True)
    problem = require_problem(keeping_none.get(file), 410, "artifact_gone")
    assert "expired" in problem["detail"]
    job = keeping_none.get(done["self"]).json()
    assert (job["state"], job["expired_at"] is not None) == ("succeeded", True)
    assert keeping_none.post("/v1/gc").json() == {"items": [], "size_bytes": 0}


def test_a_pinned_job_stays(keeping_none: TestClient, done: dict[str, Any]) -> None:
    for _ in range(2):
        assert keeping_none.post(done["pin"]).json()["pinned"]
    assert keeping_none.post("/v1/gc").json()["items"] == []
    assert not keeping_none.post(done["unpin"]).json()["pinned"]
    assert len(keeping_none.post("/v1/gc").json()["items"]) == 1


def test_what_is_not_there_is_a_problem(client: TestClient) -> None:
    for name in ("pin", "unpin"):
        require_problem(client.post(f"/v1/jobs/{uuid4()}/{name}"), 404, "job_not_found")
