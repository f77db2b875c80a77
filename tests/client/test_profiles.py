"""Several services by name: each key goes to its own address, and is never shown."""

import json
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from api.app import create_app
from client import ClientError
from client.cli import app
from client.profiles import Profile, Profiles, masked, read_profiles, write_profiles
from jobs.settings import Settings
from jobs.tokens import Token
from tests.served import served

Bonsai = Callable[..., Result]
KEY = Token.generate().reveal()
OTHER_KEY = Token.generate().reveal()
NOBODY = "http://127.0.0.1:1"


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    with served(create_app(settings.model_copy(update={"admin_key": SecretStr(KEY)}))) as url:
        yield url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bonsai" / "profiles.toml"


@pytest.fixture
def bonsai(tmp_path: Path) -> Bonsai:
    """Runs the command with some arguments, variables and text typed."""

    def run(*arguments: str, typed: str | None = None, **environment: str) -> Result:
        nothing = dict.fromkeys(
            ("BONSAI_URL", "BONSAI_API_KEY", "BONSAI_KEY_FILE", "BONSAI_PROFILE")
        )
        settings = {**nothing, "XDG_CONFIG_HOME": str(tmp_path), **environment}
        return CliRunner(env=settings).invoke(app, arguments, input=typed)

    return run


def test_profiles_are_added_listed_used_and_removed(bonsai: Bonsai, file: Path) -> None:
    assert bonsai("profile", "list").stdout.strip() == "no profiles"
    added = bonsai("profile", "add", "lab", "--url", "http://lab:8000/", typed=f"{KEY}\n")
    assert added.exit_code == 0, added.output
    bonsai("profile", "add", "prod", "--url", NOBODY, "--key-stdin", typed=f"{OTHER_KEY}\n")
    bonsai("profile", "add", "open", "--url", NOBODY, typed="\n")
    assert tomllib.loads(file.read_text()) == {
        "use": "lab",
        "profiles": {
            "lab": {"url": "http://lab:8000", "key": KEY},
            "prod": {"url": NOBODY, "key": OTHER_KEY},
            "open": {"url": NOBODY},
        },
    }
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert bonsai("profile", "use", "prod").exit_code == 0
    listed = json.loads(bonsai("profile", "list", "--json").stdout)
    assert [(each["name"], each["in_use"]) for each in listed] == [
        ("lab", False),
        ("prod", True),
        ("open", False),
    ]
    assert bonsai("profile", "remove", "prod").exit_code == 0
    kept = read_profiles(file)
    assert (list(kept.by_name), kept.in_use) == (["lab", "open"], None)
    missing = bonsai("profile", "use", "prod")
    assert missing.exit_code == 1
    assert "there are: lab, open" in missing.stderr


def test_no_key_is_ever_shown(bonsai: Bonsai) -> None:
    said = [
        bonsai("profile", "add", "lab", "--url", NOBODY, typed=f"{KEY}\n"),
        bonsai("profile", "add", "ci", "--url", NOBODY, "--key-stdin", typed=KEY),
        bonsai("profile", "list"),
        bonsai("profile", "list", "--json"),
        bonsai("status"),
        bonsai("profile", "add", "bad", "--url", NOBODY, "--key-stdin", typed=f"{KEY} {KEY}"),
    ]
    token = Token.parse(KEY)
    assert token is not None
    assert all(token.secret not in each.output for each in said)
    assert f"bonsai_{token.id}_****" in said[2].stdout
    assert said[-1].exit_code == 1
    assert bonsai("profile", "add", "lab", "--url", NOBODY, "--key", KEY).exit_code == 2
    assert (masked("hunter2"), masked("bonsai_secret_x"), masked(None)) == ("****", "****", "")
    assert KEY not in repr(Profile("lab", NOBODY, KEY))


def test_a_profile_says_where_the_service_is_and_which_key_it_takes(
    bonsai: Bonsai, url: str
) -> None:
    bonsai("profile", "add", "lab", "--url", url, "--key-stdin", typed=KEY)
    bonsai("profile", "add", "away", "--url", NOBODY, "--key-stdin", typed=OTHER_KEY)
    assert "admin" in bonsai("whoami").stdout
    assert NOBODY in bonsai("--profile", "away", "whoami").stderr
    assert NOBODY in bonsai("whoami", BONSAI_PROFILE="away").stderr
    assert "admin" in bonsai("--profile", "lab", "whoami", BONSAI_PROFILE="away").stdout
    assert "no profile 'lba'" in bonsai("--profile", "lba", "whoami").stderr


def test_options_come_before_the_environment_and_that_before_profiles(
    bonsai: Bonsai, url: str, tmp_path: Path
) -> None:
    bonsai("profile", "add", "lab", "--url", url, "--key-stdin", typed=KEY)
    assert NOBODY in bonsai("whoami", BONSAI_URL=NOBODY).stderr
    assert NOBODY in bonsai("whoami", BONSAI_URL=NOBODY, BONSAI_PROFILE="lab").stderr
    refused = bonsai("whoami", BONSAI_API_KEY=OTHER_KEY)
    assert refused.exit_code == 1
    wished = bonsai("--profile", "lab", "whoami", BONSAI_URL=NOBODY, BONSAI_API_KEY=OTHER_KEY)
    assert "admin" in wished.stdout
    other = tmp_path / "other"
    other.write_text(OTHER_KEY)
    assert bonsai("--key-file", str(other), "--profile", "lab", "whoami").exit_code == 1
    kept = bonsai("--profile", "lab", "whoami", BONSAI_KEY_FILE=str(other))
    assert "admin" in kept.stdout
    assert bonsai("whoami", BONSAI_KEY_FILE=str(other)).exit_code == 1
    both = bonsai("--url", url, "--profile", "lab", "whoami")
    assert both.exit_code == 2


def test_a_key_goes_to_the_address_of_its_own_profile_only(bonsai: Bonsai, url: str) -> None:
    bonsai("profile", "add", "elsewhere", "--url", NOBODY, "--key-stdin", typed=KEY)
    for refused in (bonsai("--url", url, "whoami"), bonsai("whoami", BONSAI_URL=url)):
        assert refused.exit_code == 1
        assert "BONSAI_API_KEY" in refused.stderr


def test_a_file_that_others_may_read_is_told_of(bonsai: Bonsai, url: str, file: Path) -> None:
    bonsai("profile", "add", "lab", "--url", url, "--key-stdin", typed=KEY)
    assert bonsai("whoami").stderr == ""
    file.chmod(0o644)
    assert "chmod 600" in bonsai("whoami").stderr
    assert "chmod 600" in bonsai("profile", "list").stderr
    bonsai("profile", "use", "lab")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", ["use = ", "profiles = 1", "[profiles.lab]\n", "[profiles]\nlab = 3", "x = 1"]
)
def test_a_file_that_holds_no_profiles_is_explained(
    bonsai: Bonsai, file: Path, content: str
) -> None:
    file.parent.mkdir()
    file.write_text(content)
    result = bonsai("whoami")
    assert result.exit_code == 1
    assert str(file) in result.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [("", NOBODY), ("two words", NOBODY), ('"]', NOBODY), ("lab", "lab:8000"), ("lab", "http://")],
)
def test_what_is_no_profile_is_refused(name: str, url: str) -> None:
    with pytest.raises(ClientError, match=r"name|url"):
        Profile(name, url)


def test_what_is_written_is_read_again(file: Path) -> None:
    odd = Profile("odd", "http://127.0.0.1:8000/a?b=\"c\\d'", 'k"e\\y#=[')
    write_profiles(Profiles({"odd": odd}, "odd"), file)
    assert read_profiles(file) == Profiles({"odd": odd}, "odd")
    write_profiles(Profiles(), file)
    assert read_profiles(file) == Profiles()
