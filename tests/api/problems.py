"""What must hold of every problem."""

from typing import Any

MEMBERS = {"type", "title", "status", "detail", "code", "errors", "request_id"}


def require_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem of a response, after checking what all problems share."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == MEMBERS
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["type"] == f"urn:bonsai:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


def only_error(problem: dict[str, Any]) -> dict[str, Any]:
    """The one field at fault."""
    assert len(problem["errors"]) == 1, problem["errors"]
    return problem["errors"][0]
