"""Submissions that may be made again: a key of the client's makes one job, or one batch.

It is inserted in the transaction that inserts what it makes, and before that. So there are both or
neither, and who comes second with a key waits for the first, and finds what that one has made.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from jobs.batch import BatchRequest
from jobs.errors import IdempotencyKeyReusedError
from jobs.records import IdempotencyKey
from jobs.request import JobRequest

FORGOTTEN_AFTER = timedelta(days=7)
"""A key is known for at least so long."""


@dataclass(frozen=True, slots=True)
class SubmissionKey:
    """A key, and what it was sent with.

    Attributes:
        resource: what it makes, `job` or `batch`; a key may do so once in each, for each owner.
        key: the client's name of the submission.
        sha256: of the request as the client has said it.
    """

    resource: str
    key: str
    sha256: str


def submission_key(key: str | None, request: JobRequest | BatchRequest) -> SubmissionKey | None:
    """What a key names, if there is one."""
    if key is None:
        return None
    resource = "batch" if isinstance(request, BatchRequest) else "job"
    # What was said, without the defaults: an upgrade between two tries may bring new ones.
    said = request.model_dump(mode="json", exclude_unset=True)
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return SubmissionKey(resource, key, digest)


def made_by(session: Session, owner: str, key: SubmissionKey | None) -> UUID | None:
    """What a key of an owner has made so far, if anything.

    Raises:
        IdempotencyKeyReusedError: it was for another request.
    """
    if key is None:
        return None
    found = session.get(IdempotencyKey, (owner, key.resource, key.key))
    return None if found is None else _checked(key, found.sha256, found.made_id)


def take(session: Session, owner: str, key: SubmissionKey | None, new_id: UUID) -> UUID:
    """Let a key of an owner make `new_id`, unless it has made something before: that.

    Raises:
        IdempotencyKeyReusedError: it was for another request.
    """
    if key is None:
        return new_id
    query = (
        insert(IdempotencyKey)
        .values(**asdict(key), owner=owner, made_id=new_id)
        # Changes nothing, but gives the row, whoever has inserted it.
        .on_conflict_do_update(index_elements=["owner", "resource", "key"], set_={"key": key.key})
        .returning(IdempotencyKey.sha256, IdempotencyKey.made_id)
    )
    sha256, made_id = session.execute(query).one()
    return _checked(key, sha256, made_id)


def forget_old(session: Session) -> None:
    """Forget the keys that are old enough for it."""
    old = IdempotencyKey.created_at < func.now() - FORGOTTEN_AFTER
    session.execute(delete(IdempotencyKey).where(old))


def _checked(key: SubmissionKey, sha256: str, made_id: UUID) -> UUID:
    if sha256 != key.sha256:
        raise IdempotencyKeyReusedError(key.key, key.resource, made_id)
    return made_id
