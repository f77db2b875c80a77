"""How often one caller may ask."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine

from api.app import create_app
from jobs.settings import Settings
from tests.api.conftest import ADMIN_KEY, bearer
from tests.api.problems import require_problem

ADMIN = bearer(ADMIN_KEY.reveal())


@pytest.fixture(autouse=True)
def nothing_counted(settings: Settings, engine: Engine) -> None:
    with Redis.from_url(settings.redis_url) as redis:
        redis.flushdb()


@contextmanager
def service(settings: Settings, **changes: Any) -> Iterator[TestClient]:
    limited = settings.model_copy(update={"requests_per_minute": 3, **changes})
    with TestClient(create_app(limited)) as client:
        yield client


def require_refusal(response: Any) -> None:
    problem = require_problem(response, 429, "too_many_requests")
    assert "3 requests a minute" in problem["detail"]
    assert 1 <= int(response.headers["retry-after"]) <= 60


def test_a_peer_without_a_key_is_counted_by_its_address(settings: Settings) -> None:
    with service(settings) as client:
        for _ in range(3):
            assert client.get("/v1/me").status_code == 200
        require_refusal(client.get("/v1/me"))
        require_refusal(client.post("/v1/jobs", json={}))
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_each_key_has_its_own_count_and_processes_count_together(settings: Settings) -> None:
    secured = {"admin_key": SecretStr(ADMIN_KEY.reveal())}
    with service(settings, **secured) as client, service(settings, **secured) as other:
        key = client.post("/v1/keys", json={"name": "me", "role": "viewer"}, headers=ADMIN).json()
        assert other.get("/v1/me", headers=ADMIN).status_code == 200
        assert client.get("/v1/me", headers=ADMIN).status_code == 200
        require_refusal(other.get("/v1/me", headers=ADMIN))
        assert other.get("/v1/me", headers=bearer(key["key"])).status_code == 200


def test_guesses_are_counted_by_where_they_come_from(settings: Settings) -> None:
    with service(settings, admin_key=SecretStr(ADMIN_KEY.reveal())) as client:
        for _ in range(3):
            require_problem(client.get("/v1/me"), 401, "not_authenticated")
        require_refusal(client.get("/v1/me"))
        assert client.get("/v1/me", headers=ADMIN).status_code == 200


def test_without_redis_nobody_is_kept_out(settings: Settings) -> None:
    with service(settings, redis_url="redis://127.0.0.1:1/0") as client:
        for _ in range(5):
            assert client.get("/v1/me").status_code == 200


def test_without_the_setting_nobody_is_counted(settings: Settings) -> None:
    with service(settings, requests_per_minute=None) as client:
        for _ in range(5):
            assert client.get("/v1/me").status_code == 200
    with Redis.from_url(settings.redis_url) as redis:
        assert redis.keys("LIMITS*") == []
