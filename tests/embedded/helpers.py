"""What the tests of the embedded stack share."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from client.embedded.processes import processes_in
from client.embedded.valkey import PROGRAM_NAMES

REPOSITORY = Path(__file__).resolve().parents[2]
SUPERVISOR = Path(__file__).with_name("supervisor.py")


def connect(database_url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    return psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True)


def write_row(database_url: str, value: int) -> None:
    with connect(database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (value int PRIMARY KEY)")
        connection.execute("INSERT INTO kept VALUES (%s)", [value])


def read_rows(database_url: str) -> list[int]:
    with connect(database_url) as connection:
        return [row[0] for row in connection.execute("SELECT value FROM kept ORDER BY value")]


def server_processes(data: Path) -> list[int]:
    """Every process of either server that works in the data folder."""
    names = ("postgres", *PROGRAM_NAMES)
    return [
        process
        for folder in (data / "postgres", data / "valkey", *data.glob("postgres.new-*"))
        for process in processes_in(folder, names)
    ]


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds} s still not: {what}"
        time.sleep(0.02)


def launch(
    data: Path, *arguments: str, python: Path | str = sys.executable, **options: Any
) -> "subprocess.Popen[str]":
    """Start a supervisor; a test that changes its user says where that user finds the packages."""
    options.setdefault("env", os.environ | {"PYTHONPATH": str(REPOSITORY)})
    return subprocess.Popen(
        [python, options.pop("script", SUPERVISOR), data, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@contextlib.contextmanager
def supervisor(
    data: Path, *arguments: str, **options: Any
) -> "Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]":
    """A running supervisor and what it printed; stopped in order, unless the test ended it."""
    with launch(data, *arguments, **options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
            if process.poll() is None:
                process.stdin.close()
                assert process.wait(40) == 0, process.stderr.read()
        finally:
            process.kill()
