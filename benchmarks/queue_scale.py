"""What claiming and listing cost with many jobs queued and many events behind them.

`python -m benchmarks.queue_scale`: an embedded PostgreSQL of its own, 10,000 queued jobs of 50
owners with schedules of every kind, 1,000,000 events of 20,000 finished jobs; then each statement
again and again, and the plan that the database has for it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from benchmarks.report import RESULTS, Report, Table
from client.embedded.stack import EmbeddedStack
from jobs.attempts import AttemptStore
from jobs.devices import Device, DeviceKind
from jobs.fairness import Fairness
from jobs.queue import next_jobs
from jobs.store import JobStore
from jobs.workers import WorkerStore
from migrations import upgrade

OWNERS = 50
FAIRNESS = Fairness(running_per_owner=100)
DEVICE = Device(DeviceKind.CUDA, "a GPU of 80 GiB", 80 * 2**30, 80 * 2**30)
WORKERS = ("w", "x", "y", "z")

JOBS = """
INSERT INTO jobs (id, labels, request, state, attempts, crashes, progress, last_event, owner,
                  priority, window_finish, created_at, not_before, deadline, window_opens,
                  window_closes, window_zone, window_days, finished_at, memory_bytes,
                  streamed_memory_bytes)
SELECT gen_random_uuid(), '{}', CAST(:request AS jsonb), CAST(:state AS varchar), 0, 0, '{}', 1,
       'owner-' || n % :owners,
       n % 5, false, now() - n * interval '1 second',
       CASE WHEN n % 7 = 0 THEN now() + interval '1 hour' END,
       CASE WHEN n % 11 = 0 THEN now() + interval '1 day' END,
       CASE WHEN n % 3 = 0 THEN time '22:00' END, CASE WHEN n % 3 = 0 THEN time '21:59' END,
       CASE WHEN n % 3 = 0 THEN 'Europe/Berlin' END,
       CASE WHEN n % 3 = 0 THEN ARRAY[1,2,3,4,5,6,7]::smallint[] END,
       CASE WHEN CAST(:state AS varchar) = 'succeeded' THEN now() END,
       CASE WHEN n % 13 = 0 THEN 160::bigint << 30 ELSE 40::bigint << 30 END, 16::bigint << 30
FROM generate_series(1, :count) AS n
"""
EVENTS = """
INSERT INTO events (job_id, sequence, type, data)
SELECT jobs.id, n, 'round_finished', '{"round": 1}' FROM jobs, generate_series(1, :each) AS n
WHERE jobs.state = 'succeeded'
"""
USAGES = """
INSERT INTO usages (owner, device_seconds)
SELECT 'owner-' || n, 3600.0 * n FROM generate_series(0, :owners - 1) AS n
"""
REQUEST = (
    '{"model": {"source": "owner/name"}, "calibration": {"source": "owner/text"}, '
    '"target": {"sparsity": 0.5}}'
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fill, measure, and write."""
    wish = _parser().parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="bonsai-") as folder,
        EmbeddedStack(Path(folder), durable=True, postgres=True, valkey=False) as stack,
    ):
        upgrade(stack.database_url)
        engine = create_engine(stack.database_url)
        _fill(engine, wish)
        _report(wish, _measured(engine, wish.times), _plan(engine)).write(
            wish.output, torch.device("cpu")
        )
        engine.dispose()


def _fill(engine: Engine, wish: argparse.Namespace) -> None:
    common = {"request": REQUEST, "owners": OWNERS}
    finished = wish.events // wish.events_of_a_job
    with engine.begin() as connection:
        connection.execute(text(JOBS), common | {"state": "queued", "count": wish.queued})
        connection.execute(text(JOBS), common | {"state": "succeeded", "count": finished})
        connection.execute(text(EVENTS), {"each": wish.events_of_a_job})
        connection.execute(text(USAGES), {"owners": OWNERS})
    for worker in WORKERS:
        WorkerStore(engine).arrive(worker, DEVICE, 3600)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))


def _measured(engine: Engine, times: int) -> dict[str, list[float]]:
    """Seconds of each call, by what was called."""
    store, attempts = JobStore(engine, FAIRNESS), AttemptStore(engine, FAIRNESS)
    with Session(engine) as session:
        some = session.scalars(text("SELECT id FROM jobs WHERE state = 'succeeded' LIMIT 1")).one()

    def claim() -> None:
        claim = attempts.claim(worker="w", device=DEVICE, lease_seconds=600)
        assert claim is not None

    def list_jobs() -> None:
        page = store.list(limit=50)
        store.places(page.items)

    def middle() -> None:
        page = store.list(limit=50, cursor=store.list(limit=200).next_cursor)
        store.places(page.items)

    calls: dict[str, Callable[[], Any]] = {
        "claim": claim,
        "list 50 jobs with their places": list_jobs,
        "list 50 further ones": middle,
        "list 200 events of a job": lambda: store.events(some, limit=200),
        "sweep": lambda: (attempts.expire(), attempts.fail_hopeless()),
    }
    return {name: [_seconds(call) for _ in range(times)] for name, call in calls.items()}


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _plan(engine: Engine) -> str:
    """How the database finds the next job."""
    query = next_jobs(FAIRNESS, DEVICE).limit(1)
    compiled = query.compile(engine, compile_kwargs={"render_postcompile": True})
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        found = raw.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {compiled}", compiled.params)
        return "\n".join(row[0] for row in found.fetchall())


def _report(wish: argparse.Namespace, found: dict[str, list[float]], plan: str) -> Report:
    words = [
        f"{wish.queued:,} queued jobs of {OWNERS} owners (five priorities; a seventh with "
        "not_before, a third with a window, an eleventh with a deadline, a thirteenth too large "
        f"for the device but for its layers), {wish.events:,} events, {len(WORKERS)} workers; an "
        f"embedded PostgreSQL that keeps what it has committed, {wish.times} calls of each, one "
        "after another.",
        "The plan for the next job:",
        f"```\n{plan}\n```",
    ]
    rows = [
        [name, *(1000 * value for value in (statistics.median(seconds), _p99(seconds)))]
        for name, seconds in found.items()
    ]
    values = {
        "queued": wish.queued,
        "events": wish.events,
        "seconds": {
            name: {"median": statistics.median(seconds), "p99": _p99(seconds)}
            for name, seconds in found.items()
        },
        "plan": plan.splitlines(),
    }
    table = Table("Milliseconds", ["call", "median", "99th percentile"], rows)
    return Report("queue-scale", "A long queue", words, values, [table])


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queue_scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--queued", type=int, default=10_000)
    add("--events", type=int, default=1_000_000)
    add("--events-of-a-job", type=int, default=50)
    add("--times", type=int, default=200)
    add("--output", type=Path, default=RESULTS)
    return parser


if __name__ == "__main__":
    main()
