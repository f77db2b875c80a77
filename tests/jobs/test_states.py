"""The table of moves is what the database enforces and what the documentation draws."""

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from jobs.moves import move
from jobs.records import Job
from jobs.request import JobRequest
from jobs.states import MOVES, JobState
from jobs.store import JobStore

HELD = {"fencing_token": 1, "lease_expires_at": text("now() + interval '1 minute'")}


@pytest.mark.parametrize("target", JobState)
@pytest.mark.parametrize("source", JobState)
def test_a_move_happens_exactly_where_the_table_has_it(
    engine: Engine, body: dict[str, Any], source: JobState, target: JobState
) -> None:
    job_id = JobStore(engine).submit(JobRequest.model_validate(body)).id
    with Session(engine) as session, session.begin():
        job = session.get_one(Job, job_id)
        job.state = source
        if source is JobState.RUNNING:
            job.fencing_token, job.lease_expires_at = 1, job.created_at
    with Session(engine) as session, session.begin():
        values = HELD if target is JobState.RUNNING else {}
        moved = move(session, job_id, target, data={}, values=values)
    assert moved == (target in MOVES[source])
    assert JobStore(engine).show(job_id).state == (target if moved else source)


def test_the_diagram_in_the_documentation_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", page, flags=re.MULTILINE))
    table = {(str(source), str(target)) for source, found in MOVES.items() for target in found}
    assert {pair for pair in drawn if "start" not in pair and "end" not in pair} == table
