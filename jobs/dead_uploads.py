"""Removing what is left of uploads that died."""

from datetime import timedelta

from sqlalchemy import Engine, delete, func
from sqlalchemy.orm import Session

from jobs.artifacts import ArtifactStore
from jobs.datasets import folder_of
from jobs.records import Dataset

_LAST = timedelta(days=1)
"""An upload that has not ended by then has died."""


def remove_dead_uploads(engine: Engine, files: ArtifactStore) -> int:
    """Remove their rows and files; how many there were."""
    died = (Dataset.stored_at.is_(None), Dataset.created_at < func.now() - _LAST)
    with Session(engine) as session, session.begin():
        keys = session.scalars(delete(Dataset).where(*died).returning(Dataset.key)).all()
    for key in keys:
        files.delete(folder_of(key))
    return len(keys)
