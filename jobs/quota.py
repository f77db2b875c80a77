"""What the files of an owner may take of the disk."""

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from jobs.errors import QuotaExceededError
from jobs.records import Dataset, Job
from jobs.stored_bytes import bytes_of


def require_disk(session: Session, owner: str, allowed: int | None) -> None:
    """Refuse more files of an owner whose jobs and data sets take as many bytes as it may have.

    Raises:
        QuotaExceededError: they do.
    """
    if allowed is None:
        return
    kept = select(bytes_of(Job.id).label("bytes")).where(
        Job.owner == owner, Job.expired_at.is_(None)
    )
    uploaded = select(Dataset.size_bytes.label("bytes")).where(Dataset.owner == owner)
    files = union_all(kept, uploaded).subquery()
    used = int(session.scalar(select(func.coalesce(func.sum(files.c.bytes), 0))) or 0)
    if used >= allowed:
        cure = (
            "unpin what is not needed and collect it (bonsai gc), delete data sets, or ask for a "
            "larger quota"
        )
        raise QuotaExceededError(owner, f"files of {used} bytes", allowed, cure)
