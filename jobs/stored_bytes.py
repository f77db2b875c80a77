"""What the files of a job take."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, func, select
from sqlalchemy import cast as cast_to

from jobs.records import Artifact, Round


def bytes_of(job_id: Any) -> ColumnElement[int]:
    """What the files of a job take, in bytes; `job_id` is the column of its id."""

    def of_round(column: Any) -> ColumnElement[int]:
        return func.coalesce(cast_to(column["size_bytes"].astext, BigInteger), 0)

    result = select(func.coalesce(func.sum(Artifact.size_bytes), 0)).where(
        Artifact.job_id == job_id
    )
    checkpoints = select(
        func.coalesce(func.sum(of_round(Round.prior) + of_round(Round.weights)), 0)
    ).where(Round.job_id == job_id)
    both = result.scalar_subquery() + checkpoints.scalar_subquery()
    return cast_to(both, BigInteger)
