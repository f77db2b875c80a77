"""Keys in the client and on the command line, against a service that needs them."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from api.app import create_app
from client import BonsaiClient, ClientError, Problem, ServiceError
from client.cli import app
from jobs.settings import Settings
from jobs.tokens import Token
from tests.served import served

Bonsai = Callable[..., Result]
ADMIN_KEY = Token.generate().reveal()


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    with served(create_app(settings.model_copy(update={"admin_key": SecretStr(ADMIN_KEY)}))) as url:
        yield url


@pytest.fixture
def admin(url: str) -> Iterator[BonsaiClient]:
    with BonsaiClient(url, api_key=ADMIN_KEY) as client:
        yield client


@pytest.fixture
def bonsai(url: str) -> Bonsai:
    """Runs the command with some arguments, as the holder of a key."""

    def run(*arguments: str, key: str = ADMIN_KEY) -> Result:
        environment = {"BONSAI_URL": url, "BONSAI_API_KEY": key, "COLUMNS": "200"}
        return CliRunner(env=environment).invoke(app, arguments)

    return run


def test_a_key_lives_and_ends(url: str, admin: BonsaiClient, body: dict[str, Any]) -> None:
    expiry = datetime.now(UTC) + timedelta(days=1)
    made = admin.create_key("ci", "submitter", owner="search", expires_at=expiry)
    assert made.key not in repr(made)
    assert made.expires_at is not None
    assert abs(made.expires_at - expiry) < timedelta(seconds=1)
    with BonsaiClient(url, api_key=made.key) as client:
        me = client.me()
        assert (me.key_id, me.owner, me.role, me.sees_all_owners) == (
            made.id,
            "search",
            "submitter",
            False,
        )
        assert client.submit(body).owner == "search"
        rotated = admin.rotate_key(made.id, grace_seconds=0)
        with pytest.raises(ServiceError) as refusal:
            client.me()
        assert refusal.value.problem.code == "not_authenticated"
    (listed,) = admin.keys()
    assert listed.id == made.id
    assert rotated.key != made.key
    assert admin.revoke_key(made.id).live is False
    assert admin.key(made.id).revoked_at is not None
    assert [event.action for event in admin.audit()] == [
        "revoke_key",
        "rotate_key",
        "submit",
        "create_key",
    ]


def test_a_missing_key_is_explained(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BONSAI_API_KEY", raising=False)
    with BonsaiClient(url) as client, pytest.raises(ServiceError, match="BONSAI_API_KEY"):
        client.me()
    monkeypatch.setenv("BONSAI_API_KEY", ADMIN_KEY)
    with BonsaiClient(url) as client:
        assert client.me().role == "admin"


@pytest.mark.parametrize("key", ["two words", "line\r\nX-Evil: 1", "é", " "])
def test_what_cannot_be_a_key_is_refused_before_it_is_sent_and_not_repeated(key: str) -> None:
    with pytest.raises(ClientError, match="API key") as refusal:
        BonsaiClient("http://127.0.0.1:1", api_key=key)
    assert key.strip() == "" or key not in str(refusal.value)


def test_commands_make_list_rotate_and_revoke(bonsai: Bonsai, admin: BonsaiClient) -> None:
    made = bonsai("keys", "create", "ci", "--role", "viewer", "--owner", "search")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    token = Token.parse(key)
    assert token is not None
    assert token.id in made.stderr
    assert token.secret not in made.stderr
    listed = bonsai("keys", "list")
    assert all(word in listed.stdout for word in (token.id, "ci", "search", "viewer", "live"))
    assert token.secret not in listed.output
    assert json.loads(bonsai("keys", "list", "--json").stdout)[0]["id"] == token.id
    whoami = bonsai("whoami", key=key).stdout
    assert f"viewer of search, key {token.id} (ci), sees its own jobs" in whoami
    rotated = bonsai("keys", "rotate", token.id, "--grace-hours", "0", "--json")
    assert bonsai("whoami", key=json.loads(rotated.stdout)["key"]).exit_code == 0
    refused = bonsai("whoami", key=key)
    assert refused.exit_code == 1
    assert "BONSAI_API_KEY" in refused.stderr
    assert token.secret not in refused.output
    assert bonsai("keys", "revoke", token.id).exit_code == 0
    assert "revoked" in bonsai("keys", "list").stdout
    assert not admin.key(token.id).live


def test_a_key_may_lie_in_a_file_but_not_on_the_command_line(
    bonsai: Bonsai, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{ADMIN_KEY}\n")
    assert bonsai("--key-file", str(file), "whoami", key="").exit_code == 0
    missing = bonsai("--key-file", str(tmp_path / "none"), "whoami")
    assert missing.exit_code == 1
    assert "cannot be read" in missing.stderr
    assert bonsai("--api-key", ADMIN_KEY, "whoami").exit_code == 2
    assert bonsai("whoami", key="").exit_code == 1


def test_a_generated_key_needs_no_service_and_is_an_admins_where_it_is_set() -> None:
    result = CliRunner(env={"BONSAI_URL": "http://127.0.0.1:1"}).invoke(app, ["keys", "generate"])
    assert result.exit_code == 0
    assert Token.parse(result.stdout.strip()) is not None


def test_too_many_requests_are_waited_out(
    admin: BonsaiClient, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = admin.submit(body)
    admin.cancel(job.id)
    real, refusals = admin.job, iter(range(2))

    def busy_at_first(job_id: str, **wait: Any) -> Any:
        if next(refusals, None) is not None:
            problem = {"status": 429, "code": "too_many_requests", "detail": "later"}
            raise ServiceError(Problem.model_validate(problem), 1)
        return real(job_id, **wait)

    monkeypatch.setattr(admin, "job", busy_at_first)
    assert admin.wait(job.id).state == "cancelled"
