"""The embedded servers: each test breaks something for real."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from client.embedded.errors import EmbeddedStackError
from client.embedded.sockets import LONGEST_SOCKET_PATH
from client.embedded.stack import EmbeddedStack
from client.up import run_up
from tests.embedded.helpers import (
    launch,
    read_rows,
    server_processes,
    supervisor,
    wait_for,
    write_row,
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def stranger() -> Iterator[int]:
    """A living process that has nothing to do with us."""
    process = subprocess.Popen(["sleep", "600"])
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def zombie() -> Iterator[int]:
    """An ended process that nobody has reaped, as in a container without an init."""
    process = subprocess.Popen(["true"])
    stat = Path(f"/proc/{process.pid}/stat")
    if stat.exists():
        wait_for(lambda: " Z " in stat.read_text(), 5, "a zombie")
    yield process.pid
    process.wait()


def test_rows_and_keys_are_kept_over_a_restart(data: Path) -> None:
    with EmbeddedStack(data) as stack:
        write_row(stack.database_url, 1)
        redis.Redis.from_url(stack.redis_url).set("key", "value")
        assert set(stack.process_ids) == {"postgres", "valkey"}
    assert server_processes(data) == []
    with EmbeddedStack(data) as stack:
        assert read_rows(stack.database_url) == [1]
        assert redis.Redis.from_url(stack.redis_url).get("key") == b"value"


def test_only_its_own_user_reaches_the_servers(data: Path) -> None:
    with EmbeddedStack(data, durable=False):
        assert data.stat().st_mode & 0o077 == 0
        assert (data / "run").stat().st_mode & 0o077 == 0
        for process in server_processes(data):
            listing = subprocess.run(
                ["lsof", "-a", "-p", str(process), "-i"], capture_output=True, check=False
            )
            assert listing.stdout == b"", "a server listens on the network"


def test_a_second_stack_on_the_same_folder_is_refused(data: Path) -> None:
    with supervisor(data) as (first, facts):
        with pytest.raises(EmbeddedStackError) as refusal:
            EmbeddedStack(data).start()
        assert str(data) in str(refusal.value)
        assert f"process {first.pid}" in str(refusal.value)
        write_row(facts["database_url"], 1)  # the first one did not notice


def test_kill_9_of_the_supervisor_leaves_no_server_and_loses_no_row(data: Path) -> None:
    with supervisor(data) as (process, facts):
        write_row(facts["database_url"], 1)
        assert len(server_processes(data)) > 2
        process.kill()
        wait_for(lambda: not server_processes(data), 10, "no server left")
    with EmbeddedStack(data) as stack:
        assert read_rows(stack.database_url) == [1]


def test_kill_9_of_supervisor_and_servers_at_once_loses_no_row(data: Path) -> None:
    with supervisor(data) as (process, facts):
        write_row(facts["database_url"], 1)
        for victim in (process.pid, *facts["process_ids"].values()):
            os.kill(victim, signal.SIGKILL)
        process.wait()
    with EmbeddedStack(data) as stack:
        assert read_rows(stack.database_url) == [1]


def test_orphans_of_a_system_without_death_signals_end_at_the_next_start(data: Path) -> None:
    with supervisor(data, "no-death-signal") as (process, facts):
        write_row(facts["database_url"], 1)
        redis.Redis.from_url(facts["redis_url"]).set("key", "value")
        process.kill()
        process.wait()
        orphans = set(facts["process_ids"].values())
        assert orphans <= set(server_processes(data))
    with EmbeddedStack(data) as stack:
        assert not orphans & set(server_processes(data))
        assert read_rows(stack.database_url) == [1]
        assert redis.Redis.from_url(stack.redis_url).get("key") == b"value"


def test_a_server_that_stops_by_itself_is_noticed(data: Path) -> None:
    with EmbeddedStack(data, durable=False) as stack:
        stack.require_alive()
        os.kill(stack.process_ids["postgres"], signal.SIGQUIT)
        with pytest.raises(EmbeddedStackError, match="immediate shutdown request"):
            wait_for(lambda: stack.require_alive(), 10, "noticed")


@pytest.mark.parametrize("holder", ["stranger", "zombie", "nobody", "nonsense"])
def test_a_stale_lock_file_does_not_stop_the_server(
    data: Path, holder: str, stranger: int, zombie: int
) -> None:
    with supervisor(data) as (process, facts):
        write_row(facts["database_url"], 1)
        # Killed at once, so that the lock files stay.
        os.kill(facts["process_ids"]["postgres"], signal.SIGKILL)
        process.kill()
        process.wait()
    wait_for(lambda: not server_processes(data), 10, "no server left")
    first_line = {"stranger": stranger, "zombie": zombie, "nobody": 2**22 - 7, "nonsense": "?"}
    for lock_file in (data / "postgres" / "postmaster.pid", data / "run" / ".s.PGSQL.5432.lock"):
        lines = lock_file.read_text().splitlines(keepends=True)
        lock_file.write_text("".join([f"{first_line[holder]}\n", *lines[1:]]))
    with EmbeddedStack(data) as stack:
        assert read_rows(stack.database_url) == [1]
    os.kill(stranger, 0)


def test_a_lock_file_that_names_another_postgres_does_it_no_harm(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / "one", durable=False) as one:
        with EmbeddedStack(tmp_path / "two", durable=False):
            pass
        lock_file = tmp_path / "two" / "postgres" / "postmaster.pid"
        lock_file.write_text(f"{one.process_ids['postgres']}\n")
        with EmbeddedStack(tmp_path / "two", durable=False):
            one.require_alive()
            write_row(one.database_url, 1)


def test_an_initdb_cut_off_by_kill_9_is_made_anew(data: Path) -> None:
    process = launch(data)
    wait_for(lambda: list(data.glob("postgres.new-*/global")), 20, "initdb at work")
    process.kill()
    process.wait()
    assert not (data / "postgres").exists()
    with EmbeddedStack(data) as stack:
        write_row(stack.database_url, 1)
    assert list(data.glob("postgres.new-*")) == []


def test_another_major_version_is_refused(data: Path) -> None:
    with EmbeddedStack(data, durable=False, valkey=False):
        pass
    version = data / "postgres" / "PG_VERSION"
    ours = version.read_text().strip()
    version.write_text("14\n")
    with pytest.raises(EmbeddedStackError, match=rf"made by PostgreSQL 14.* is {ours} ") as refusal:
        EmbeddedStack(data).start()
    assert "pg_dumpall" in str(refusal.value)
    version.write_text(f"{ours}\n")
    with EmbeddedStack(data, durable=False, valkey=False):
        pass  # the refusal left no lock


@pytest.mark.parametrize(
    "name", ["a blank and an été", "n" * LONGEST_SOCKET_PATH, "one,two", "per%20cent#?&"]
)
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    data = tmp_path / name
    for value in (1, 2):
        with EmbeddedStack(data, durable=False) as stack:
            write_row(stack.database_url, value)
            assert redis.Redis.from_url(stack.redis_url).incr("key") == 1  # durable=False
    with EmbeddedStack(data, durable=False) as stack:
        assert read_rows(stack.database_url) == [1, 2]


def test_a_data_folder_can_be_moved(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / "here", durable=False) as stack:
        write_row(stack.database_url, 1)
    (tmp_path / "here").rename(tmp_path / "there")
    with EmbeddedStack(tmp_path / "there", durable=False) as stack:
        assert read_rows(stack.database_url) == [1]


def test_one_server_alone(data: Path) -> None:
    with EmbeddedStack(data, durable=False, postgres=False) as stack:
        assert set(stack.process_ids) == {"valkey"}
        with pytest.raises(EmbeddedStackError):
            _ = stack.database_url
    with EmbeddedStack(data, durable=False, valkey=False) as stack:
        assert set(stack.process_ids) == {"postgres"}
        with pytest.raises(EmbeddedStackError):
            _ = stack.redis_url


def test_a_programs_folder_without_programs_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONSAI_POSTGRES_BIN", str(tmp_path))
    with pytest.raises(EmbeddedStackError, match=r"BONSAI_POSTGRES_BIN=.*initdb"):
        EmbeddedStack(data).start()
    monkeypatch.delenv("BONSAI_POSTGRES_BIN")
    monkeypatch.setenv("BONSAI_VALKEY_BIN", str(tmp_path / "none"))
    with pytest.raises(EmbeddedStackError, match=r"BONSAI_VALKEY_BIN=.*none"):
        EmbeddedStack(data).start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with a thread")
def test_a_thread_that_may_end_is_refused(data: Path) -> None:
    refusals: list[Exception] = []

    def start() -> None:
        try:
            EmbeddedStack(data).start()
        except EmbeddedStackError as error:
            refusals.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(refusals[0])


def test_up_names_a_port_that_is_taken_and_starts_nothing(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert run_up(data, port=port, workers=1, device="cpu") == 1
    complaint = capsys.readouterr().err
    assert f"Port {port} on 127.0.0.1 is taken" in complaint
    assert "--port" in complaint
    assert not data.exists()
