"""The migrations make exactly the tables that the code describes, forwards and backwards."""

import json
from typing import Any
from uuid import uuid4

from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, select, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from jobs.records import Evaluation, Job, Round
from jobs.request import JobRequest
from jobs.schema import REVISION
from migrations import configuration, upgrade


def test_the_migrated_schema_is_that_of_the_records(database_url: str) -> None:
    command.check(configuration(database_url))


def test_upgrading_twice_changes_nothing(database_url: str) -> None:
    upgrade(database_url)
    command.check(configuration(database_url))


OLD_PRUNING = {"prior": "wanda", "utility": "nll", "masks_per_round": 8, "refit": True}


def test_jobs_of_before_presets_say_what_they_meant_and_half_done_ones_start_anew(
    database_url: str, body: dict[str, Any]
) -> None:
    command.downgrade(configuration(database_url), "0001")
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.begin() as connection:
        for state, finished in (("queued", "NULL"), ("succeeded", "now()")):
            job = uuid4()
            asked = {**body, "name": None, "labels": {}, "pruning": OLD_PRUNING}
            connection.execute(
                text(
                    "INSERT INTO jobs (id, labels, request, state, attempts, crashes, progress, "
                    "fingerprint, last_event, finished_at) VALUES "
                    f"(:id, '{{}}', :request, :state, 1, 0, '{{}}', 'old', 0, {finished})"
                ),
                {"id": job, "request": json.dumps(asked), "state": state},
            )
            connection.execute(
                text(
                    "INSERT INTO rounds (job_id, number, fencing_token, prior) "
                    "VALUES (:id, 1, 1, '{}')"
                ),
                {"id": job},
            )
            connection.execute(
                text("INSERT INTO evaluations VALUES (:id, 1, 0, -2.5, 0.1, 1, now())"), {"id": job}
            )
    upgrade(database_url)
    with Session(engine) as session:
        for job in session.scalars(select(Job)):
            pruning = JobRequest.model_validate(job.request).pruning
            assert (pruning.preset, pruning.recipe) == ("paper", "random_masks")
            assert (pruning.utility, pruning.refit, pruning.damping) == ("nll", True, 0.01)
            kept = int(job.state == "succeeded")
            assert job.fingerprint == ("old" if kept else None)
            for table in (Round, Evaluation):
                found = session.scalars(select(table).where(table.job_id == job.id)).all()
                assert len(found) == kept
    engine.dispose()


def test_downgrading_leaves_nothing_and_upgrading_again_works(database_url: str) -> None:
    command.downgrade(configuration(database_url), "base")
    engine = create_engine(database_url, poolclass=NullPool)
    assert inspect(engine).get_table_names() == ["alembic_version"]
    assert inspect(engine).get_sequence_names() == []
    upgrade(database_url)
    command.check(configuration(database_url))


def test_the_code_knows_the_newest_revision(database_url: str) -> None:
    newest = ScriptDirectory.from_config(configuration(database_url)).get_current_head()
    assert newest == REVISION, "jobs.schema.REVISION must name the newest of the migrations"
