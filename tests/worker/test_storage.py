"""Workers whose files are on S3: they share no folder with the API, nor with each other."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.artifacts import StoredFile, require_sound
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.states import JobState
from tests.worker.conftest import Service
from tests.worker.test_kill import RANDOM_MASKS, digests_of, undisturbed


@pytest.fixture
def settings(settings: Settings, s3_url: str) -> Settings:
    return settings.model_copy(update={"artifacts_url": s3_url})


def test_another_machine_goes_on_with_a_job_from_what_is_on_s3(
    service: Service, request_for: Callable[..., JobRequest], tmp_path: Path
) -> None:
    request = request_for(sparsity=0.2, **RANDOM_MASKS, masks_per_round=60)
    first = service.start_worker(data_dir=str(tmp_path / "first"))
    job_id = service.submit(request)
    # In the second round: repaired weights of the first one are a checkpoint, and so is the prior.
    service.wait_evaluated(job_id, 80)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    service.start_worker(data_dir=str(tmp_path / "second"))
    job = service.wait_final(job_id)
    assert job.state == JobState.SUCCEEDED, job.error
    expected = undisturbed(request, tmp_path / "undisturbed")
    assert service.evaluated(job_id) == expected.masks_evaluated
    assert service.digests(job_id) == digests_of(expected.folder)
    assert service.event_types(job_id).count("checkpoint_corrupt") == 0
    for artifact in service.store.artifacts(job_id):
        stored = StoredFile(artifact.key, artifact.size_bytes, artifact.sha256)
        require_sound(service.files, stored)
    for folder in ("first", "second"):
        assert {path.name for path in (tmp_path / folder).iterdir()} == {"scratch"}
    assert not service.settings.artifacts_dir.exists()
