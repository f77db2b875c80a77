"""What can go wrong with a job, apart from the prune itself (`bonsai_core.errors`)."""

from datetime import datetime
from uuid import UUID

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from bonsai_core.errors import PruneError
from jobs.roles import Role
from jobs.states import JobState, Wish, legal_wishes

__all__ = [
    "DATABASE_ERROR",
    "DATABASE_UNREACHABLE",
    "ArtifactNotFoundError",
    "AttemptNotFoundError",
    "BatchNotFoundError",
    "DamagedFileError",
    "DatasetInUseError",
    "DatasetNotFoundError",
    "DeliveryNotFoundError",
    "FirstKeyError",
    "ForbiddenSourceError",
    "IdempotencyKeyReusedError",
    "IllegalMoveError",
    "InvalidCursorError",
    "InvalidDatasetError",
    "JobError",
    "JobNotFoundError",
    "KeyEndedError",
    "KeyNotFoundError",
    "KeyTimeError",
    "LeaseLostError",
    "NotAuthenticatedError",
    "NotWaitingError",
    "PruneError",
    "QuotaExceededError",
    "SchemaOutdatedError",
    "StorageUnavailableError",
    "UnknownDependencyError",
    "WebhookDisabledError",
    "WebhookNotFoundError",
    "WorkerNotFoundError",
    "WrongOwnerError",
]

DATABASE_ERROR = SQLAlchemyError
"""Root of what the database and the way to it can raise."""

DATABASE_UNREACHABLE = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)
"""Raised when no answer came: no server, a lost connection, one that the server has ended (an
internal error to psycopg), no free connection, a timeout."""


class JobError(Exception):
    """Root of the errors of this package.

    Attributes:
        field: of the request, as a dotted path, if one is at fault.
        value: what it said.
    """

    field: str | None = None
    value: object = None


class JobNotFoundError(JobError):
    """No job has this id."""

    def __init__(self, job_id: UUID) -> None:
        self.job_id = job_id
        super().__init__(f"no job has the id {job_id}; GET /v1/jobs lists those that exist")


class BatchNotFoundError(JobError):
    """No batch has this id."""

    def __init__(self, batch_id: UUID) -> None:
        self.batch_id = batch_id
        super().__init__(f"no batch has the id {batch_id}; a job tells its batch_id")


class WorkerNotFoundError(JobError):
    """No worker has this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"no worker has the name {name!r}; GET /v1/workers lists those that run")


class WebhookNotFoundError(JobError):
    """No webhook has this id."""

    def __init__(self, webhook_id: UUID) -> None:
        self.webhook_id = webhook_id
        super().__init__(
            f"no webhook has the id {webhook_id}; GET /v1/webhooks lists those that exist"
        )


class DeliveryNotFoundError(JobError):
    """A webhook has no delivery of this id."""

    def __init__(self, webhook_id: UUID, delivery_id: UUID) -> None:
        self.webhook_id = webhook_id
        self.delivery_id = delivery_id
        super().__init__(
            f"webhook {webhook_id} has no delivery {delivery_id}; "
            f"GET /v1/webhooks/{webhook_id}/deliveries lists those that are still kept"
        )


class WebhookDisabledError(JobError):
    """Nothing is sent to a webhook that is disabled."""

    def __init__(self, webhook_id: UUID, reason: str | None) -> None:
        self.webhook_id = webhook_id
        why = f" ({reason})" if reason else ""
        super().__init__(
            f"webhook {webhook_id} is disabled{why}; enable it first: "
            f'PATCH /v1/webhooks/{webhook_id} with {{"enabled": true}}'
        )


class AttemptNotFoundError(JobError):
    """A job has had no attempt of this number."""

    def __init__(self, job_id: UUID, number: int, attempts: int) -> None:
        self.job_id = job_id
        self.number = number
        known = f"those there are have the numbers 1 to {attempts}" if attempts else "none was made"
        super().__init__(f"job {job_id} has no attempt {number}; {known}")


class ArtifactNotFoundError(JobError):
    """A job has no published file of this name."""

    def __init__(self, job_id: UUID, name: str, published: list[str]) -> None:
        self.job_id = job_id
        self.name = name
        self.published = published
        names = ", ".join(published) if published else "none before the job has succeeded"
        super().__init__(f"job {job_id} has no artifact {name!r}; published: {names}")


class DamagedFileError(JobError):
    """A file is not what was stored.

    Attributes:
        key: where.
        expected: SHA-256 of what was stored, in hexadecimal digits.
        found: that of what is there; None: nothing is there.
    """

    def __init__(self, key: str, expected: str, found: str | None) -> None:
        self.key = key
        self.expected = expected
        self.found = found
        there = f"has SHA-256 {found}" if found else "is gone"
        super().__init__(f"stored file {key!r} {there}; it was stored with {expected}")


class StorageUnavailableError(JobError):
    """The artifact store does not do what it is asked: it is away, or it refuses."""

    def __init__(self, work: str, key: str, why: str) -> None:
        self.key = key
        super().__init__(f"the artifact store could not {work} {key!r}: {why}")


class IllegalMoveError(JobError):
    """The job's state does not allow what was asked."""

    def __init__(self, job_id: UUID, state: JobState, wish: Wish) -> None:
        self.job_id = job_id
        self.state = state
        self.wish = wish
        self.legal = legal_wishes(state)
        legal = ", ".join(self.legal) if self.legal else "nothing, the state is final"
        super().__init__(f"job {job_id} is {state}: no {wish} now; legal: {legal}")


class SchemaOutdatedError(JobError):
    """The database lacks tables or columns that this version of the code needs."""

    def __init__(self, found: str | None, needed: str) -> None:
        self.found = found
        self.needed = needed
        state = f"is at revision {found}" if found else "has no tables"
        super().__init__(
            f"the database {state} and this version needs {needed}; run "
            "`python -m migrations upgrade` with the same BONSAI_DATABASE_URL"
        )


class UnknownDependencyError(JobError):
    """A job is to wait for one that does not exist, or that will not succeed any more."""

    def __init__(self, after: UUID, state: str | None) -> None:
        self.field, self.value = "schedule.after", str(after)
        problem = f"is {state}" if state else "does not exist"
        super().__init__(
            f"schedule.after: job {after} {problem}; name one that may still succeed, such as its "
            "retry"
        )


class QuotaExceededError(JobError):
    """An owner has as much of something as is allowed.

    Args:
        owner: whose it is.
        used: how much, in words.
        allowed: how much may be.
        cure: what to do about it.
    """

    def __init__(self, owner: str, used: str, allowed: int, cure: str) -> None:
        self.field, self.value = "owner", owner
        super().__init__(f"owner: {owner!r} has {used}, of at most {allowed}; {cure}")


class IdempotencyKeyReusedError(JobError):
    """A key came back with another request than the one it has submitted."""

    def __init__(self, key: str, resource: str, made_id: UUID) -> None:
        self.field, self.value = "Idempotency-Key", key
        self.made_id = made_id
        super().__init__(
            f"Idempotency-Key: {key!r} belongs to {resource} {made_id}, which another request has "
            "made; repeat that request unchanged, or send this one with a new key"
        )


class InvalidCursorError(JobError):
    """A page cursor that this service has not made, or for another order."""

    def __init__(self, cursor: str, made_for: str | None = None) -> None:
        self.cursor = cursor
        told = f"cursor: {cursor!r} is not a cursor of this list; pass a next_cursor unchanged"
        if made_for is not None:
            told += f", with the sort that it was made for ({made_for[:40]!r})"
        super().__init__(told)


class LeaseLostError(JobError):
    """A write named a fencing token that is no longer the job's: somebody else has it, or none."""

    def __init__(self, job_id: UUID, fencing_token: int) -> None:
        self.job_id = job_id
        self.fencing_token = fencing_token
        super().__init__(f"fencing token {fencing_token} no longer holds job {job_id}")


class WrongOwnerError(JobError):
    """A request names an owner that its key may not submit for.

    Args:
        pointed: the field's place in the request, as a dotted path.
    """

    def __init__(self, named: str, own: str, pointed: str = "owner") -> None:
        self.field, self.value = pointed, named
        self.named, self.own = named, own
        super().__init__(
            f"{pointed}: got {named!r}, and this key is of {own!r}; leave it out, or use a key of "
            "that owner, or an operator's"
        )


class NotWaitingError(JobError):
    """A job that runs or has ended stands in no queue."""

    def __init__(self, job_id: UUID, state: JobState) -> None:
        self.job_id = job_id
        self.field, self.value = "priority", None
        super().__init__(
            f"job {job_id} is {state}, and only a queued or paused job can be given another "
            "priority; leave it out, or pause the job first"
        )


class DatasetNotFoundError(JobError):
    """No data set has this id."""

    def __init__(self, dataset_id: UUID) -> None:
        self.dataset_id = dataset_id
        super().__init__(
            f"no data set has the id {dataset_id}; GET /v1/datasets lists those that exist"
        )


class DatasetInUseError(JobError):
    """A job needs the data set."""

    def __init__(self, dataset_id: UUID, job_id: UUID) -> None:
        self.dataset_id = dataset_id
        super().__init__(
            f"data set {dataset_id} is what job {job_id} calibrates on, which has not ended; "
            "cancel it first, or wait until it has ended"
        )


class InvalidDatasetError(JobError):
    """An uploaded text is none that a job could calibrate on.

    Args:
        line: at fault, from 1; None: the whole.
    """

    def __init__(self, line: int | None, problem: str, cure: str) -> None:
        self.line = line
        where = "" if line is None else f"line {line}: "
        super().__init__(f"{where}{problem}; {cure}")


class ForbiddenSourceError(PruneError):
    """A model or a text is not where the operator lets them come from."""

    code = "source_not_allowed"


class NotAuthenticatedError(JobError):
    """What came as a key opens nothing; the message never repeats it."""


class KeyNotFoundError(JobError):
    """No key has this id."""

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        super().__init__(f"no key has the id {key_id!r}; GET /v1/keys lists those that exist")


class KeyEndedError(JobError):
    """A key that is over cannot be given a new secret."""

    def __init__(self, key_id: str, how: str) -> None:
        self.key_id = key_id
        super().__init__(f"key {key_id} is {how}; make another one (POST /v1/keys)")


class KeyTimeError(JobError):
    """A new key would be over already."""

    def __init__(self, expires_at: datetime) -> None:
        self.field, self.value = "expires_at", expires_at.isoformat()
        super().__init__(
            f"expires_at: {expires_at.isoformat()} is not in the future; name a later time, or "
            "leave it out for a key that does not expire"
        )


class FirstKeyError(JobError):
    """The first key would lock out everybody who could make another one."""

    def __init__(self, role: Role) -> None:
        self.field, self.value = "role", str(role)
        super().__init__(
            f"role: got {role}, and once there is a key nobody comes in without one: make an "
            "admin's first (role: admin)"
        )
