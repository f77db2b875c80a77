"""What a connection may do at most."""

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from jobs.errors import DATABASE_UNREACHABLE
from jobs.records import Job
from jobs.request import JobRequest
from jobs.states import JobState, Wish
from jobs.store import JobStore


def test_one_that_stands_still_within_a_transaction_keeps_nobody_from_a_job(
    engine: Engine, body: dict[str, Any]
) -> None:
    store = JobStore(engine)
    job_id = store.submit(JobRequest.model_validate(body)).id
    with Session(engine) as frozen:
        frozen.get_one(Job, job_id, with_for_update=True)
        # It waits for the lock, and gets it.
        assert store.ask(job_id, Wish.PAUSE).state == JobState.PAUSED
        with pytest.raises(DATABASE_UNREACHABLE, match="idle-in-transaction"):
            frozen.get_one(Job, job_id, with_for_update=True, populate_existing=True)
