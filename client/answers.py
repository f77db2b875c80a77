"""Tells problems from answers, and reads both."""

from typing import TypeVar

import httpx
from pydantic import ValidationError

from client.effects import as_model
from client.errors import ServiceError, UnexpectedAnswerError
from client.responses import Problem

Value = TypeVar("Value")


def body_of(response: httpx.Response, model: type[Value] | None) -> Value | None:
    """The value in an answer, where there is to be one.

    Raises:
        ValidationError: it is another one.
        UnexpectedAnswerError: it is not even JSON.
    """
    if model is None:
        return None
    try:
        content = response.json()
    except ValueError as error:
        url = f"{response.url.scheme}://{response.url.netloc.decode()}"
        raise UnexpectedAnswerError(url, "its body is not JSON") from error
    return as_model(model, content)


def require_success(response: httpx.Response) -> None:
    """Raise ServiceError for a response, read to its end, that is a problem or another error."""
    if response.is_success:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        # Something in between answered: a proxy, or another service.
        problem = Problem(
            status=response.status_code,
            title=response.reason_phrase,
            detail=f"{response.request.url} answered {response.status_code} "
            f"{response.reason_phrase}: {response.text[:300]}",
        )
    retry_after = response.headers.get("Retry-After", "")
    # A date, its other form, is by a clock that may not be ours.
    raise ServiceError(problem, int(retry_after) if retry_after.isdecimal() else None)
