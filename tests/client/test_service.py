"""The client against the real service."""

import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from api.app import create_app
from client import BonsaiClient, Job, ServiceError, UnexpectedAnswerError, UnreachableServiceError
from jobs.progress import Progress, Stage
from jobs.settings import Settings
from jobs.storage import artifact_store
from tests.fake_worker import FakeWorker
from tests.served import served


def test_a_job_is_submitted_shown_and_cancelled(client: BonsaiClient, body: dict[str, Any]) -> None:
    job = client.submit(body, name="small", labels={"team": "search"})
    assert (job.name, job.labels, job.state, job.is_final) == (
        *("small", {"team": "search"}, "queued"),
        False,
    )
    assert client.job(job.id) == job
    cancelled = client.cancel(job.id)
    assert (cancelled.state, cancelled.is_final) == ("cancelled", True)
    assert [event.type for event in client.events(job.id)] == ["submitted", "cancelled"]


def test_jobs_are_listed_over_all_pages(
    client: BonsaiClient, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.operations.PAGE_ITEMS", 2)
    ids = [client.submit(body).id for _ in range(5)]
    assert [job.id for job in client.jobs()] == ids[::-1]
    assert list(client.jobs(state="failed")) == []


def test_a_problem_is_an_error_that_names_the_field(
    client: BonsaiClient, body: dict[str, Any]
) -> None:
    with pytest.raises(ServiceError) as caught:
        client.submit(body, target={"sparsity": 2})
    problem = caught.value.problem
    assert (problem.status, problem.code) == (422, "invalid_request")
    assert problem.errors[0].pointer == "/target/sparsity"
    assert "allowed: a number, above 0, below 1" in str(caught.value)


def test_an_id_is_never_a_path(client: BonsaiClient) -> None:
    with pytest.raises(ServiceError) as caught:
        client.job("../../healthz")
    assert caught.value.problem.status == 404


def test_waiting_tells_of_progress_and_returns_at_the_end(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    job = client.submit(body)
    claim = worker.claim()
    seen: list[Job] = []

    def follow(now: Job) -> None:
        seen.append(now)
        if len(seen) == 1:
            worker.progress(claim, Progress(stage=Stage.PRUNING, round=1, rounds=3))
        elif len(seen) == 2:
            worker.succeed(claim, {"report.json": b"{}"})

    ended = client.wait(job.id, poll_seconds=0.01, on_progress=follow)
    assert ended.state == "succeeded"
    assert [(now.state, now.progress.rounds) for now in seen] == [
        *(("running", 0), ("running", 3), ("succeeded", 3))
    ]


def test_waiting_does_not_outlast_its_patience(body: dict[str, Any]) -> None:
    with BonsaiClient("http://127.0.0.1:1") as client, pytest.raises(UnreachableServiceError):
        client.wait("any", poll_seconds=0.01, patience_seconds=0.05)


def test_waiting_for_no_job_ends_at_once(client: BonsaiClient) -> None:
    with pytest.raises(ServiceError):
        client.wait("00000000-0000-0000-0000-000000000000")


def test_files_come_over_and_are_not_fetched_twice(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker, tmp_path: Path
) -> None:
    job = client.submit(body)
    files = {"model.safetensors": bytes(300_000), "empty.json": b"", "odd name#1.txt": b"x"}
    worker.succeed(worker.claim(), files)
    assert {artifact.name for artifact in client.artifacts(job.id)} == set(files)
    counted: dict[str, int] = {}

    def count(artifact: Any, received: int) -> None:
        counted[artifact.name] = received

    folder = tmp_path / "got"
    paths = client.download(job.id, folder, on_bytes=count)
    assert {path.name: path.read_bytes() for path in paths} == files
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    assert counted["model.safetensors"] == 300_000
    before = [path.stat().st_mtime_ns for path in paths]
    assert client.download(job.id, folder) == paths
    assert [path.stat().st_mtime_ns for path in paths] == before


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://", "no address", "ftp://a/b"])
def test_an_address_without_a_service_is_said_to_be_one(address: str) -> None:
    with (
        pytest.raises(UnreachableServiceError, match="BONSAI_URL"),
        BonsaiClient(address) as client,
    ):
        client.job("any")


def test_another_service_is_not_taken_for_ours(client: BonsaiClient) -> None:
    with pytest.raises(UnexpectedAnswerError), BonsaiClient(f"{client.base_url}/docs?x=") as other:
        other.job("any")


def test_the_address_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONSAI_URL", f"{url}/")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with BonsaiClient() as client:
        assert client.base_url == url
        assert list(client.jobs()) == []


def test_a_service_that_comes_back_is_waited_for(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.submit(body)
    real, failures = client.job, iter(range(3))

    def away_at_first(job_id: str, **how: Any) -> Job:
        if next(failures, None) is not None:
            raise UnreachableServiceError(client.base_url, ConnectionError("refused"))
        return real(job_id, **how)

    monkeypatch.setattr(client, "job", away_at_first)
    monkeypatch.setattr("client.tries.PAUSE_SECONDS", 0.01)
    timer = threading.Timer(0.1, lambda: worker.fail(worker.claim()))
    timer.start()
    assert client.wait(job.id).state == "failed"
    timer.join()


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_a_download_cut_at_two_fifths_goes_on_and_one_of_another_file_starts_anew(
    place: str,
    request: pytest.FixtureRequest,
    settings: Settings,
    engine: Engine,
    body: dict[str, Any],
    tmp_path: Path,
) -> None:
    if place == "s3":
        url = request.getfixturevalue("s3_url")
        settings = settings.model_copy(update={"artifacts_url": url})
    worker = FakeWorker(engine, artifact_store(settings), tmp_path / "scratch")
    weights = bytes(range(256)) * 20_000
    cut = len(weights) * 2 // 5
    with served(create_app(settings)) as url, BonsaiClient(url) as client:
        job = client.submit(body)
        worker.succeed(worker.claim(), {"model.safetensors": weights})
        for name, part in {"cut": weights[:cut], "other": b"!" * cut}.items():
            received: list[int] = []
            (tmp_path / name).mkdir()
            (tmp_path / name / "model.safetensors.part").write_bytes(part)
            (path,) = client.download(
                job.id, tmp_path / name, on_bytes=lambda _, count, seen=received: seen.append(count)
            )
            assert path.read_bytes() == weights
            # What was there is not fetched again, unless it turns out to be something else.
            assert min(received) > cut if name == "cut" else min(received) < cut


def test_a_store_without_links_says_so(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker
) -> None:
    job = client.submit(body)
    worker.succeed(worker.claim(), {"b.json": b"{}"})
    with pytest.raises(ServiceError, match="folder, which has no links"):
        client.artifact_link(job.id, "b.json", seconds=60)


def test_all_files_come_as_one_archive(
    client: BonsaiClient, body: dict[str, Any], worker: FakeWorker, tmp_path: Path
) -> None:
    job = client.submit(body)
    with pytest.raises(ServiceError):
        client.download_archive(job.id, tmp_path / "early.tar")
    files = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 4000}
    worker.succeed(worker.claim(), files)
    path = client.download_archive(job.id, tmp_path / "all.tar")
    with tarfile.open(path) as archive:
        found = {Path(each.name).name: archive.extractfile(each) for each in archive.getmembers()}
        assert {name: file.read() for name, file in found.items() if file} == files
    assert [each.name for each in tmp_path.glob("*.part")] == []
    assert not (tmp_path / "early.tar").exists()
