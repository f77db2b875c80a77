"""The application over real servers, and a client inside the process."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings


@pytest.fixture
def client(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    """Errors of the application come as responses, as they would to anybody."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def job(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    """A queued job, as it was answered."""
    response = client.post("/v1/jobs", json=body)
    assert response.status_code == 201, response.text
    return response.json()
