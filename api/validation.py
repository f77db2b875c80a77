"""Turns what the framework says about an invalid request into fields, values and allowed values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.allowed import KEY, allowed_at
from api.problems import (
    INVALID_REQUEST,
    MALFORMED_REQUEST,
    UNREADABLE_INPUT,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Kind,
    ProblemError,
    shown,
)
from jobs.errors import PruneError
from jobs.request import JobRequest

Detail = Mapping[str, Any]
Steps = tuple[str | int, ...]


def describe_invalid(
    error: RequestValidationError, body: type[BaseModel] | None
) -> tuple[Kind, str, list[FieldError]]:
    """The kind of problem, its detail, and the fields at fault, of a request with such a body, if
    it has any."""
    details = error.errors()
    first = details[0]
    if first["type"] == "json_invalid":
        problem = first.get("ctx", {}).get("error", "not JSON")
        return MALFORMED_REQUEST, f"the body is not JSON: {problem} at {first['loc'][-1]}", []
    if tuple(first["loc"]) == ("body",) and isinstance(first.get("input"), bytes):
        return UNSUPPORTED_MEDIA_TYPE, "send the body as JSON, Content-Type: application/json", []
    errors = [_field_error(detail, body) for detail in details]
    summary = "; ".join(f"{field.pointer}: {field.message}" for field in errors)
    return INVALID_REQUEST, summary, errors


def describe_prune_error(error: PruneError) -> list[FieldError]:
    """The field at fault, with a pointer into the body."""
    message = f"{error.problem}; {error.cure}" if error.cure else error.problem
    return [field_at_fault(error.field, message, error.value, error.allowed)]


def field_at_fault(field: str, message: str, value: object, allowed: str = "") -> FieldError:
    """A field of the body, by its dotted path."""
    pointer = "/" + field.replace(".", "/")
    return FieldError(pointer=pointer, message=message, value=shown(value), allowed=allowed or None)


def unreadable(request: JobRequest, error: OSError, *, at: str = "") -> ProblemError:
    """The problem of an input that the system does not let us look at; `at` is where the job is
    said in the body."""
    field, source = "/calibration/source", request.calibration.source
    if str(error.filename).startswith(request.model.source):
        field, source = "/model/source", request.model.source
    for number, part in enumerate(request.pruning.utilities):
        if part.settings.get("path") == str(error.filename):
            field, source = f"/pruning/utility/{number}/settings/path", str(error.filename)
    message = f"{error.strerror}; give a path that the service may read"
    field = f"{at}{field}"
    fault = FieldError(pointer=field, message=message, value=shown(source))
    return ProblemError(UNREADABLE_INPUT, f"{field}: {message}", [fault])


def require_storable(request: BaseModel) -> None:
    """Refuse NUL characters, which PostgreSQL cannot store; RequestValidationError names them."""
    faults = [
        {"type": "nul", "loc": ("body", *path), "msg": "must not hold a NUL character", "input": it}
        for path, it in _strings(request.model_dump(mode="json"), ())
        if "\0" in it
    ]
    if faults:
        raise RequestValidationError(faults)


def _strings(value: Any, path: Steps) -> Iterator[tuple[Steps, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), key
            yield from _strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, (*path, index))


def _field_error(detail: Detail, body: type[BaseModel] | None) -> FieldError:
    place, *path = detail["loc"]
    message = str(detail["msg"]).removeprefix("Value error, ")
    # The value seen at a missing field would be the whole object around it.
    value = None if detail["type"] == "missing" else shown(detail.get("input"))
    if place == "body" and body is not None:
        allowed = allowed_at(path, body)
    else:
        allowed = detail.get("ctx", {}).get("expected")
        message = f"{place} parameter {path[-1]}: {message}"
    path = [step for step in path if step != KEY]
    return FieldError(pointer=pointer(path), message=message, value=value, allowed=allowed)


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901); the empty string means the whole body."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
