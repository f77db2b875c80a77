"""What must hold of every job after any night, from its rows and the engine's own journal."""

import json
from collections import Counter
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from jobs.artifacts import StoredFile, sound_pieces
from jobs.attempts import Claim
from jobs.crashes import Crash
from jobs.records import Evaluation
from jobs.request import JobRequest
from jobs.states import MOVES, JobState
from jobs.store import JobStore
from tests.faults.engine import JOURNAL, MASKS, ROUNDS, utility
from tests.worker.conftest import Service

LOSSES = {*map(str, Crash), "lease_expired", "device_failed"}
"""Ends of attempts at which the mask in flight may be lost."""

LEADS_TO = {
    "submitted": JobState.QUEUED,
    "resumed": None,
    **dict.fromkeys(
        (*map(str, Crash), "released", "disk_full", "storage_unavailable", "lease_expired"),
        JobState.QUEUED,
    ),
    **{str(state): state for state in JobState},
}
"""Events that move a job, and where to; a resumed one is where it was wished."""


def require_invariants(service: Service, job_ids: list[UUID]) -> None:
    """All of them, of these jobs."""
    for job_id in job_ids:
        _require_history(service.store, job_id)
        _require_ledger(service, job_id)
        if service.store.show(job_id).state == JobState.SUCCEEDED:
            _require_result(service, job_id)


def _require_history(store: JobStore, job_id: UUID) -> None:
    """Events are gapless, each move is legal, and they lead to the state that the row has."""
    events = store.events(job_id, limit=10_000).items
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    state = JobState.QUEUED
    for event in events[1:]:
        target = LEADS_TO.get(event.type, state)
        if target is None:
            target = JobState.RUNNING if state is JobState.PAUSING else JobState.QUEUED
        assert target is state or target in MOVES[state], f"{event.type} when {state}"
        state = target
    job = store.show(job_id)
    assert job.state == state
    assert job.last_event == len(events)
    attempts = [found.attempt for found in store.attempts(job_id)]
    assert [attempt.number for attempt in attempts] == list(range(1, job.attempts + 1))
    tokens = [attempt.fencing_token for attempt in attempts]
    assert tokens == sorted(set(tokens))
    assert all((a.ended_at is not None) == (a.fencing_token != job.fencing_token) for a in attempts)


def _require_ledger(service: Service, job_id: UUID) -> None:
    """Each mask is there once, worth what it is worth, written by the attempt that measured it.

    A mask is measured twice only where an attempt was lost with it.
    """
    with Session(service.engine) as session:
        query = select(Evaluation).where(Evaluation.job_id == job_id)
        rows = {(row.round, row.trial): row for row in session.scalars(query)}
    accounts = service.store.attempts(job_id)
    claim = _claim(service.store, job_id)
    own = {account.attempt.fencing_token for account in accounts}
    measured = _journal(service, job_id)
    for place, row in rows.items():
        assert row.utility == utility(claim, *place)
        assert row.fencing_token in own
    assert set(measured) <= set(rows)
    again = sum(count - 1 for count in measured.values())
    assert again <= sum(account.attempt.outcome in LOSSES for account in accounts)


def _require_result(service: Service, job_id: UUID) -> None:
    """One file, of the attempt that succeeded, as an undisturbed run would have it."""
    (artifact,) = service.store.artifacts(job_id)
    succeeded = service.store.attempts(job_id)[-1].attempt
    assert succeeded.outcome == "succeeded"
    assert f"/{succeeded.fencing_token}/" in artifact.key
    claim = _claim(service.store, job_id)
    expected = [
        [trial, utility(claim, number, trial)]
        for number in range(1, ROUNDS + 1)
        for trial in range(MASKS)
    ]
    stored = StoredFile(artifact.key, artifact.size_bytes, artifact.sha256)
    assert json.loads(b"".join(sound_pieces(service.files, stored))) == expected
    assert service.digests(job_id) == {"model": artifact.sha256}


def _claim(store: JobStore, job_id: UUID) -> Claim:
    request = JobRequest.model_validate(store.show(job_id).request)
    return Claim(job_id, 0, 0, request)


def _journal(service: Service, job_id: UUID) -> Counter[tuple[int, int]]:
    """How often the engine has written each mask down, after the database had."""
    path = service.settings.data_dir / f"{JOURNAL}-{job_id}"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return Counter((line["round"], line["trial"]) for line in found)
