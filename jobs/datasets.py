"""Uploaded texts: content-addressed, each of one owner, named by jobs as `dataset:ID`.

The id is made of owner, type and content: the same upload is the same data set, and comes back
under the same id when it was deleted. A row is there before its file, and is seen once the file is;
what is left of uploads that died is collected (`jobs.dead_uploads`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Engine, Select, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from bonsai_core.config import PruneRequest
from bonsai_core.errors import InvalidCalibrationError
from jobs.artifacts import ArtifactStore, StoredFile
from jobs.audit import record
from jobs.dataset_text import DatasetType
from jobs.errors import DamagedFileError, DatasetInUseError, DatasetNotFoundError
from jobs.pages import Page, newest_first
from jobs.quota import require_disk
from jobs.records import Dataset, Job
from jobs.request import JobRequest, owner_for
from jobs.roles import OnBehalf
from jobs.sources import DATASET

_NAMES = UUID("b0215a1d-0000-5000-8000-000000000000")


@dataclass(frozen=True, slots=True)
class Upload:
    """A text that has come whole, and was looked at.

    Attributes:
        path: where it is for now.
    """

    path: Path
    media_type: DatasetType
    size_bytes: int
    lines: int
    sha256: str


class DatasetStore(OnBehalf):
    """Data sets as clients see them. Those methods that take an id raise DatasetNotFoundError where
    there is none."""

    def __init__(
        self, engine: Engine, files: ArtifactStore, disk_per_owner: int | None = None
    ) -> None:
        self._engine = engine
        self._files = files
        self._disk_per_owner = disk_per_owner

    def owner_of(self, named: str | None) -> str:
        """Whose an upload is; WrongOwnerError where the caller may not upload for the one named."""
        return owner_for(named, self._caller)

    def add(self, upload: Upload, *, name: str | None, owner: str) -> tuple[Dataset, bool]:
        """Keep an upload; True: its content was there before, and stays as it is.

        Raises:
            QuotaExceededError: the owner's files take too much of the disk.
        """
        dataset_id = _id_of(owner, upload)
        folder = f"datasets/{uuid4()}"
        key = f"{folder}/text{upload.media_type.suffix}"
        if (known := self._known(dataset_id)) is not None:
            return known, True
        with Session(self._engine) as session, session.begin():
            require_disk(session, owner, self._disk_per_owner)
            session.execute(
                insert(Dataset)
                .values(
                    id=dataset_id,
                    owner=owner,
                    name=name,
                    media_type=upload.media_type,
                    size_bytes=upload.size_bytes,
                    lines=upload.lines,
                    sha256=upload.sha256,
                    key=key,
                )
                .on_conflict_do_nothing()
            )
        # Outside of any transaction: it may take minutes.
        stored = self._files.put(key, upload.path)
        if (won := self._finish(dataset_id, stored)) is None:
            self._files.delete(folder)
            return self.add(upload, name=name, owner=owner)
        return won, False

    def require(self, request: JobRequest) -> None:
        """See `require_dataset`; nothing holds it there."""
        with Session(self._engine) as session:
            require_dataset(session, request)

    def list(self, *, limit: int, cursor: str | None = None) -> Page[Dataset]:
        """Up to `limit` of them, newest first; InvalidCursorError for a foreign cursor."""
        with Session(self._engine) as session:
            return newest_first(session, Dataset, self._seen(), limit, cursor)

    def show(self, dataset_id: UUID) -> Dataset:
        """One data set."""
        with Session(self._engine) as session:
            return self._existing(session, dataset_id)

    def delete(self, dataset_id: UUID) -> None:
        """Remove a data set with its file.

        Raises:
            DatasetInUseError: a job that has not ended needs it.
        """
        with Session(self._engine) as session, session.begin():
            row = self._existing(session, dataset_id, lock=True)
            using = select(Job.id).where(Job.dataset_id == row.id, Job.finished_at.is_(None))
            user = session.scalar(using.order_by(Job.created_at).limit(1))
            if user is not None:
                raise DatasetInUseError(dataset_id, user)
            key = row.key
            session.delete(row)
            record(session, self._caller, "delete_dataset", f"datasets/{dataset_id}")
        self._files.delete(folder_of(key))

    def _known(self, dataset_id: UUID) -> Dataset | None:
        with Session(self._engine) as session:
            query = select(Dataset).where(Dataset.id == dataset_id, Dataset.stored_at.is_not(None))
            return session.scalar(query)

    def _finish(self, dataset_id: UUID, stored: StoredFile) -> Dataset | None:
        """Make an upload seen; None where another one of the same was faster, or it was removed."""
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            row = session.scalar(
                update(Dataset)
                .where(Dataset.id == dataset_id, Dataset.stored_at.is_(None))
                .values(key=stored.key, stored_at=func.now())
                .returning(Dataset)
            )
            if row is not None:
                size = {"size_bytes": row.size_bytes, "owner": row.owner}
                record(session, self._caller, "upload_dataset", f"datasets/{row.id}", **size)
        return row

    def _seen(self) -> Select[Dataset]:
        query = select(Dataset).where(Dataset.stored_at.is_not(None))
        owner = self._only_owner
        return query if owner is None else query.where(Dataset.owner == owner)

    def _existing(self, session: Session, dataset_id: UUID, *, lock: bool = False) -> Dataset:
        query = self._seen().where(Dataset.id == dataset_id)
        row = session.scalar(query.with_for_update() if lock else query)
        if row is None:
            raise DatasetNotFoundError(dataset_id)
        return row


def named_in(request: PruneRequest) -> UUID | None:
    """The data set that a job calibrates on, where it is one; see `Sources` for its spelling."""
    source = request.calibration.source
    return UUID(source.removeprefix(DATASET)) if source.startswith(DATASET) else None


def require_dataset(session: Session, request: JobRequest) -> UUID | None:
    """The data set of a request, which stays there to the end of the transaction.

    Raises:
        InvalidCalibrationError: its owner has no such data set, or it is too short.
    """
    dataset_id = named_in(request)
    if dataset_id is None:
        return None
    mine = (Dataset.id == dataset_id, Dataset.owner == request.owner)
    query = select(Dataset).where(*mine, Dataset.stored_at.is_not(None))
    row = session.scalar(query.with_for_update(read=True, key_share=True))
    text = request.calibration
    if row is None:
        raise InvalidCalibrationError(
            f"{request.owner} has no such data set",
            field="calibration.source",
            value=text.source,
            allowed="dataset: and an id of GET /v1/datasets",
            cure="upload it (POST /v1/datasets); the same content has the same id again",
        )
    if row.size_bytes < text.tokens:
        raise InvalidCalibrationError(
            f"the data set has {row.size_bytes} bytes and cannot hold {text.samples} sequences of "
            f"{text.sequence_length} tokens",
            field="calibration.source",
            value=text.source,
            cure="give a longer text, or lower calibration.samples or sequence_length",
        )
    return dataset_id


@contextmanager
def text_of(
    engine: Engine, files: ArtifactStore, request: PruneRequest, scratch: Path
) -> Iterator[Path | None]:
    """A file with the text of a request's data set, for as long as the context lasts; None where
    its text is something else.

    Raises:
        InvalidCalibrationError: it was deleted, or is not what was uploaded.
    """
    dataset_id = named_in(request)
    if dataset_id is None:
        yield None
        return
    with Session(engine) as session:
        row = session.get(Dataset, dataset_id)
    if row is None:
        raise InvalidCalibrationError(
            "there is no such data set any more",
            field="calibration.source",
            value=request.calibration.source,
            cure="upload it again, and retry the job",
        )
    with _sound(files, row, scratch) as path:
        # By its ending the text is known for what it is.
        link = scratch / f"calibration{DatasetType(row.media_type).suffix}"
        link.symlink_to(path)
        yield link


@contextmanager
def _sound(files: ArtifactStore, row: Dataset, scratch: Path) -> Iterator[Path]:
    with ExitStack() as stack:
        stored = StoredFile(row.key, row.size_bytes, row.sha256)
        try:
            path = stack.enter_context(files.at_hand(stored, scratch))
        except DamagedFileError as error:
            raise InvalidCalibrationError(
                f"the stored text is damaged: {error}",
                field="calibration.source",
                value=f"{DATASET}{row.id}",
                cure="delete the data set, upload it again, and retry the job",
            ) from error
        yield path


def _id_of(owner: str, upload: Upload) -> UUID:
    return uuid5(_NAMES, f"{owner} {upload.media_type} {upload.sha256}")


def folder_of(key: str) -> str:
    """What an upload has to itself in the store, by the key of its text."""
    return key.rpartition("/")[0]
