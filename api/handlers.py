"""Turns what routes raise into problems."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from api.problems import (
    CONTENT_TOO_LARGE,
    DATABASE_DOWN,
    DOMAIN,
    MALFORMED_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    RETRY_AFTER_SECONDS,
    STORAGE_DOWN,
    Kind,
    ProblemError,
    ProblemResponse,
)
from api.request_log import request_id_of
from api.validation import describe_invalid, describe_prune_error, field_at_fault
from jobs.errors import JobError, PruneError

_BY_STATUS = {
    kind.status: kind
    for kind in (MALFORMED_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED, CONTENT_TOO_LARGE)
}


def install_handlers(app: FastAPI) -> None:
    """Register a handler for every kind of error that can leave a route."""
    for error in DOMAIN:
        app.add_exception_handler(error, _domain)
    app.add_exception_handler(ProblemError, _own)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework)


async def _domain(request: Request, error: Exception) -> ProblemResponse:
    kind = next(DOMAIN[base] for base in type(error).__mro__ if base in DOMAIN)
    if kind is DATABASE_DOWN:
        return database_down(request)
    if kind is STORAGE_DOWN:
        return _storage_down(request)
    errors = []
    if isinstance(error, PruneError):
        kind = Kind(kind.status, error.code, kind.title)
        errors = describe_prune_error(error)
    elif isinstance(error, JobError) and error.field is not None:
        errors = [field_at_fault(error.field, str(error), error.value)]
    return ProblemResponse(kind, str(error), errors=errors, request_id=request_id_of(request.scope))


def database_down(request: Request) -> ProblemResponse:
    """The problem of a database that does not answer; what it said may name hosts, so is not."""
    return ProblemResponse(
        DATABASE_DOWN,
        f"try again in {RETRY_AFTER_SECONDS} seconds; after a submit without an Idempotency-Key, "
        "look at GET /v1/jobs first",
        request_id=request_id_of(request.scope),
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


def _storage_down(request: Request) -> ProblemResponse:
    """The same of the artifact store; the log has what it said."""
    return ProblemResponse(
        STORAGE_DOWN,
        f"try again in {RETRY_AFTER_SECONDS} seconds; jobs are taken all the same",
        request_id=request_id_of(request.scope),
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )


async def _own(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, ProblemError)
    return ProblemResponse(
        error.kind, error.detail, errors=error.errors, request_id=request_id_of(request.scope)
    )


async def _invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    kind, detail, errors = describe_invalid(error, _body_of(request))
    return ProblemResponse(kind, detail, errors=errors, request_id=request_id_of(request.scope))


def _body_of(request: Request) -> type[BaseModel] | None:
    """What the route takes as its body, if it is one model."""
    field = getattr(request.scope.get("route"), "body_field", None)
    kind = field and field.field_info.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


async def _framework(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    kind = _BY_STATUS.get(error.status_code) or Kind(
        error.status_code, phrase.lower().replace(" ", "_"), phrase
    )
    detail, headers = error.detail, dict(error.headers or {})
    if kind in {NOT_FOUND, METHOD_NOT_ALLOWED}:
        detail = f"{request.method} {request.url.path}: see /docs for the addresses there are"
    if kind is METHOD_NOT_ALLOWED and "route" in request.scope:
        headers["Allow"] = ", ".join(_methods_at(request))
    return ProblemResponse(kind, detail, headers=headers, request_id=request_id_of(request.scope))


def _methods_at(request: Request) -> list[str]:
    """What the address knows, by the document; the framework names the methods of its first route
    only."""
    address = request.scope["route"].path_format
    return sorted(method.upper() for method in request.app.openapi()["paths"].get(address, ()))
