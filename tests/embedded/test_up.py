"""`bonsai up` as one process tree: what it starts and restarts, and that nothing survives it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from client.embedded.processes import processes_in
from client.embedded.valkey import PROGRAM_NAMES
from tests.embedded.helpers import (
    REPOSITORY,
    connect,
    read_rows,
    server_processes,
    wait_for,
    write_row,
)

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="looks at /proc, and elsewhere kill -9 leaves orphans"
)

START = """
import sys
from pathlib import Path
from client.up import run_up
sys.exit(run_up(Path(sys.argv[1]), port=int(sys.argv[2]), workers=1, device="cpu"))
"""
WORKER = "-m\0worker\0"  # in a command line, between whose words are zeros
SERVER_URLS = ("BONSAI_DATABASE_URL", "BONSAI_REDIS_URL")


@dataclass(frozen=True, slots=True)
class Up:
    """A tree that was started by a test."""

    process: "subprocess.Popen[str]"
    data: Path
    port: int
    output: Path

    @property
    def text(self) -> str:
        return self.output.read_text()

    def answers(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{self.port}/readyz"
            return httpx.get(url, timeout=2, trust_env=False).status_code == 200
        return False

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.text
            return "Bonsai is ready" in self.text

        wait_for(ready, 90, "ready")

    def children(self, word: str = "") -> list[int]:
        """Processes of ours in Python, known by the data folder in their environment."""
        mark = f"BONSAI_DATA_DIR={self.data}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    entry.name.isdigit()
                    and mark in (entry / "environ").read_bytes()
                    and word.encode() in (entry / "cmdline").read_bytes()
                ):
                    found.append(int(entry.name))
        return found

    def wait_gone(self, seconds: float = 10) -> None:
        wait_for(
            lambda: not self.children() and not server_processes(self.data), seconds, "all gone"
        )

    def database_url(self) -> str:
        """As a child of the tree was told."""
        environment = Path(f"/proc/{self.children('uvicorn')[0]}/environ").read_text()
        pairs = dict(part.partition("=")[::2] for part in environment.split("\0"))
        return pairs["BONSAI_DATABASE_URL"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def up(data: Path, environment: Mapping[str, str] | None = None) -> Iterator[Up]:
    port = free_port()
    output = data.with_name(f"output-{port}")
    inherited = {name: value for name, value in os.environ.items() if name not in SERVER_URLS}
    with output.open("w") as sink:
        process = subprocess.Popen(
            [sys.executable, "-c", START, data, str(port)],
            cwd=data.parent,
            env=inherited | {"PYTHONPATH": str(REPOSITORY)} | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        yield Up(process, data, port, output)
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_it_starts_serves_and_stops_in_order(data: Path) -> None:
    with up(data) as tree:
        tree.wait_ready()
        assert tree.answers()
        assert f"http://127.0.0.1:{tree.port}" in tree.text
        assert str(data / "logs") in tree.text
        for name in ("api", "worker-1", "migrations", "postgres", "valkey"):
            assert (data / "logs" / f"{name}.log").exists(), name
        for child in tree.children("uvicorn") + tree.children(WORKER):
            assert os.getsid(child) != os.getsid(tree.process.pid), "a Ctrl-C would reach it"
        write_row(tree.database_url(), 1)
        tree.process.send_signal(signal.SIGINT)
        assert tree.process.wait(60) == 0, tree.text
        tree.wait_gone(1)
    with up(data) as tree:
        tree.wait_ready()
        assert read_rows(tree.database_url()) == [1]
        tree.process.send_signal(signal.SIGTERM)
        assert tree.process.wait(60) == 0, tree.text
        tree.wait_gone(1)


def test_kill_9_leaves_nothing_running_and_loses_no_row(data: Path) -> None:
    with up(data) as tree:
        tree.wait_ready()
        write_row(tree.database_url(), 1)
        assert tree.children(WORKER)
        tree.process.kill()
        tree.process.wait()
        tree.wait_gone()
    with up(data) as tree:
        tree.wait_ready()
        assert read_rows(tree.database_url()) == [1]


def test_kill_9_while_it_starts_leaves_nothing_running(data: Path) -> None:
    for moment in ("postgres.new-*/global", "postgres/postmaster.pid", "logs/migrations.log"):
        with up(data) as tree:
            wait_for(lambda moment=moment: list(data.glob(moment)), 30, moment)
            tree.process.kill()
            tree.process.wait()
            tree.wait_gone()


def test_a_second_one_on_the_same_folder_is_refused(data: Path) -> None:
    with up(data) as first:
        first.wait_ready()
        with up(data) as second:
            assert second.process.wait(30) == 1
            assert f"in use by process {first.process.pid}" in second.text
            assert str(data) in second.text
        assert first.answers()


def test_a_worker_or_api_that_dies_is_started_again(data: Path) -> None:
    with up(data) as tree:
        tree.wait_ready()
        for word, name in ((WORKER, "worker-1"), ("uvicorn", "api")):
            victim = tree.children(word)[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda word=word, victim=victim: set(tree.children(word)) - {victim}, 20, word)
            assert f"{name} ended with exit code -9; it starts again in 1 s" in tree.text
        wait_for(tree.answers, 60, "the API answers again")


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_server_that_dies_ends_everything(data: Path, server: str) -> None:
    with up(data) as tree:
        tree.wait_ready()
        if server == "postgres":
            leader = int((data / "postgres" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(leader, signal.SIGQUIT)
        else:
            [process] = processes_in(data / "valkey", PROGRAM_NAMES)
            os.kill(process, signal.SIGTERM)
        assert tree.process.wait(90) == 1
        assert f"{server} ended with exit code" in tree.text
        assert "shut down" in tree.text or "ready to exit" in tree.text, "the tail of its log"
        tree.wait_gone(1)


def test_a_second_ctrl_c_kills_at_once(data: Path) -> None:
    with up(data) as tree:
        tree.wait_ready()
        for child in tree.children(WORKER):
            os.kill(child, signal.SIGSTOP)  # deaf to the first one
        tree.process.send_signal(signal.SIGINT)
        wait_for(lambda: "Stopping" in tree.text, 10, "the first is heard")
        time.sleep(0.5)
        assert tree.process.poll() is None
        tree.process.send_signal(signal.SIGINT)
        assert tree.process.wait(8) == 130
        tree.wait_gone(1)


def test_servers_named_in_the_environment_are_used(
    data: Path, database_url: str, redis_url: str
) -> None:
    urls = {"BONSAI_DATABASE_URL": database_url, "BONSAI_REDIS_URL": redis_url}
    with up(data, urls) as tree:
        tree.wait_ready()
        assert tree.answers()
        assert server_processes(data) == []
        assert not (data / "postgres").exists()
        tree.process.send_signal(signal.SIGINT)
        assert tree.process.wait(60) == 0, tree.text


def test_migrations_that_fail_stop_the_start(data: Path) -> None:
    """A schema newer than the program, as after going back to an older release."""
    with up(data) as tree:
        tree.wait_ready()
        with connect(tree.database_url()) as connection:
            connection.execute("UPDATE alembic_version SET version_num = 'from_the_future'")
        tree.process.send_signal(signal.SIGINT)
        assert tree.process.wait(60) == 0, tree.text
    with up(data) as tree:
        assert tree.process.wait(60) == 1
        assert "migrations ended with exit code" in tree.text
        assert "from_the_future" in tree.text
        tree.wait_gone(1)
