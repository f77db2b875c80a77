"""The application over real servers, and a client inside the process."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from jobs.tokens import Token


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


ADMIN_KEY = Token.generate()
"""Of the operator of `guarded`."""

Headers = dict[str, str]
Keyed = Callable[..., Headers]


def bearer(key: str) -> Headers:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def guarded(settings: Settings, engine: Engine) -> Iterator[TestClient]:
    """A service where keys are needed."""
    changes = {"admin_key": SecretStr(ADMIN_KEY.reveal())}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        yield client


@pytest.fixture
def keyed(guarded: TestClient) -> Keyed:
    """Makes a key; the headers that it is sent with."""

    def make(role: str, owner: str = "default", **more: Any) -> Headers:
        said = {"name": f"{role} of {owner}", "role": role, "owner": owner, **more}
        response = guarded.post("/v1/keys", json=said, headers=bearer(ADMIN_KEY.reveal()))
        assert response.status_code == 201, response.text
        return bearer(response.json()["key"])

    return make


@pytest.fixture
def admin() -> Headers:
    return bearer(ADMIN_KEY.reveal())
