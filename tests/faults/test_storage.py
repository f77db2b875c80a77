"""Faults of the artifact store: it fails or is away while jobs run."""

import pytest

from jobs.settings import Settings
from tests.faults.conftest import Night
from tests.faults.engine import MASKS, ROUNDS
from tests.object_store import Gateway


@pytest.fixture
def settings(settings: Settings, s3_url_through: str) -> Settings:
    """Files are kept behind the gateway."""
    return settings.model_copy(update={"artifacts_url": s3_url_through})


def outcomes(night: Night) -> list[str | None]:
    (job_id,) = night.jobs
    return [account.attempt.outcome for account in night.service.store.attempts(job_id)]


def test_f16_the_store_fails_while_the_result_goes_up_and_recovers(
    night: Night, gateway: Gateway
) -> None:
    failures = iter(range(5))
    gateway.refuses = lambda request: (
        request.endswith("/model")
        and request.startswith("PUT")
        and next(failures, None) is not None
    )
    night.start_worker()
    night.submit()
    night.succeed()
    # It was tried again where it was, by the process that had the result.
    assert next(failures, None) is None
    assert outcomes(night) == ["succeeded"]


def test_f16_the_store_is_away_for_longer_than_patience(night: Night, gateway: Gateway) -> None:
    gateway.refuses = lambda request: request.endswith("/model")
    night.start_worker(artifacts_patience_seconds="0.3", hold_seconds="0.3", log_level="error")
    job_id = night.submit()
    job = night.service.wait(job_id, lambda job: job.attempts >= 3)
    assert job.hold_reason in (None, "storage_unavailable")
    assert night.service.evaluated(job_id) == ROUNDS * MASKS
    assert night.service.store.artifacts(job_id) == []
    gateway.refuses = lambda _: False
    # All that was evaluated is kept: the check at the end finds that no mask was measured again.
    night.succeed()
    assert set(outcomes(night)) == {"storage_unavailable", "succeeded"}
    assert night.service.store.show(job_id).crashes == 0
