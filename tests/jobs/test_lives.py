"""Random lives of jobs against the real store: whatever happens, in whatever order, holds."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from hypothesis.stateful import run_state_machine_as_test as run_lives
from sqlalchemy import Engine, text, update
from sqlalchemy.orm import Session

from jobs.attempts import AttemptStore, Claim
from jobs.crashes import CrashLimits
from jobs.errors import IllegalMoveError, LeaseLostError
from jobs.ledger import LedgerStore
from jobs.records import Job
from jobs.request import JobRequest
from jobs.states import MOVES, WISHES, WITHOUT_WORKER, JobState, Wish
from jobs.store import JobStore
from tests.devices import HOST

CRASHES_ALLOWED = CrashLimits(in_a_row=3, backoff_seconds=0)
EVENTS = {"submitted", "resumed", "released", "crashed", "lease_expired", "retried"} | set(JobState)


class Lives(RuleBasedStateMachine):
    """Clients and workers, old claims among them, do what they may at any time.

    `states` is what each job has to be, from the tables in `jobs.states` alone.
    """

    engine: Engine
    body: dict[str, Any]

    jobs: Bundle[UUID] = Bundle("jobs")
    claims: Bundle[Claim] = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        with self.engine.begin() as connection:
            connection.execute(text("TRUNCATE jobs CASCADE"))
        self.store, self.attempts = JobStore(self.engine), AttemptStore(self.engine)
        self.states: dict[UUID, JobState] = {}
        self.holders: dict[UUID, int] = {}
        self.crashes: dict[UUID, int] = {}
        self.retries: dict[UUID, UUID] = {}

    @rule(target=jobs)
    def submit(self) -> UUID:
        job_id = self.store.submit(JobRequest.model_validate(self.body)).id
        self.states[job_id], self.crashes[job_id] = JobState.QUEUED, 0
        return job_id

    @rule(target=claims)
    def claim(self) -> Any:
        found = self.attempts.claim(worker="w", device=HOST, lease_seconds=600)
        queued = [job for job, state in self.states.items() if state is JobState.QUEUED]
        assert (found is None) == (not queued)
        if found is None:
            return Claim(UUID(int=0), 0, 0, JobRequest.model_validate(self.body))
        assert found.job_id in queued
        assert found.fencing_token > max(self.holders.values(), default=0)
        self.states[found.job_id] = JobState.RUNNING
        self.holders[found.job_id] = found.fencing_token
        return found

    @rule(job=jobs, wish=st.sampled_from([Wish.PAUSE, Wish.RESUME, Wish.CANCEL]))
    def ask(self, job: UUID, wish: Wish) -> None:
        state = self.states[job]
        if state not in WISHES[wish]:
            with pytest.raises(IllegalMoveError):
                self.store.ask(job, wish)
            return
        for _ in range(2):
            assert self.store.ask(job, wish).state == WISHES[wish][state]
        self.states[job] = WISHES[wish][state]

    @rule(target=jobs, job=jobs)
    def retry(self, job: UUID) -> UUID:
        if self.states[job] not in WISHES[Wish.RETRY]:
            with pytest.raises(IllegalMoveError):
                self.store.retry(job)
            return job
        again = self.store.retry(job).id
        assert self.retries.setdefault(job, again) == again
        if again not in self.states:
            self.states[again], self.crashes[again] = JobState.QUEUED, 0
        return again

    @rule(claim=claims, end=st.sampled_from(["succeed", "fail", "release", "crash", "renew"]))
    def write(self, claim: Claim, end: str) -> None:
        """By whoever has claimed it, now or long ago."""
        job = claim.job_id
        if not self._holds(claim):
            with pytest.raises(LeaseLostError):
                self._end(claim, end)
            return
        state = self.states[job]
        reached = self._end(claim, end)
        self.states[job] = self._expected(job, state, end)
        assert reached is self.states[job]

    @rule(claim=claims)
    def evaluate(self, claim: Claim) -> None:
        """A mask that nobody has evaluated."""
        ledger = LedgerStore(self.engine, claim.job_id, claim.fencing_token)
        number = sum(len(ledger.evaluations(n)) for n in (1, 2))
        if not self._holds(claim):
            with pytest.raises(LeaseLostError):
                ledger.record(1, number, 0.0, 0.0)
            return
        ledger.record(1, number, 0.0, 0.0)
        self.crashes[claim.job_id] = 0

    @rule(claim=consumes(claims))
    def lose_worker(self, claim: Claim) -> None:
        """The lease runs out, whatever was wished."""
        with Session(self.engine) as session, session.begin():
            past = text("now() - interval '1 second'")
            held = (Job.id == claim.job_id, Job.fencing_token == claim.fencing_token)
            session.execute(update(Job).where(*held).values(lease_expires_at=past))
        expired = self.attempts.expire()
        if self._holds(claim):
            assert expired == [claim.job_id]
            self.states[claim.job_id] = WITHOUT_WORKER[self.states[claim.job_id]]
        else:
            assert expired == []

    @invariant()
    def rows_are_what_the_tables_say(self) -> None:
        for job_id, state in self.states.items():
            job = self.store.show(job_id)
            assert job.state == state
            assert (job.fencing_token is not None) == state.is_held
            assert (job.finished_at is not None) == state.is_final
            events = self.store.events(job_id, limit=1000).items
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))
            assert {event.type for event in events} <= EVENTS

    @invariant()
    def attempts_end_with_their_hold(self) -> None:
        for job_id, state in self.states.items():
            ended = [a.attempt.ended_at is not None for a in self.store.attempts(job_id)]
            assert ended == [True] * (len(ended) - state.is_held) + [False] * state.is_held

    def _holds(self, claim: Claim) -> bool:
        state = self.states.get(claim.job_id)
        held = state is not None and state.is_held
        return held and self.holders.get(claim.job_id) == claim.fencing_token

    def _end(self, claim: Claim, end: str) -> JobState:
        if end == "succeed":
            return self.attempts.succeed(claim, {}, [])
        if end == "fail":
            return self.attempts.fail(claim, {"code": "x"})
        if end == "release":
            return self.attempts.release(claim, "drained")
        if end == "crash":
            return self.attempts.crashed(claim, {}, CRASHES_ALLOWED)
        return self.attempts.renew(claim, 600).state

    def _expected(self, job: UUID, state: JobState, end: str) -> JobState:
        if end == "renew":
            return state
        if state is JobState.CANCELLING:
            return JobState.CANCELLED
        if end in ("succeed", "fail"):
            return JobState.SUCCEEDED if end == "succeed" else JobState.FAILED
        if end == "crash":
            self.crashes[job] += 1
            if self.crashes[job] >= CRASHES_ALLOWED.in_a_row:
                return JobState.FAILED
        assert WITHOUT_WORKER[state] in MOVES[state]
        return WITHOUT_WORKER[state]


@pytest.fixture
def lives(engine: Engine, body: dict[str, Any]) -> type[Lives]:
    Lives.engine, Lives.body = engine, body
    return Lives


def test_no_order_of_events_breaks_a_promise(lives: type[Lives]) -> None:
    run_lives(
        lives,
        settings=settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
