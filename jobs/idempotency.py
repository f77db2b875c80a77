"""Submissions that may be made again: a key of the client's makes one job, or one batch.

It is inserted in the transaction that inserts what it makes, and before that. So there are both or
neither, and who comes second with a key waits for the first, and finds what that one has made.
"""

import hashlib
import json
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

Submission = JobRequest | BatchRequest


def made_by(session: Session, key: str | None, request: Submission) -> UUID | None:
    """What a key has made so far, if anything.

    Raises:
        IdempotencyKeyReusedError: it was for another request.
    """
    if key is None:
        return None
    found = session.get(IdempotencyKey, (_resource(request), key))
    if found is None:
        return None
    return _checked(key, request, found.sha256, found.made_id)


def take(session: Session, key: str | None, request: Submission, new_id: UUID) -> UUID:
    """Let a key make `new_id`, unless it has made something before: that.

    Raises:
        IdempotencyKeyReusedError: it was for another request.
    """
    if key is None:
        return new_id
    values = {
        "resource": _resource(request),
        "key": key,
        "sha256": _digest(request),
        "made_id": new_id,
    }
    query = (
        insert(IdempotencyKey)
        .values(values)
        # Changes nothing, but gives the row, whoever has inserted it.
        .on_conflict_do_update(index_elements=["resource", "key"], set_={"key": key})
        .returning(IdempotencyKey.sha256, IdempotencyKey.made_id)
    )
    sha256, made_id = session.execute(query).one()
    return _checked(key, request, sha256, made_id)


def forget_old(session: Session) -> None:
    """Forget the keys that are old enough for it."""
    old = IdempotencyKey.created_at < func.now() - FORGOTTEN_AFTER
    session.execute(delete(IdempotencyKey).where(old))


def _checked(key: str, request: Submission, sha256: str, made_id: UUID) -> UUID:
    if sha256 != _digest(request):
        raise IdempotencyKeyReusedError(key, _resource(request), made_id)
    return made_id


def _resource(request: Submission) -> str:
    return "batch" if isinstance(request, BatchRequest) else "job"


def _digest(request: Submission) -> str:
    # What was said, without the defaults: an upgrade between two tries may bring new ones.
    said = request.model_dump(mode="json", exclude_unset=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
