"""A job that calibrates on an uploaded text."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.artifacts import sha256_of
from jobs.dataset_text import DatasetType
from jobs.datasets import DatasetStore, Upload
from jobs.records import Dataset
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.states import JobState
from tests.worker.conftest import Service
from tests.worker.test_kill import undisturbed

MODEL = "model.safetensors"


@pytest.fixture(params=["folder", "s3"])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    if request.param == "folder":
        return settings
    return settings.model_copy(update={"artifacts_url": request.getfixturevalue("s3_url")})


@pytest.fixture
def dataset(service: Service, inputs: tuple[Path, Path]) -> Dataset:
    _, text = inputs
    size, lines = text.stat().st_size, text.read_bytes().count(b"\n")
    upload = Upload(text, DatasetType.TEXT, size, lines, sha256_of(text))
    row, _ = DatasetStore(service.engine, service.files).add(upload, name=None, owner="default")
    return row


def on(dataset: Dataset, request: JobRequest) -> JobRequest:
    source = {"source": f"dataset:{dataset.id}"}
    calibration = request.calibration.model_copy(update=source)
    return request.model_copy(update={"calibration": calibration})


def test_its_result_is_that_of_a_file_of_the_same_text_also_over_an_interruption(
    service: Service, dataset: Dataset, request_for: Callable[..., JobRequest], tmp_path: Path
) -> None:
    request = request_for(sparsity=0.2)
    first = service.start_worker()
    job_id = service.submit(on(dataset, request))
    service.wait_evaluated(job_id, 20)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    service.start_worker()
    job = service.wait_final(job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    expected = undisturbed(request, tmp_path / "undisturbed")
    assert service.evaluated(job_id) == expected.masks_evaluated
    assert service.digests(job_id)[MODEL] == sha256_of(expected.folder / MODEL)
    assert job.request["calibration"]["source"] == f"dataset:{dataset.id}"


def test_one_that_is_damaged_is_not_calibrated_on(
    service: Service, dataset: Dataset, request_for: Callable[..., JobRequest], tmp_path: Path
) -> None:
    other = tmp_path / "other.txt"
    other.write_text("x" * dataset.size_bytes)
    service.files.put(dataset.key, other)
    service.start_worker()
    job = service.wait_final(service.submit(on(dataset, request_for())))
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert job.error["field"] == "calibration.source"
    assert "upload it again" in job.error["cure"]
