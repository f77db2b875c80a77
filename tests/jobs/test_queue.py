"""Which job is next, why another waits, and which will never run."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, literal, select, text, update
from sqlalchemy.orm import Session

from jobs.attempts import AttemptStore, Claim
from jobs.errors import QuotaExceededError, UnknownDependencyError
from jobs.fairness import Fairness
from jobs.queue import next_jobs, window_closed
from jobs.records import Job, Usage
from jobs.request import JobRequest
from jobs.schedule import Day, Schedule, WaitingReason, Window
from jobs.states import JobState, Wish
from jobs.store import JobStore
from tests.devices import HOST

Submit = Callable[..., UUID]
NOW = datetime.now(UTC)


@pytest.fixture
def attempts(engine: Engine) -> AttemptStore:
    return AttemptStore(engine)


@pytest.fixture(autouse=True)
def nobody_used_anything(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE usages"))


@pytest.fixture
def submit(store: JobStore, body: dict[str, Any]) -> Submit:
    def make(owner: str = "default", **schedule: Any) -> UUID:
        request = JobRequest.model_validate({**body, "owner": owner, "schedule": schedule})
        return store.submit(request).id

    return make


def claim(attempts: AttemptStore) -> Claim | None:
    return attempts.claim(worker="test", device=HOST, lease_seconds=60)


def claimed(attempts: AttemptStore) -> UUID:
    found = claim(attempts)
    assert found is not None
    return found.job_id


def waiting(engine: Engine, fairness: Fairness) -> list[UUID]:
    with Session(engine) as session:
        return list(session.scalars(next_jobs(fairness, HOST)))


def place(store: JobStore, job_id: UUID) -> tuple[int | None, WaitingReason | None]:
    found = store.places([store.show(job_id)])[job_id]
    return found.position, found.reason


def test_a_higher_priority_goes_first_and_the_older_of_equals(
    store: JobStore, attempts: AttemptStore, submit: Submit
) -> None:
    levels = ["normal", "lowest", "highest", "low", "high", "normal"]
    jobs = [submit(priority=level) for level in levels]
    order = [jobs[index] for index in (2, 4, 0, 5, 3, 1)]
    assert [place(store, job) for job in order] == [(rank, None) for rank in range(1, 7)]
    assert [claimed(attempts) for _ in order] == order


def test_waiting_lifts_a_job_above_newer_ones(engine: Engine, submit: Submit) -> None:
    old, new = submit(priority="lowest"), submit(priority="highest")
    fairness = Fairness(ageing_seconds=3600)
    _age(engine, old, timedelta(hours=3.9))
    assert waiting(engine, fairness) == [new, old]
    _age(engine, old, timedelta(hours=5))
    assert waiting(engine, fairness) == [old, new]


def _age(engine: Engine, job_id: UUID, age: timedelta) -> None:
    with Session(engine) as session, session.begin():
        created = session.scalar(select(literal(datetime.now(UTC) - age)))
        session.execute(update(Job).where(Job.id == job_id).values(created_at=created))


def test_owners_take_turns_however_many_jobs_one_has(
    attempts: AttemptStore, submit: Submit
) -> None:
    many = [submit("many") for _ in range(4)]
    few = [submit("few") for _ in range(2)]
    # What runs counts as it goes: the second one has used less until its queue is empty.
    assert [claimed(attempts) for _ in range(4)] == [many[0], few[0], few[1], many[1]]


def test_what_an_owner_has_used_is_forgotten_by_halves(engine: Engine, submit: Submit) -> None:
    fairness = Fairness(half_life_seconds=3600)
    first, second = submit("heavy"), submit("light")
    with Session(engine) as session, session.begin():
        session.add(Usage(owner="heavy", device_seconds=8000, at=NOW - timedelta(hours=2)))
        session.add(Usage(owner="light", device_seconds=2100, at=NOW))
    assert waiting(engine, fairness) == [first, second]
    with Session(engine) as session, session.begin():
        session.execute(update(Usage).values(at=NOW))
    assert waiting(engine, fairness) == [second, first]


def test_an_attempt_is_charged_to_its_owner(
    engine: Engine, attempts: AttemptStore, submit: Submit
) -> None:
    submit("team")
    held = claim(attempts)
    assert held is not None
    with engine.begin() as connection:
        connection.execute(text("UPDATE attempts SET started_at = now() - interval '90 seconds'"))
    attempts.release(held, "drained")
    with Session(engine) as session:
        usage = session.get_one(Usage, "team")
    assert 90 <= usage.device_seconds < 95
    assert claim(attempts) is not None


@pytest.mark.parametrize(
    ("schedule", "reason"),
    [
        ({"not_before": NOW + timedelta(hours=1)}, WaitingReason.NOT_BEFORE),
        ({"not_before": NOW - timedelta(hours=1)}, None),
        ({"deadline": NOW + timedelta(hours=1)}, None),
    ],
)
def test_a_job_waits_until_it_may_run(
    store: JobStore,
    attempts: AttemptStore,
    submit: Submit,
    schedule: dict[str, Any],
    reason: WaitingReason | None,
) -> None:
    job_id = submit(**schedule)
    assert place(store, job_id) == ((1, None) if reason is None else (None, reason))
    assert (claim(attempts) is None) == (reason is not None)


def test_a_job_that_waits_moves_nobodys_place(store: JobStore, submit: Submit) -> None:
    submit(priority="highest", not_before=NOW + timedelta(hours=1))
    assert place(store, submit()) == (1, None)


def test_a_job_waits_for_another_to_succeed(
    store: JobStore, attempts: AttemptStore, submit: Submit
) -> None:
    first = submit()
    second = submit(priority="highest", after=first)
    assert place(store, second) == (None, WaitingReason.DEPENDENCY)
    held = claim(attempts)
    assert held is not None
    assert held.job_id == first
    assert claim(attempts) is None
    attempts.succeed(held, {}, [])
    assert place(store, second) == (1, None)
    assert claimed(attempts) == second


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_job_fails_with_the_one_it_waits_for(
    store: JobStore, attempts: AttemptStore, submit: Submit, end: str
) -> None:
    first = submit()
    second = submit(after=first)
    third = submit(after=second)
    assert attempts.fail_hopeless() == []
    if end == "fail":
        held = claim(attempts)
        assert held is not None
        attempts.fail(held, {"code": "x"})
    else:
        store.ask(first, Wish.CANCEL)
    assert attempts.fail_hopeless() == [second]
    assert attempts.fail_hopeless() == [third]
    job = store.show(second)
    assert job.state == JobState.FAILED
    assert job.error is not None
    assert (job.error["code"], job.error["job"]) == ("dependency_failed", str(first))


@pytest.mark.parametrize("state", ["unknown", "failed", "cancelled"])
def test_a_job_that_cannot_succeed_is_not_waited_for(
    store: JobStore, attempts: AttemptStore, submit: Submit, state: str
) -> None:
    after = uuid4() if state == "unknown" else submit()
    if state == "cancelled":
        store.ask(after, Wish.CANCEL)
    elif state == "failed":
        held = claim(attempts)
        assert held is not None
        attempts.fail(held, {"code": "x"})
    with pytest.raises(UnknownDependencyError, match=str(after)):
        submit(after=after)


@pytest.mark.parametrize("paused", [False, True])
def test_a_job_past_its_deadline_fails(
    engine: Engine, store: JobStore, attempts: AttemptStore, submit: Submit, paused: bool
) -> None:
    job_id, other = submit(deadline=NOW + timedelta(hours=1)), submit()
    if paused:
        store.ask(job_id, Wish.PAUSE)
    assert attempts.fail_hopeless() == []
    with Session(engine) as session, session.begin():
        session.execute(update(Job).where(Job.id == job_id).values(deadline=NOW))
    assert attempts.fail_hopeless() == [job_id]
    job = store.show(job_id)
    assert job.error is not None
    assert (job.state, job.error["code"]) == (JobState.FAILED, "deadline_passed")
    assert store.show(other).state == JobState.QUEUED


def test_the_holder_hears_of_a_deadline_and_of_a_closed_window(
    engine: Engine, attempts: AttemptStore, submit: Submit
) -> None:
    submit(deadline=NOW + timedelta(hours=1), window={"hours": _hours_around_now()})
    held = claim(attempts)
    assert held is not None
    renewal = attempts.renew(held, 60)
    assert (renewal.window_closed, renewal.missed) == (False, None)
    with Session(engine) as session, session.begin():
        closed = Window(hours=_hours_not_now())
        values = {"window_opens": closed.opens, "window_closes": closed.closes, "deadline": NOW}
        session.execute(update(Job).values(values))
    renewal = attempts.renew(held, 60)
    assert (renewal.window_closed, renewal.missed) == (True, NOW)
    with Session(engine) as session, session.begin():
        session.execute(update(Job).values(window_finish=True))
    assert not attempts.renew(held, 60).window_closed


def _hours_around_now() -> str:
    hour = datetime.now(UTC).hour
    return f"{(hour - 1) % 24:02}:00-{(hour + 2) % 24:02}:00"


def _hours_not_now() -> str:
    hour = datetime.now(UTC).hour
    return f"{(hour + 2) % 24:02}:00-{(hour + 4) % 24:02}:00"


def test_a_job_waits_for_its_window(
    store: JobStore, attempts: AttemptStore, submit: Submit
) -> None:
    closed = submit(window={"hours": _hours_not_now()})
    opened = submit(window={"hours": _hours_around_now()})
    assert place(store, closed) == (None, WaitingReason.WINDOW)
    assert claimed(attempts) == opened
    assert claim(attempts) is None


BERLIN = ZoneInfo("Europe/Berlin")
WINDOWS = [
    # The clock of the zone decides, in summer and in winter.
    ({"hours": "22:00-07:00", "zone": "Europe/Berlin"}, "2026-07-01T22:00", True),
    ({"hours": "22:00-07:00", "zone": "Europe/Berlin"}, "2026-01-01T21:59", False),
    ({"hours": "22:00-07:00", "zone": "Europe/Berlin"}, "2026-01-02T06:59", True),
    ({"hours": "22:00-07:00", "zone": "Europe/Berlin"}, "2026-01-02T07:00", False),
    ({"hours": "09:00-17:00", "zone": "Europe/Berlin"}, "2026-01-02T09:00", True),
    ({"hours": "09:00-17:00", "zone": "Europe/Berlin"}, "2026-01-02T17:00", False),
    ({"hours": "09:00-17:00", "zone": "UTC"}, "2026-01-02T09:30", False),
    # 2026-11-27 is a Friday: its night ends on Saturday, and Sunday's begins on Sunday.
    ({"hours": "22:00-07:00", "days": ["friday"]}, "2026-11-27T23:30", True),
    ({"hours": "22:00-07:00", "days": ["friday"]}, "2026-11-28T03:00", True),
    ({"hours": "22:00-07:00", "days": ["friday"]}, "2026-11-28T23:30", False),
    ({"hours": "22:00-07:00", "days": ["friday"]}, "2026-11-27T03:00", False),
]


@pytest.mark.parametrize(("window", "moment", "is_open"), WINDOWS)
def test_a_window_is_open_by_its_own_clock(
    engine: Engine, submit: Submit, window: dict[str, Any], moment: str, is_open: bool
) -> None:
    """Moments are Berlin's. The database's clock is asked for one by one, and set aside here."""
    job_id = submit(window=window)
    at = datetime.fromisoformat(moment).replace(tzinfo=BERLIN)
    compiled = select(window_closed()).where(Job.id == job_id).compile(engine)
    query = str(compiled).replace("now()", "%(moment)s")
    with engine.connect() as connection:
        raw = connection.connection.cursor()
        found = raw.execute(query, {**compiled.params, "moment": at}).fetchone()
    assert found == (not is_open,)


def test_an_owner_runs_no_more_than_its_quota(engine: Engine, submit: Submit) -> None:
    fairness = Fairness(running_per_owner=1)
    attempts, store = AttemptStore(engine, fairness), JobStore(engine, fairness)
    first, second = submit("team"), submit("team")
    other = submit("other")
    held = claim(attempts)
    assert held is not None
    assert held.job_id == first
    assert place(store, second) == (None, WaitingReason.QUOTA)
    assert claimed(attempts) == other
    assert claim(attempts) is None
    attempts.release(held, "drained")
    assert place(store, second)[0] is not None


def test_an_owners_queue_may_be_full(
    engine: Engine, body: dict[str, Any], attempts: AttemptStore
) -> None:
    store = JobStore(engine, Fairness(queued_per_owner=2))
    requests = [JobRequest.model_validate({**body, "owner": o}) for o in ("team", "other")]
    store.submit(requests[0])
    store.submit(requests[0])
    with pytest.raises(QuotaExceededError, match="'team' has 2 jobs that wait, of at most 2"):
        store.submit(requests[0])
    store.submit(requests[1])
    assert claim(attempts) is not None
    store.submit(requests[0])


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"window": {"hours": "22-7"}}, "must be like 22:00-07:00"),
        ({"window": {"hours": "24:00-07:00"}}, "must be like 22:00-07:00"),
        ({"window": {"hours": "07:00-07:00"}}, "must not open and close at the same time"),
        ({"window": {"hours": "22:00-07:00", "zone": "Mars"}}, "IANA time zone"),
        ({"window": {"hours": "22:00-07:00", "days": []}}, "at least 1"),
        ({"not_before": "2026-01-01T00:00:00"}, "timezone"),
        (
            {"not_before": "2026-01-02T00:00:00Z", "deadline": "2026-01-01T00:00:00Z"},
            "deadline must be later than not_before",
        ),
        ({"priority": "urgent"}, "'lowest', 'low', 'normal', 'high' or 'highest'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Schedule.model_validate(schedule)


def test_a_window_is_every_day_and_pauses_unless_it_says_otherwise() -> None:
    window = Window(hours="22:00-07:00")
    assert (window.zone, window.days, window.at_close) == ("UTC", tuple(Day), "pause")
