"""Finished models told to MLflow: its own store in a file, and one that is away."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from mlflow import MlflowClient
from sqlalchemy import Engine, func, update
from sqlalchemy.orm import Session

from jobs.artifacts import LocalArtifactStore, StoredFile
from jobs.ledger import LedgerStore
from jobs.records import Registration
from jobs.registrations import RegistrationStore
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.states import JobState, Wish
from jobs.store import JobStore
from tests.fake_worker import FakeWorker
from tests.worker.conftest import Service
from worker.registrar import Registrar, mlflow_registry

NOWHERE = "http://secret:password@127.0.0.1:1"


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """MLflow's own database, which takes a while to be made."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def told(engine: Engine, artifacts: LocalArtifactStore, tmp_path: Path) -> FakeWorker:
    """A worker whose finished models are told of."""
    return FakeWorker(engine, artifacts, tmp_path / "scratch", registers=True)


@pytest.fixture
def registrar(settings: Settings, engine: Engine) -> Callable[[str], Registrar]:
    """One that talks to the server at an address."""

    def make(uri: str) -> Registrar:
        asked = settings.model_copy(update={"mlflow_tracking_uri": uri})
        store = RegistrationStore(engine)
        return Registrar(store, lambda: mlflow_registry(asked), threading.Event(), 1)

    return make


def finish(engine: Engine, worker: FakeWorker, request: dict[str, Any]) -> UUID:
    """Submit a job and make it succeed, in two rounds."""
    job = JobStore(engine).submit(JobRequest.model_validate(request))
    claim = worker.claim()
    ledger = LedgerStore(engine, claim.job_id, claim.fencing_token)
    for number, (sparsity, perplexity) in enumerate([(0.1, 21.0), (0.3, 24.5)], 1):
        ledger.begin_round(number, StoredFile("key", 1, ""))
        record = {"number": number, "sparsity": sparsity, "perplexity": perplexity, "trials": 7}
        ledger.finish_round(number, record, None)
    worker.succeed(claim, {"model.safetensors": b"x" * 5000, "report.json": b"{}"})
    return job.id


def events(engine: Engine, job_id: UUID) -> list[tuple[str, dict[str, Any]]]:
    found = JobStore(engine).events(job_id, limit=100).items
    return [(event.type, event.data) for event in found if event.type.startswith("regist")]


def make_due(engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.execute(update(Registration).values(due_at=func.now()))


def test_a_finished_model_is_a_run_and_a_version_that_points_to_its_files(
    engine: Engine,
    told: FakeWorker,
    registrar: Callable[[str], Registrar],
    mlflow: MlflowClient,
    settings: Settings,
    body: dict[str, Any],
) -> None:
    asked = {**body, "name": "night", "owner": "search", "labels": {"team/a": "b"}}
    job_id = finish(engine, told, asked)
    its = registrar(mlflow.tracking_uri)
    assert its.register_next()
    assert not its.register_next()

    ((event, place),) = events(engine, job_id)
    assert event == "registered"
    run = mlflow.get_run(place["run_id"])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "night")
    assert run.data.params["target.sparsity"] == "0.3"
    assert run.data.params["pruning.recipe"] == "measured_damage"
    assert run.data.metrics["sparsity"] == 0.3
    assert run.data.metrics["artifacts_bytes"] == 5002
    rounds = mlflow.get_metric_history(place["run_id"], "round_perplexity")
    assert [(metric.step, metric.value) for metric in rounds] == [(1, 21.0), (2, 24.5)]
    assert run.data.tags["bonsai.job_id"] == str(job_id)
    assert run.data.tags["bonsai.owner"] == "search"
    assert run.data.tags["bonsai.label.team/a"] == "b"
    assert run.data.tags["bonsai.version"] == "0.1.0"
    assert run.data.tags["bonsai.base_sha256"] == "b" * 64
    assert run.data.tags["bonsai.manifest_sha256"] == "a" * 64
    assert "bonsai.base_revision" not in run.data.tags  # the model came from no hub

    version = mlflow.get_model_version(place["name"], place["version"])
    assert (version.name, version.run_id) == ("model-bonsai", place["run_id"])
    folder = settings.artifacts_dir / f"jobs/{job_id}"
    source = Path(version.source.removeprefix("file://"))
    assert folder in source.parents
    assert (source / "model.safetensors").stat().st_size == 5000
    assert not Path(run.info.artifact_uri.removeprefix("file://")).exists(), "nothing is uploaded"


def test_a_registration_whose_answer_was_lost_is_found_again(
    engine: Engine,
    told: FakeWorker,
    registrar: Callable[[str], Registrar],
    mlflow: MlflowClient,
    body: dict[str, Any],
) -> None:
    job_id = finish(engine, told, body)
    its = registrar(mlflow.tracking_uri)
    assert its.register_next()
    make_due(engine)
    assert its.register_next()
    (_, first), (_, second) = events(engine, job_id)
    assert first == second
    other = finish(engine, told, body)
    assert its.register_next()
    ((_, third),) = events(engine, other)
    assert third["name"] == first["name"]
    assert third["version"] != first["version"]


def test_a_registry_that_is_away_fails_no_job_and_is_tried_again(
    engine: Engine,
    told: FakeWorker,
    registrar: Callable[[str], Registrar],
    mlflow: MlflowClient,
    body: dict[str, Any],
) -> None:
    job_id = finish(engine, told, body)
    away = registrar(NOWHERE)
    waits = []
    for _ in range(2):
        assert away.register_next()
        assert not away.register_next(), "not before its time"
        with Session(engine) as session:
            row = session.get_one(Registration, job_id)
            waits.append((row.due_at - session.scalar(func.now())).total_seconds())
            assert row.error
        make_due(engine)
    assert 0 < waits[0] <= 30 < waits[1] <= 60
    ((event, data),) = events(engine, job_id)
    assert event == "registration_failed"
    assert "127.0.0.1" in data["error"]
    assert "password" not in data["error"]
    assert JobStore(engine).show(job_id).state == JobState.SUCCEEDED
    assert registrar(mlflow.tracking_uri).register_next()
    assert [event for event, _ in events(engine, job_id)] == ["registration_failed", "registered"]
    with Session(engine) as session:
        row = session.get_one(Registration, job_id)
        assert (row.due_at, row.error, row.tries) == (None, None, 3)


def test_what_one_has_taken_nobody_else_takes(
    engine: Engine, told: FakeWorker, body: dict[str, Any]
) -> None:
    job_id = finish(engine, told, body)
    assert RegistrationStore(engine).take() == job_id
    assert RegistrationStore(engine).take() is None


def test_only_success_is_told_of_and_only_where_there_is_a_registry(
    engine: Engine, told: FakeWorker, worker: FakeWorker, body: dict[str, Any]
) -> None:
    store = JobStore(engine)
    request = JobRequest.model_validate(body)
    failed, cancelled = store.submit(request).id, store.submit(request).id
    told.fail(told.claim())
    claim = told.claim()
    store.ask(cancelled, Wish.CANCEL)
    told.succeed(claim, {"report.json": b"{}"})
    finish(engine, worker, body)
    assert (store.show(failed).state, store.show(cancelled).state) == ("failed", "cancelled")
    assert RegistrationStore(engine).take() is None


def test_a_worker_tells_of_what_it_has_finished(
    service: Service, request_for: Callable[..., JobRequest], mlflow: MlflowClient
) -> None:
    service.start_worker(
        child_module="tests.faults.engine",
        mlflow_tracking_uri=mlflow.tracking_uri,
        mlflow_experiment="nights",
        mlflow_source="s3://bucket/models",
    )
    job_id = service.submit(request_for())
    assert service.wait_final(job_id).state == JobState.SUCCEEDED
    service.wait(job_id, lambda _: "registered" in service.event_types(job_id))
    experiment = mlflow.get_experiment_by_name("nights")
    (run,) = mlflow.search_runs([experiment.experiment_id])
    assert run.data.metrics["masks"] == 60
    (version,) = mlflow.search_model_versions(f"run_id = '{run.info.run_id}'")
    assert version.source.startswith(f"s3://bucket/models/jobs/{job_id}/attempts/")
