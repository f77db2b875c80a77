"""The ledger of a job as rows: rounds and evaluated masks, written by the attempt that holds it.

Every write locks the job's row and checks the fencing token first, so a worker that has lost its
lease changes nothing. Each public method is one transaction, and doing it twice is doing it once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, delete, func, insert, literal, select, union_all, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from jobs.artifacts import StoredFile
from jobs.attempts import require_held
from jobs.moves import tell
from jobs.progress import Progress
from jobs.records import Attempt, Evaluation, Job, Round


def inherit(session: Session, source: Job, target: Job) -> None:
    """Give a new job what another one has evaluated; its files stay where they are."""
    target.fingerprint = source.fingerprint
    session.flush()
    for table in (Round, Evaluation):
        columns = [column for column in table.__table__.columns if column.name != "job_id"]
        rows = select(literal(target.id), *columns).where(table.job_id == source.id)
        names = ["job_id", *(column.name for column in columns)]
        session.execute(insert(table).from_select(names, rows))


class LedgerStore:
    """Rounds and evaluations of one job, as the holder of `fencing_token` sees them."""

    def __init__(self, engine: Engine, job_id: UUID, fencing_token: int) -> None:
        self._engine = engine
        self._job_id = job_id
        self._token = fencing_token

    def bind(self, fingerprint: str) -> str:
        """The fingerprint the ledger is bound to; the first caller's becomes it.

        A ledger taken over from the job that this one retries is dropped if it is of other inputs.
        """
        with Session(self._engine) as session, session.begin():
            require_held(session, self._job_id, self._token)
            job = session.get_one(Job, self._job_id)
            if job.fingerprint not in (None, fingerprint) and self._is_inherited(session):
                for table in (Evaluation, Round):
                    session.execute(delete(table).where(table.job_id == self._job_id))
                tell(session, self._job_id, "started_anew", {"reason": "the inputs have changed"})
                job.fingerprint = None
            if job.fingerprint is None:
                job.fingerprint = fingerprint
            return job.fingerprint

    def _is_inherited(self, session: Session) -> bool:
        """Whether no attempt at this job has written to its ledger."""
        own = select(Attempt.fencing_token).where(Attempt.job_id == self._job_id)
        written = [
            select(table.job_id).where(table.job_id == self._job_id, table.fencing_token.in_(own))
            for table in (Evaluation, Round)
        ]
        return session.scalar(union_all(*written).limit(1)) is None

    def rounds(self) -> Sequence[Round]:
        """The rounds begun, in order."""
        query = select(Round).where(Round.job_id == self._job_id).order_by(Round.number)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def begin_round(self, number: int, prior: StoredFile) -> None:
        """Write a round with its prior, in place of one whose file was lost.

        Raises:
            LeaseLostError: the token is old.
        """
        begun = postgresql.insert(Round).values(
            job_id=self._job_id, number=number, fencing_token=self._token, prior=asdict(prior)
        )
        instead = {"prior": begun.excluded.prior, "fencing_token": self._token}
        with Session(self._engine) as session, session.begin():
            require_held(session, self._job_id, self._token)
            session.execute(
                begun.on_conflict_do_update(index_elements=["job_id", "number"], set_=instead)
            )

    def finish_round(
        self, number: int, record: Mapping[str, Any], weights: StoredFile | None
    ) -> None:
        """Write what a round decided; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            require_held(session, self._job_id, self._token)
            session.execute(
                update(Round)
                .where(Round.job_id == self._job_id, Round.number == number)
                .values(
                    record=dict(record),
                    weights=asdict(weights) if weights else None,
                    finished_at=func.now(),
                    fencing_token=self._token,
                )
            )

    def evaluations(self, number: int) -> dict[int, float]:
        """The utilities measured in a round, by trial."""
        query = select(Evaluation.trial, Evaluation.utility).where(
            Evaluation.job_id == self._job_id, Evaluation.round == number
        )
        with Session(self._engine) as session:
            return {row.trial: row.utility for row in session.execute(query)}

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """Insert one evaluated mask, if it is not there; LeaseLostError when the token is old."""
        evaluated = postgresql.insert(Evaluation).values(
            job_id=self._job_id,
            round=number,
            trial=trial,
            utility=utility,
            seconds=seconds,
            fencing_token=self._token,
        )
        with Session(self._engine) as session, session.begin():
            require_held(session, self._job_id, self._token)
            if (
                session.scalar(evaluated.on_conflict_do_nothing().returning(Evaluation.trial))
                is None
            ):
                return  # the answer to a first try was lost
            session.execute(
                update(Attempt)
                .where(Attempt.fencing_token == self._token)
                .values(masks_evaluated=Attempt.masks_evaluated + 1)
            )
            session.execute(
                update(Job).where(Job.id == self._job_id).values(progress_at=func.now())
            )

    def progress(self) -> Progress:
        """What is shown of the job's progress."""
        with Session(self._engine) as session:
            return Progress.model_validate(session.get_one(Job, self._job_id).progress)

    def show_progress(self, progress: Progress) -> None:
        """Replace the job's progress; LeaseLostError when the token is old."""
        with Session(self._engine) as session, session.begin():
            require_held(session, self._job_id, self._token)
            session.execute(
                update(Job)
                .where(Job.id == self._job_id)
                .values(progress=progress.model_dump(mode="json"))
            )
