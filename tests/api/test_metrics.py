"""What Prometheus reads."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.orm import Session

from api.app import create_app
from jobs.figures import FigureStore
from jobs.records import Job
from jobs.settings import Settings
from jobs.states import JobState
from jobs.tokens import Token
from jobs.workers import WorkerStore
from tests.api.test_health import NOWHERE
from tests.devices import HOST, gpu
from tests.fake_worker import FakeWorker

OF_PROCESS = ("process_", "python_", "bonsai_http_", "bonsai_database_connections")


class Scrape:
    """One answer of /metrics."""

    def __init__(self, client: TestClient, key: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        response = client.get("/metrics", headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"].startswith("text/plain; version=")
        self.families = list(text_string_to_metric_families(response.text))
        self.values = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, *sorted(labels.items())))

    def of_rows(self) -> Mapping[tuple[Any, ...], float]:
        return {
            key: value for key, value in self.values.items() if not key[0].startswith(OF_PROCESS)
        }


def submit(client: TestClient, body: dict[str, Any], **more: Any) -> UUID:
    response = client.post("/v1/jobs", json={**body, **more})
    assert response.status_code == 201, response.text
    return UUID(response.json()["id"])


def change(engine: Engine, job_id: UUID, **values: Any) -> None:
    with Session(engine) as session, session.begin():
        job = session.get_one(Job, job_id)
        for name, value in values.items():
            setattr(job, name, value)


def test_lives_of_jobs_are_counted(
    client: TestClient, body: dict[str, Any], worker: FakeWorker, engine: Engine
) -> None:
    for _ in range(4):
        submit(client, body)
    succeeded = worker.claim()
    worker.evaluate(succeeded, number=1, trials=5)
    worker.succeed(succeeded, {"model.safetensors": b"x" * 1000, "report.json": b"{}"})
    for _ in range(2):
        worker.release(worker.claim(), "drained")
    worker.fail(worker.claim())
    running = worker.claim()
    worker.evaluate(running, number=1, trials=3)
    scrape = Scrape(client)
    assert scrape("bonsai_jobs", state="succeeded") == 1
    assert scrape("bonsai_jobs", state="failed") == 1
    assert scrape("bonsai_jobs", state="running") == 1
    assert scrape("bonsai_jobs", state="queued") == 1
    assert scrape("bonsai_jobs", state="paused") == 0
    assert scrape("bonsai_attempts_running") == 1
    assert scrape("bonsai_attempts_total", outcome="succeeded") == 1
    assert scrape("bonsai_attempts_total", outcome="drained") == 2
    assert scrape("bonsai_retries_total") == 2
    assert scrape("bonsai_leases_lost_total") == 0
    assert scrape("bonsai_masks_evaluated_total") == 8
    # A quarter of four sequences of 64 tokens.
    assert scrape("bonsai_forward_tokens_total") == 8 * 64
    assert scrape("bonsai_artifacts_bytes") == 1002
    assert scrape("bonsai_claim_latency_seconds_count") == 5
    assert scrape("bonsai_claim_latency_seconds_bucket", le="+Inf") == 5
    assert scrape("bonsai_database_up") == 1


def test_a_lost_lease_is_counted(
    client: TestClient, body: dict[str, Any], worker: FakeWorker, engine: Engine
) -> None:
    claim_of = submit(client, body)
    worker.claim()
    change(engine, claim_of, lease_expires_at=datetime.now(UTC) - timedelta(minutes=1))
    worker._attempts.expire()
    assert Scrape(client)("bonsai_leases_lost_total") == 1


def test_the_queue_is_told_by_what_it_waits_for(
    client: TestClient, body: dict[str, Any], engine: Engine
) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    submit(client, body, schedule={"not_before": later})
    first = submit(client, body)
    submit(client, body, schedule={"after": str(first)})
    # Of yesterday, but it could not have been taken before ten minutes ago.
    now = datetime.now(UTC)
    day_ago = now - timedelta(days=1)
    change(
        engine,
        first,
        queued_at=day_ago,
        created_at=day_ago,
        held_until=now - timedelta(seconds=600),
    )
    scrape = Scrape(client)
    assert scrape("bonsai_queue_jobs", reason="none") == 1
    assert scrape("bonsai_queue_jobs", reason="not_before") == 1
    assert scrape("bonsai_queue_jobs", reason="dependency") == 1
    assert scrape("bonsai_queue_jobs", reason="window") == 0
    assert 600 <= (scrape("bonsai_queue_age_seconds") or 0) < 3600


def test_a_claim_waits_from_when_it_was_possible(
    client: TestClient, body: dict[str, Any], engine: Engine, worker: FakeWorker
) -> None:
    job_id = submit(client, body)
    now = datetime.now(UTC)
    change(
        engine,
        job_id,
        queued_at=now - timedelta(days=3),
        window_opens=(now - timedelta(minutes=20)).time(),
        window_closes=(now + timedelta(hours=5)).time(),
        window_zone="UTC",
        window_days=[1, 2, 3, 4, 5, 6, 7],
    )
    worker.claim()
    waited = Scrape(client)("bonsai_claim_latency_seconds_sum")
    assert waited is not None
    assert 1200 <= waited < 3600
    scrape = Scrape(client)
    assert scrape("bonsai_claim_latency_seconds_bucket", le="900.0") == 0
    assert scrape("bonsai_claim_latency_seconds_bucket", le="3600.0") == 1


def test_workers_are_counted_by_what_they_are_at(client: TestClient, engine: Engine) -> None:
    workers = WorkerStore(engine)
    workers.arrive("one", gpu(80, 72), 60)
    workers.arrive("two", gpu(80, 72), 60)
    workers.arrive("three", HOST, 60)
    workers.drain("three")
    scrape = Scrape(client)
    assert scrape("bonsai_workers", presence="idle", device_kind="cuda") == 2
    assert scrape("bonsai_workers", presence="draining", device_kind="cpu") == 1
    assert scrape("bonsai_workers", presence="lost", device_kind="cpu") == 0


def test_requests_are_measured_by_the_template_of_their_address(
    client: TestClient, body: dict[str, Any]
) -> None:
    job_id = submit(client, body)
    for path in (f"/v1/jobs/{job_id}", f"/v1/jobs/{UUID(int=0)}", "/v1/jobs/not-an-id", "/nothing"):
        client.get(path)
    client.request("BREW", "/v1/jobs")
    scrape = Scrape(client)
    count = "bonsai_http_request_duration_seconds_count"
    template = "/v1/jobs/{job_id}"
    assert scrape(count, method="POST", route="/v1/jobs", status="2xx") == 1
    assert scrape(count, method="GET", route=template, status="2xx") == 1
    assert scrape(count, method="GET", route=template, status="4xx") == 2
    assert scrape(count, method="GET", route="none", status="4xx") == 1
    methods = {dict(key[1:]).get("method") for key in scrape.values if key[0] == count}
    assert methods == {"GET", "POST", "other"}
    assert not any(str(job_id) in str(key) for key in scrape.values)


def test_names_say_their_units_and_no_label_grows(
    client: TestClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    submit(client, body)
    worker.claim()
    for family in Scrape(client).families:
        assert family.documentation, family.name
        if family.name.startswith("bonsai_") and family.type == "histogram":
            assert family.name.endswith("_seconds")
        for sample in family.samples:
            if family.type == "counter" and not sample.name.endswith("_created"):
                assert sample.name.endswith("_total")
            assert set(sample.labels) <= {
                *("state", "reason", "outcome", "presence", "device_kind", "version"),
                *("method", "route", "status", "le"),
            }


def test_every_process_says_the_same_of_the_rows(
    client: TestClient, settings: Settings, body: dict[str, Any], worker: FakeWorker
) -> None:
    submit(client, body)
    worker.evaluate(worker.claim(), number=1, trials=2)
    with TestClient(create_app(settings)) as other:
        assert Scrape(client).of_rows() == Scrape(other).of_rows()


def test_without_a_database_a_process_still_tells_of_itself(settings: Settings) -> None:
    # Only the operator's own key is known without it.
    key = Token.generate().reveal()
    changes = {"database_url": NOWHERE, "admin_key": SecretStr(key)}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        client.get("/healthz")
        scrape = Scrape(client, key)
    assert scrape("bonsai_database_up") == 0
    assert scrape("bonsai_database_connections_in_use") == 0
    assert scrape("bonsai_database_connections_limit") == 10
    requests = "bonsai_http_request_duration_seconds_count"
    assert scrape(requests, method="GET", route="/healthz", status="2xx") == 1
    assert scrape("bonsai_jobs", state="queued") is None


@pytest.fixture
def long_history(engine: Engine, client: TestClient, body: dict[str, Any]) -> None:
    """Thousands of jobs, half of them queued, with events, masks and files."""
    job_id = submit(client, body)
    columns = "labels, request, attempts, crashes, progress, owner, priority, window_finish"
    per_job = "FROM jobs, generate_series(1, 10) AS number WHERE state = 'succeeded'"
    with engine.begin() as connection:
        for statement in (
            f"INSERT INTO jobs (id, state, last_event, {columns}) "
            f"SELECT gen_random_uuid(), made.state, 10, {columns} "
            "FROM jobs, generate_series(1, 2000), "
            f"(VALUES ('queued'), ('succeeded')) AS made (state) WHERE jobs.id = '{job_id}'",
            "INSERT INTO events (job_id, sequence, type, data) "
            f"SELECT id, number, 'told', '{{}}' {per_job}",
            "INSERT INTO evaluations (job_id, round, trial, utility, seconds, fencing_token) "
            f"SELECT id, 1, number, 0, 0.1, 1 {per_job}",
            "INSERT INTO artifacts (job_id, name, key, size_bytes, sha256, content_type) "
            f"SELECT id, number::text, id || '/' || number, 7, '', '' {per_job}",
        ):
            connection.execute(text(statement))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))


def test_a_scrape_finds_what_it_counts_by_indexes(engine: Engine, long_history: None) -> None:
    plans = []

    def explain(connection: Connection, cursor: Any, statement: str, *parameters: Any) -> None:
        if not statement.startswith("SELECT"):
            return
        # Where there is an index it is taken, however small the tables are.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {statement}", parameters[0])
        plans.append("\n".join(row[0] for row in cursor.fetchall()))

    event.listen(engine, "before_cursor_execute", explain)
    try:
        figures = FigureStore(engine).read()
    finally:
        event.remove(engine, "before_cursor_execute", explain)
    assert sum(waiting.jobs for waiting in figures.queue) == figures.jobs[JobState.QUEUED] == 2001
    assert figures.artifact_bytes == 2000 * 10 * 7
    assert len(plans) == 4
    for plan in plans:
        assert not re.search(r"events|evaluations|Seq Scan on (jobs|artifacts)", plan), plan
