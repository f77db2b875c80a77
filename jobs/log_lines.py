"""What the processes of attempts have said, as rows.

No token guards them: what an attempt has said it has said, also where it has lost its job.

Each public method is one transaction, and doing it twice is doing it once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobs.cursors import cursor_of, number_place
from jobs.errors import AttemptNotFoundError, JobNotFoundError
from jobs.records import Attempt, Job, LogLine
from jobs.roles import OnBehalf


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some lines of an attempt's log, oldest first.

    Attributes:
        next_cursor: of those that follow, if there are any by now.
        last_cursor: of those that follow, also where they are still to come.
        fencing_token: of the attempt.
        ended: whether the attempt had ended when this was read.
    """

    items: Sequence[LogLine]
    next_cursor: str | None
    last_cursor: str
    fencing_token: int
    ended: bool


class LogStore(OnBehalf):
    """Logs of attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(
        self, fencing_token: int, lines: Mapping[int, str], left_out: tuple[int, int] | None = None
    ) -> None:
        """Store lines by their numbers; nothing where the attempt is not known any longer.

        Of the lines `left_out`, first and last, only the first stays, and says so.
        """
        rows = [
            {"fencing_token": fencing_token, "number": number, "text": text}
            for number, text in lines.items()
        ]
        try:
            with Session(self._engine) as session, session.begin():
                if rows:
                    insert = postgresql.insert(LogLine).on_conflict_do_nothing()
                    session.execute(insert, rows)
                if left_out is not None:
                    _leave_out(session, fencing_token, *left_out)
        except IntegrityError:
            return

    def page(
        self,
        job_id: UUID,
        attempt: int,
        *,
        limit: int,
        cursor: str | None = None,
        tail: int | None = None,
    ) -> LogPage:
        """Up to `limit` lines after `cursor`; without one, with `tail`, the last so many.

        Raises:
            JobNotFoundError: there is no such job.
            AttemptNotFoundError: the job has had no such attempt.
            InvalidCursorError: `cursor` was not made by this method.
        """
        after = number_place(cursor) if cursor is not None else 0
        with Session(self._engine) as session:
            # The attempt first: what it says in between is then in the page.
            row = self._attempt(session, job_id, attempt)
            of_attempt = select(LogLine).where(LogLine.fencing_token == row.fencing_token)
            if tail is not None and cursor is None:
                last = of_attempt.order_by(LogLine.number.desc()).limit(tail)
                found, more = session.scalars(last).all()[::-1], False
            else:
                query = of_attempt.where(LogLine.number > after).order_by(LogLine.number)
                found = session.scalars(query.limit(limit + 1)).all()
                found, more = found[:limit], len(found) > limit
            last_cursor = cursor_of([found[-1].number if found else after])
            return LogPage(
                found,
                last_cursor if more else None,
                last_cursor,
                row.fencing_token,
                row.ended_at is not None,
            )

    def _attempt(self, session: Session, job_id: UUID, number: int) -> Attempt:
        job = session.get(Job, job_id)
        if job is None or not self._sees(job.owner):
            raise JobNotFoundError(job_id)
        of_job = Attempt.job_id == job_id
        found = session.scalar(select(Attempt).where(of_job, Attempt.number == number))
        if found is None:
            attempts = session.scalar(select(func.count()).select_from(Attempt).where(of_job)) or 0
            raise AttemptNotFoundError(job_id, number, attempts)
        return found


def _leave_out(session: Session, fencing_token: int, first: int, last: int) -> None:
    text = f"[lines {first} to {last} are left out: the first and the last of a log are kept]"
    said = postgresql.insert(LogLine).values(fencing_token=fencing_token, number=first, text=text)
    session.execute(
        said.on_conflict_do_update(
            index_elements=["fencing_token", "number"], set_={"text": said.excluded.text}
        )
    )
    session.execute(
        delete(LogLine).where(
            LogLine.fencing_token == fencing_token,
            LogLine.number > first,
            LogLine.number <= last,
        )
    )
