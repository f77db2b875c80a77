"""Whether the process lives, whether it takes jobs, and what does not work meanwhile."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from api.app import create_app
from jobs.schema import REVISION
from jobs.settings import Settings
from jobs.workers import WorkerStore
from tests.api.problems import require_problem
from tests.devices import HOST, gpu
from tests.servers import Servers

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def workers(engine: Engine) -> WorkerStore:
    """One worker that is idle."""
    found = WorkerStore(engine)
    found.arrive("night-1", HOST, 60)
    return found


@pytest.fixture
def at_revision(engine: Engine) -> Iterator[Callable[[str], None]]:
    """Has the database say that it is at another revision."""

    def claim(revision: str) -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :r"), {"r": revision})

    yield claim
    claim(REVISION)


def degraded(client: TestClient) -> dict[str, str]:
    """What is wrong, by part; the service takes jobs all the same."""
    response = client.get("/readyz")
    assert response.status_code == 200, response.text
    content = response.json()
    found = {item["part"]: item["meaning"] for item in content["degraded"]}
    assert content["status"] == ("degraded" if found else "ready")
    return found


def test_the_process_lives_without_a_database(settings: Settings) -> None:
    with TestClient(create_app(settings.model_copy(update={"database_url": NOWHERE}))) as client:
        assert client.get("/healthz").json() == {"status": "alive"}


def test_a_service_with_all_its_parts_is_ready(client: TestClient, workers: WorkerStore) -> None:
    assert client.get("/readyz").json() == {
        "status": "ready",
        "degraded": [],
        "broker": "up",
        "schema_revision": REVISION,
        "storage": "up",
        "workers": 1,
    }


def test_a_broker_that_is_away_is_told_and_jobs_are_taken(
    settings: Settings, workers: WorkerStore, body: dict[str, Any]
) -> None:
    deaf = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with TestClient(create_app(deaf)) as client:
        found = degraded(client)
        assert client.post("/v1/jobs", json=body).status_code == 201
    assert list(found) == ["broker"]
    assert "BONSAI_REDIS_URL" in found["broker"]


def test_a_store_that_takes_no_files_is_told(
    settings: Settings, workers: WorkerStore, body: dict[str, Any]
) -> None:
    settings.data_dir.write_bytes(b"a file where the folder should be")
    with TestClient(create_app(settings)) as client:
        found = degraded(client)
        assert client.get("/readyz").json()["storage"] == "down"
        assert client.post("/v1/jobs", json=body).status_code == 201
    assert list(found) == ["storage"]
    assert "BONSAI_DATA_DIR" in found["storage"]


def test_without_a_worker_that_can_work_jobs_wait(client: TestClient, engine: Engine) -> None:
    assert list(degraded(client)) == ["workers"]
    workers = WorkerStore(engine)
    workers.arrive("leaves", HOST, 60)
    workers.drain("leaves")
    assert "bonsai worker list" in degraded(client)["workers"]
    workers.arrive("works", gpu(80, 72), 60)
    assert degraded(client) == {}


@pytest.mark.parametrize("revision", ["0001", "0019"])
def test_an_older_database_takes_no_jobs(
    client: TestClient, at_revision: Callable[[str], None], revision: str
) -> None:
    at_revision(revision)
    problem = require_problem(client.get("/readyz"), 503, "schema_outdated")
    assert all(
        word in problem["detail"] for word in (revision, REVISION, "python -m migrations upgrade")
    )


def test_a_newer_database_is_told(
    client: TestClient, workers: WorkerStore, at_revision: Callable[[str], None]
) -> None:
    at_revision("9999")
    found = degraded(client)
    assert list(found) == ["schema"]
    assert "9999" in found["schema"]
    assert REVISION in found["schema"]


def test_a_database_without_tables_takes_no_jobs(settings: Settings, servers: Servers) -> None:
    bare = settings.model_copy(update={"database_url": servers.database_url})
    with TestClient(create_app(bare), raise_server_exceptions=False) as client:
        problem = require_problem(client.get("/readyz"), 503, "schema_outdated")
    assert "has no tables" in problem["detail"]


@pytest.mark.parametrize("path", ["/readyz", "/v1/jobs"])
def test_without_a_database_there_is_a_time_to_come_back(settings: Settings, path: str) -> None:
    with TestClient(create_app(settings.model_copy(update={"database_url": NOWHERE}))) as client:
        response = client.get(path)
    problem = require_problem(response, 503, "database_unreachable")
    assert int(response.headers["retry-after"]) > 0
    assert "127.0.0.1" not in problem["detail"]
