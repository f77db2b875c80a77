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
from jobs.states import MOVES, WISHES, WITHOUT_WORKER, JobState, Wish
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
        if source.is_held:
            job.fencing_token, job.lease_expires_at = 1, job.created_at
    with Session(engine) as session, session.begin():
        values = HELD if target.is_held else {}
        moved = move(session, job_id, target, data={}, values=values)
    assert moved == (target in MOVES[source])
    assert JobStore(engine).show(job_id).state == (target if moved else source)


@pytest.mark.parametrize("wish", [Wish.PAUSE, Wish.RESUME, Wish.CANCEL])
def test_wishes_lead_where_moves_lead_and_asking_twice_is_legal(wish: Wish) -> None:
    for state, target in WISHES[wish].items():
        assert target is state or target in MOVES[state]
        # What a wish makes of a job at once, or with its worker gone, is no reason to refuse it.
        for after in (target, WITHOUT_WORKER.get(target, target)):
            assert after in WISHES[wish]


def test_a_held_job_can_come_to_where_it_goes_without_its_worker() -> None:
    assert all(target in MOVES[state] for state, target in WITHOUT_WORKER.items())
    assert not any(state.is_held for state in WITHOUT_WORKER.values())


def test_the_diagram_in_the_documentation_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", page, flags=re.MULTILINE))
    table = {(str(source), str(target)) for source, found in MOVES.items() for target in found}
    assert {pair for pair in drawn if "start" not in pair and "end" not in pair} == table


def test_the_table_of_wishes_in_the_documentation_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "states.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in page[page.index("## What may be asked") :].splitlines()
        if line.startswith("|")
    ]
    heads = [JobState(name) for name in rows[0][1:]]
    drawn = {
        (Wish(row[0]), state): state if cell == "no change" else JobState(cell)
        for row in rows[2:]
        for state, cell in zip(heads, row[1:], strict=True)
        if cell
    }
    assert heads == list(JobState)
    assert drawn == {(w, s): t for w, found in WISHES.items() for s, t in found.items()}
