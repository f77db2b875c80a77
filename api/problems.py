"""How errors look over the wire: RFC 9457 problem details, and the table of every kind there is.

Errors of the domain know nothing of HTTP; `DOMAIN` is the one place that gives them a status.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from jobs.errors import (
    DATABASE_UNREACHABLE,
    ArtifactNotFoundError,
    AttemptNotFoundError,
    BatchNotFoundError,
    DatasetInUseError,
    DatasetNotFoundError,
    DeliveryNotFoundError,
    FirstKeyError,
    IdempotencyKeyReusedError,
    IllegalMoveError,
    InvalidCursorError,
    InvalidDatasetError,
    JobNotFoundError,
    KeyEndedError,
    KeyNotFoundError,
    KeyTimeError,
    NotWaitingError,
    PruneError,
    QuotaExceededError,
    SchemaOutdatedError,
    StorageUnavailableError,
    UnknownDependencyError,
    WebhookDisabledError,
    WebhookNotFoundError,
    WorkerNotFoundError,
    WrongOwnerError,
)

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
LONGEST_VALUE = 300
"""Characters of a value that a problem repeats; longer ones are cut."""


class FieldError(BaseModel):
    """One thing wrong with one field of a request."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    pointer: str
    """JSON pointer (RFC 6901) into the body; for a parameter of the URL or a header, `/` and its
    name."""

    message: str
    """What is wrong with it, and what to do."""

    value: Any = None
    """The value seen."""

    allowed: str | None = None
    """What would have been accepted, in words."""


class Problem(BaseModel):
    """An error, as in RFC 9457."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str
    """URI that names the kind of problem: `urn:bonsai:problem:` and the code."""

    title: str
    """The kind of problem, in words; the same for each of its kind."""

    status: int
    """The status of the response."""

    detail: str
    """What happened this time, and what to do."""

    code: str
    """Stable name of the kind of problem, for programs."""

    errors: list[FieldError] = []
    """The fields at fault, if any."""

    request_id: str
    """The `X-Request-ID` of the response; the service's log has it too."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem."""

    status: int
    code: str
    title: str


MALFORMED_REQUEST = Kind(400, "malformed_request", "The request cannot be read")
NOT_AUTHENTICATED = Kind(401, "not_authenticated", "The request needs a valid key")
NOT_ALLOWED = Kind(403, "not_allowed", "The key does not allow this")
REMOTE_PEER = Kind(403, "remote_peer", "The service answers this machine only")
NOT_FOUND = Kind(404, "not_found", "There is nothing at this address")
METHOD_NOT_ALLOWED = Kind(405, "method_not_allowed", "The address does not know this method")
NO_LINKS = Kind(409, "no_links", "The artifact store has no links")
ARTIFACT_GONE = Kind(410, "artifact_gone", "The file is no longer stored")
CONTENT_TOO_LARGE = Kind(413, "content_too_large", "The body is too long")
UNSUPPORTED_MEDIA_TYPE = Kind(415, "unsupported_media_type", "The body is of another type")
RANGE_NOT_SATISFIABLE = Kind(416, "range_not_satisfiable", "The range lies outside the file")
INVALID_REQUEST = Kind(422, "invalid_request", "The request has invalid fields")
UNREADABLE_INPUT = Kind(422, "unreadable_input", "An input of the job cannot be read")
DIGEST_MISMATCH = Kind(422, "digest_mismatch", "The body is not what its digest says")
REFUSED_URL = Kind(422, "refused_url", "Nothing is sent to this URL")
TOO_MANY_REQUESTS = Kind(429, "too_many_requests", "There were too many requests")
INTERNAL_ERROR = Kind(500, "internal_error", "The service failed")
DATABASE_DOWN = Kind(503, "database_unreachable", "The database does not answer")
STORAGE_DOWN = Kind(503, "storage_unavailable", "The artifact store does not answer")

DOMAIN: Mapping[type[Exception], Kind] = {
    BatchNotFoundError: Kind(404, "batch_not_found", "There is no such batch"),
    JobNotFoundError: Kind(404, "job_not_found", "There is no such job"),
    AttemptNotFoundError: Kind(404, "attempt_not_found", "The job has had no such attempt"),
    WorkerNotFoundError: Kind(404, "worker_not_found", "There is no such worker"),
    ArtifactNotFoundError: Kind(404, "artifact_not_found", "The job has no such artifact"),
    WebhookNotFoundError: Kind(404, "webhook_not_found", "There is no such webhook"),
    DeliveryNotFoundError: Kind(404, "delivery_not_found", "The webhook has no such delivery"),
    WebhookDisabledError: Kind(409, "webhook_disabled", "The webhook is disabled"),
    KeyNotFoundError: Kind(404, "key_not_found", "There is no such key"),
    DatasetNotFoundError: Kind(404, "dataset_not_found", "There is no such data set"),
    DatasetInUseError: Kind(409, "dataset_in_use", "A job needs the data set"),
    InvalidDatasetError: Kind(422, "invalid_dataset", "The text is none to calibrate on"),
    WrongOwnerError: Kind(403, "wrong_owner", "The key is of another owner"),
    KeyEndedError: Kind(409, "key_ended", "The key is not valid any more"),
    KeyTimeError: Kind(422, "key_time_over", "The key would be over already"),
    FirstKeyError: Kind(422, "first_key_not_admin", "The first key must be an admin's"),
    IllegalMoveError: Kind(409, "illegal_move", "The job's state does not allow this"),
    NotWaitingError: Kind(409, "job_not_waiting", "The job does not wait"),
    UnknownDependencyError: Kind(422, "unknown_dependency", "There is no such job to wait for"),
    QuotaExceededError: Kind(409, "quota_exceeded", "The owner's queue is full"),
    IdempotencyKeyReusedError: Kind(
        422, "idempotency_key_reused", "The key belongs to another request"
    ),
    SchemaOutdatedError: Kind(503, "schema_outdated", "The database is older than the service"),
    InvalidCursorError: Kind(422, "invalid_cursor", "The cursor is not one of this list"),
    # Its subclasses bring their own codes.
    PruneError: Kind(422, "prune_error", "The prune cannot be done as asked"),
    StorageUnavailableError: STORAGE_DOWN,
    **dict.fromkeys(DATABASE_UNREACHABLE, DATABASE_DOWN),
}


class ProblemError(Exception):
    """A problem that only this package can see, raised by a route."""

    def __init__(self, kind: Kind, detail: str, errors: Sequence[FieldError] = ()) -> None:
        self.kind = kind
        self.detail = detail
        self.errors = errors
        super().__init__(detail)


class ProblemResponse(JSONResponse):
    """A problem as a response; `request_id` stands in the body, the header is set further out."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        request_id: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        problem = Problem(
            type=f"urn:bonsai:problem:{kind.code}",
            title=kind.title,
            status=kind.status,
            detail=detail,
            code=kind.code,
            errors=list(errors),
            request_id=request_id,
        )
        super().__init__(problem.model_dump(), status_code=kind.status, headers=headers)

    def render(self, content: Any) -> bytes:
        """In ASCII: a request may hold lone surrogates, which UTF-8 cannot say back."""
        return json.dumps(content, allow_nan=False).encode()


def shown(value: Any) -> Any:
    """A value as a problem repeats it: JSON, and not too much of it."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        text, value = str(value), str(value)
    return value if len(text) <= LONGEST_VALUE else f"{str(value)[:LONGEST_VALUE]}..."
