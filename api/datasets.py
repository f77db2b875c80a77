"""Uploaded texts, as they go over the wire."""

from datetime import datetime
from typing import Self
from uuid import UUID

from api.wire import Wire
from jobs import records
from jobs.dataset_text import DatasetType
from jobs.sources import DATASET


class DatasetLinks(Wire):
    """Where the data set is; paths of this service."""

    self: str
    """The data set (GET, DELETE)."""

    content: str
    """Its text (GET, HEAD); Range and If-Range work."""


class Dataset(Wire):
    """An uploaded text. What it holds never changes."""

    id: UUID
    """Made of owner, type and content: the same upload has the same id."""

    source: str
    """What a job says as `calibration.source` to use it."""

    owner: str
    """Whose jobs may use it."""

    name: str | None
    media_type: DatasetType
    size_bytes: int
    lines: int
    sha256: str
    """Of the text, in hexadecimal digits."""

    created_at: datetime
    links: DatasetLinks

    @classmethod
    def of(cls, row: records.Dataset) -> Self:
        """The data set of a row."""
        path = dataset_path(row.id)
        return cls(
            id=row.id,
            source=f"{DATASET}{row.id}",
            owner=row.owner,
            name=row.name,
            media_type=DatasetType(row.media_type),
            size_bytes=row.size_bytes,
            lines=row.lines,
            sha256=row.sha256,
            created_at=row.created_at,
            links=DatasetLinks(self=path, content=f"{path}/content"),
        )


class DatasetPage(Wire):
    """Some data sets, newest first."""

    items: list[Dataset]
    next_cursor: str | None
    """Pass it as `cursor` for those that follow; null on the last page."""


def dataset_path(dataset_id: UUID) -> str:
    """The path of a data set."""
    return f"/v1/datasets/{dataset_id}"
