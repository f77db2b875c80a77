"""`bonsai status` against the real service."""

import json
from collections.abc import Callable

from sqlalchemy import Engine, text
from typer.testing import Result

from jobs.schema import REVISION
from jobs.workers import WorkerStore
from tests.devices import HOST

Bonsai = Callable[..., Result]


def test_what_does_not_work_is_printed(bonsai: Bonsai, engine: Engine) -> None:
    shown = bonsai("status")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("degraded, workers: 0\nworkers: No worker")
    WorkerStore(engine).arrive("night-1", HOST, 60)
    assert bonsai("status").stdout == "ready, workers: 1\n"
    assert json.loads(bonsai("status", "--json").stdout)["status"] == "ready"


def test_a_service_that_takes_no_jobs_is_a_failure(bonsai: Bonsai, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    try:
        shown = bonsai("status")
    finally:
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{REVISION}'"))
    assert shown.exit_code == 1
    assert "python -m migrations upgrade" in shown.stderr
