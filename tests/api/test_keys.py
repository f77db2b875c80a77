"""Keys over HTTP: when they are needed, what they look like, how they end."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import Engine

from api.access import PUBLIC
from api.app import create_app
from api.safety import UnsafeSettingsError
from jobs.keys import KeyRequest, KeyStore
from jobs.roles import Role
from jobs.settings import Settings
from jobs.tokens import Token
from tests.api.conftest import ADMIN_KEY, Headers, Keyed, bearer
from tests.api.problems import only_error, require_problem

FIRST = {"name": "me", "role": "admin"}
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


def remote(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update={"allow_remote": True, "source_folders": (), **changes})


def test_without_any_key_this_machine_may_do_everything(client: TestClient) -> None:
    me = client.get("/v1/me").json()
    assert me == {
        "key_id": None,
        "key_name": None,
        "owner": "default",
        "role": "admin",
        "sees_all_owners": True,
    }
    assert client.get("/v1/keys").json() == {"items": [], "next_cursor": None}
    # Somebody who has a key of another service is let in too.
    assert client.get("/v1/me", headers=bearer(ADMIN_KEY.reveal())).status_code == 200


def test_the_first_key_closes_the_door(client: TestClient) -> None:
    made = client.post("/v1/keys", json=FIRST)
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    problem = require_problem(client.get("/v1/jobs"), 401, "not_authenticated")
    assert "bonsai keys create" in problem["detail"]
    headers = bearer(made.json()["key"])
    me = client.get("/v1/me", headers=headers).json()
    assert (me["key_id"], me["key_name"], me["role"]) == (made.json()["id"], "me", "admin")
    assert client.get(made.headers["location"], headers=headers).json()["created_by"] is None
    # It stays closed when the last key has ended: whoever comes next is not the admin.
    client.post(f"/v1/keys/{me['key_id']}/revoke", headers=headers)
    require_problem(client.get("/v1/jobs"), 401, "not_authenticated")


def test_the_first_key_must_not_lock_everybody_out(client: TestClient) -> None:
    response = client.post("/v1/keys", json={"name": "ci", "role": "submitter"})
    problem = require_problem(response, 422, "first_key_not_admin")
    assert only_error(problem)["pointer"] == "/role"
    assert client.get("/v1/keys").json()["items"] == []


def test_only_health_and_documentation_need_no_key(guarded: TestClient) -> None:
    for path in PUBLIC:
        assert guarded.get(path).status_code == 200, path
    for path in ("/v1/jobs", "/v1/nothing", "/healthz/", "/"):
        response = guarded.get(path)
        require_problem(response, 401, "not_authenticated")
        assert response.headers["www-authenticate"] == "Bearer"
    # Not even a body is read before.
    response = guarded.post("/v1/jobs", content=b"{", headers={"content-type": "application/json"})
    require_problem(response, 401, "not_authenticated")


@pytest.mark.parametrize(
    ("scheme", "secret", "said"),
    [
        ("Basic", "dXNlcjpwYXNz", "a key is needed"),
        ("Bearer", "", "a key is needed"),
        ("Bearer", "hunter2", "checksum"),
        ("Bearer", ADMIN_KEY.reveal()[:-1], "checksum"),
        ("Bearer", ADMIN_KEY.reveal().swapcase(), "checksum"),
        ("Bearer", Token.generate().reveal(), "not known here"),
        ("Bearer", Token.generate(ADMIN_KEY.id).reveal(), "not the secret"),
    ],
    # Not the keys themselves, which are others in each process of a run.
    ids=["scheme", "nothing", "word", "cut", "mistyped", "unknown", "secret"],
)
def test_what_is_no_key_of_ours_opens_nothing_and_is_not_repeated(
    guarded: TestClient, scheme: str, secret: str, said: str
) -> None:
    response = guarded.get("/v1/jobs", headers={"Authorization": f"{scheme} {secret}".strip()})
    problem = require_problem(response, 401, "not_authenticated")
    assert said in problem["detail"]
    assert not secret or secret not in json.dumps(problem)


def test_a_key_is_shown_once_and_stored_as_a_digest(
    guarded: TestClient, admin: Headers, engine: Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    made = guarded.post("/v1/keys", json={**FIRST, "owner": "search"}, headers=admin).json()
    token = Token.parse(made["key"])
    assert token is not None
    assert token.id == made["id"]
    seen = json.dumps(
        [guarded.get(path, headers=admin).json() for path in ("/v1/keys", "/v1/audit")]
    )
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT keys::text FROM keys").scalars().all()
        rows += connection.exec_driver_sql("SELECT audit_events::text FROM audit_events").scalars()
    for place in (seen, "".join(rows), "".join(capfd.readouterr())):
        assert token.secret not in place
    assert token.sha256 in "".join(rows)
    assert guarded.get(f"/v1/keys/{token.id}", headers=admin).json()["created_by"] == ADMIN_KEY.id


def test_a_rotated_key_has_two_secrets_for_a_while(
    guarded: TestClient, admin: Headers, keyed: Keyed
) -> None:
    old = keyed("viewer")
    key_id = guarded.get("/v1/me", headers=old).json()["key_id"]
    answer = guarded.post(f"/v1/keys/{key_id}/rotate", headers=admin)
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    left = datetime.fromisoformat(made["previous_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left < timedelta(hours=25)
    for headers in (old, bearer(made["key"])):
        assert guarded.get("/v1/me", headers=headers).json()["key_id"] == key_id
    again = guarded.post(f"/v1/keys/{key_id}/rotate", json={"grace_seconds": 0}, headers=admin)
    assert again.json()["previous_expires_at"] is None
    for headers in (old, bearer(made["key"])):
        require_problem(guarded.get("/v1/me", headers=headers), 401, "not_authenticated")
    assert guarded.get("/v1/me", headers=bearer(again.json()["key"])).status_code == 200


def test_a_revoked_key_ends_at_once_and_cannot_be_rotated(
    guarded: TestClient, admin: Headers, keyed: Keyed
) -> None:
    headers = keyed("admin")
    key_id = guarded.get("/v1/me", headers=headers).json()["key_id"]
    answers = [guarded.post(f"/v1/keys/{key_id}/revoke", headers=admin).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["live"] is False
    problem = require_problem(guarded.get("/v1/me", headers=headers), 401, "not_authenticated")
    assert "revoked" in problem["detail"]
    refused = guarded.post(f"/v1/keys/{key_id}/rotate", headers=admin)
    require_problem(refused, 409, "key_ended")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"role": "admin"}, "/name"),
        ({"name": "", "role": "admin"}, "/name"),
        ({"name": "a\0b", "role": "admin"}, "/name"),
        ({"name": "me", "role": "root"}, "/role"),
        ({**FIRST, "owner": "two words"}, "/owner"),
        ({**FIRST, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({**FIRST, "expires_at": "2099-01-01T00:00:00"}, "/expires_at"),
        ({**FIRST, "scope": "all"}, "/scope"),
    ],
)
def test_a_bad_key_is_refused_by_its_field(
    guarded: TestClient, admin: Headers, body: dict[str, Any], pointer: str
) -> None:
    response = guarded.post("/v1/keys", json=body, headers=admin)
    assert response.status_code == 422
    error = only_error(response.json())
    assert error["pointer"] == pointer
    if pointer == "/role":
        assert "submitter" in error["allowed"]


def test_an_unknown_key_is_a_problem(guarded: TestClient, admin: Headers) -> None:
    for method, path in (("GET", ""), ("POST", "/rotate"), ("POST", "/revoke")):
        response = guarded.request(method, f"/v1/keys/nothing{path}", headers=admin)
        require_problem(response, 404, "key_not_found")
        response = guarded.request(method, f"/v1/keys/a%00b{path}", headers=admin)
        require_problem(response, 422, "invalid_request")


@pytest.mark.parametrize("grace", [-1, 10**9, "soon"])
def test_a_grace_out_of_range_is_refused(guarded: TestClient, admin: Headers, grace: Any) -> None:
    response = guarded.post("/v1/keys/nothing/rotate", json={"grace_seconds": grace}, headers=admin)
    assert only_error(require_problem(response, 422, "invalid_request"))["pointer"] == (
        "/grace_seconds"
    )


def test_other_machines_are_served_only_where_there_is_a_key(
    settings: Settings, engine: Engine
) -> None:
    with pytest.raises(UnsafeSettingsError, match="BONSAI_ADMIN_KEY"):
        TestClient(create_app(remote(settings))).__enter__()
    KeyStore(engine).create(KeyRequest(name="me", role=Role.ADMIN))
    with TestClient(create_app(remote(settings))) as client:
        require_problem(client.get("/v1/jobs"), 401, "not_authenticated")


def test_other_machines_are_served_only_where_folders_are_named(settings: Settings) -> None:
    with pytest.raises(UnsafeSettingsError, match="BONSAI_SOURCE_FOLDERS"):
        create_app(remote(settings, source_folders=None))


def test_a_service_that_cannot_ask_for_keys_starts_and_lets_only_the_admin_in(
    settings: Settings,
) -> None:
    with TestClient(create_app(remote(settings, database_url=NOWHERE))) as client:
        assert client.get("/healthz").status_code == 200
        key = bearer(Token.generate().reveal())
        require_problem(client.get("/v1/me"), 401, "not_authenticated")
        require_problem(client.get("/v1/me", headers=key), 503, "database_unreachable")
    secret = SecretStr(ADMIN_KEY.reveal())
    with TestClient(create_app(remote(settings, database_url=NOWHERE, admin_key=secret))) as client:
        assert client.get("/v1/me", headers=bearer(ADMIN_KEY.reveal())).status_code == 200


def test_a_mistyped_admin_key_is_refused_at_the_start_and_not_repeated(settings: Settings) -> None:
    mistyped = ADMIN_KEY.reveal()[:-1]
    wrong = settings.model_copy(update={"admin_key": SecretStr(mistyped)})
    with pytest.raises(Exception, match="BONSAI_ADMIN_KEY is not a whole key") as refusal:
        TestClient(create_app(wrong)).__enter__()
    assert mistyped not in str(refusal.value)
    assert mistyped not in repr(wrong)
