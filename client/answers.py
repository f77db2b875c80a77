"""Tells problems from answers."""

import httpx
from pydantic import ValidationError

from client.errors import ServiceError
from client.responses import Problem


def require_success(response: httpx.Response) -> None:
    """Raise ServiceError for a response that is a problem, or any other error."""
    if response.is_success:
        return
    response.read()
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
