"""How fast devices prune, measured on the jobs that have run there.

A speed is forward tokens times parameters, without embeddings, by the second. Of a job that has
succeeded the whole time counts, loading and saving included; of one that runs, its trials.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    cast,
    distinct,
    func,
    select,
    true,
)
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import LateralFromClause

from jobs.records import Attempt, Evaluation, Event, Job
from jobs.states import WITHOUT_WORKER, JobState

_FINISHED = 100
"""Jobs that ended last and are looked at; a device may have changed since the others."""


class Basis(StrEnum):
    """What an expected duration is told from."""

    THIS_MODEL = "measured_on_this_model"
    OTHER_MODELS = "scaled_from_other_models"
    NOT_KNOWN = "not_known"


@dataclass(frozen=True, slots=True)
class Sample:
    """What one job has shown of a device.

    Attributes:
        device: its name.
        model: source of the job's model.
        parameters: of that model, without embeddings.
        forward_tokens: that ran through it.
        seconds: that they took.
    """

    device: str
    model: str
    parameters: int
    forward_tokens: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Duration:
    """How long a job would run on a kind of device.

    Attributes:
        device: its name.
        seconds: None: not known.
        basis: what that is told from.
        jobs: how many of them.
        parameters: of their models, without embeddings; None without any.
    """

    device: str
    seconds: float | None = None
    basis: Basis = Basis.NOT_KNOWN
    jobs: int = 0
    parameters: int | None = None


def samples(session: Session) -> Sequence[Sample]:
    """What the jobs that run and those that succeeded last have shown."""
    rows = [*session.execute(_finished()), *session.execute(_running())]
    return [
        Sample(row.device, row.model, row.parameters, float(row.tokens), float(row.seconds))
        for row in rows
        if row.tokens and row.seconds > 0
    ]


def durations(
    known: Sequence[Sample],
    *,
    model: str,
    parameters: int | None,
    forward_tokens: int | None,
    devices: Iterable[str],
) -> list[Duration]:
    """How long a job would run on each of these devices.

    Jobs of the same model tell it; without any, those of the models whose size is nearest.
    """
    if parameters is None or forward_tokens is None:
        return [Duration(device) for device in devices]
    work = forward_tokens * parameters
    return [_duration(device, known, model, parameters, work) for device in devices]


def _duration(
    device: str, known: Sequence[Sample], model: str, parameters: int, work: int
) -> Duration:
    here = [sample for sample in known if sample.device == device]
    if not here:
        return Duration(device)
    basis, same = Basis.THIS_MODEL, [sample for sample in here if sample.model == model]
    if not same:
        size = min(
            (sample.parameters for sample in here),
            key=lambda size: (abs(math.log(size / parameters)), size),
        )
        basis, same = Basis.OTHER_MODELS, [sample for sample in here if sample.parameters == size]
    done = sum(sample.forward_tokens * sample.parameters for sample in same)
    seconds = work * sum(sample.seconds for sample in same) / done
    return Duration(device, seconds, basis, len(same), same[0].parameters)


def _finished() -> Select[Any]:
    """Jobs that went from nothing to success, on one kind of device."""
    job = (
        select(Job.id, _MODEL.label("model"))
        .where(Job.state == JobState.SUCCEEDED, Job.retry_of.is_(None))
        .order_by(Job.finished_at.desc())
        .limit(_FINISHED)
        .subquery()
    )
    held = (
        select(
            func.min(Attempt.device).label("device"),
            func.count(distinct(Attempt.device)).label("devices"),
            func.sum(func.extract("epoch", Attempt.ended_at - Attempt.started_at)).label("seconds"),
        )
        .where(Attempt.job_id == job.c.id)
        .lateral()
    )
    loaded = _loaded(job.c.id)
    tokens = loaded.c.forward_tokens.label("tokens")
    return (
        select(held.c.device, job.c.model, loaded.c.parameters, tokens, held.c.seconds)
        .select_from(job)
        .join(held, true())
        .join(loaded, true())
        .where(held.c.devices == 1)
    )


def _running() -> Select[Any]:
    """The trials that the present attempts have made."""
    job = (
        select(Job.id, Attempt.fencing_token, Attempt.device, _MODEL.label("model"))
        .join(Attempt, Attempt.fencing_token == Job.fencing_token)
        .where(Job.state.in_(WITHOUT_WORKER))
        .subquery()
    )
    made = (
        select(func.count().label("trials"), func.sum(Evaluation.seconds).label("seconds"))
        .where(Evaluation.job_id == job.c.id, Evaluation.fencing_token == job.c.fencing_token)
        .lateral()
    )
    loaded = _loaded(job.c.id)
    of_one = loaded.c.trial_tokens / func.nullif(loaded.c.trials, 0)
    tokens = (made.c.trials * of_one).label("tokens")
    return (
        select(job.c.device, job.c.model, loaded.c.parameters, tokens, made.c.seconds)
        .select_from(job)
        .join(made, true())
        .join(loaded, true())
    )


def _loaded(job_id: ColumnElement[UUID]) -> LateralFromClause:
    """What the core said last of a job's model, and of what the job will spend."""
    return (
        select(
            _number("non_embedding_parameters").label("parameters"),
            *(_number(name).label(name) for name in ("forward_tokens", "trial_tokens", "trials")),
        )
        .where(Event.job_id == job_id, Event.type == "model_loaded")
        .order_by(Event.sequence.desc())
        .limit(1)
        .lateral()
    )


def _number(name: str) -> ColumnElement[int]:
    return cast(Event.data[name].astext, BigInteger)


_MODEL = Job.request["model"]["source"].astext
