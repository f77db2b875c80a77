"""The OpenAPI document, with problems where FastAPI would write its own errors."""

from copy import deepcopy
from typing import Any

from fastapi import FastAPI

from api.curl_examples import curl_example
from api.problems import MEDIA_TYPE, RETRY_AFTER_SECONDS, Problem

Responses = dict[int | str, dict[str, Any]]

_MEANINGS = {
    400: "The body is not JSON, or a header cannot be read.",
    401: "A valid key is needed, and did not come.",
    403: "The key does not allow this, or the peer is on another machine and none are served.",
    404: "There is no such thing (`code` says of what kind), or it is another owner's.",
    409: "The state of what was asked for, or the service's set-up, does not allow this.",
    410: "The artifact was published, but its file is no longer stored as it was.",
    413: "The body is too long.",
    415: "The body is of another type than this address takes.",
    416: "The range lies outside the file.",
    422: "Fields of the request are invalid; `errors` names each.",
    429: "There were too many requests in this minute; try again after `Retry-After` seconds.",
    500: "A fault of the service.",
    503: f"Database or artifact store do not answer; try again in {RETRY_AFTER_SECONDS} seconds.",
}


_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}},
    429: {
        "Retry-After": {
            "description": "Seconds until another request may pass.",
            "schema": {"type": "integer"},
        }
    },
}


def problems(*statuses: int) -> Responses:
    """The problems a route may answer with, for its `responses`; 403 and 500 are in each, 401 and
    429 in each that needs a role."""
    return {
        status: {"model": Problem, "description": _MEANINGS[status]}
        for status in sorted({403, 500, *statuses})
    }


class DocumentedAPI(FastAPI):
    """FastAPI whose document gives problems their media type."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            operations = _operations(document)
            for method, path, operation in operations:
                if operation.get("security"):
                    operation["responses"] |= deepcopy(_AT_THE_DOOR)
                if "requestBody" in operation:
                    operation["responses"]["413"] = {"description": _MEANINGS[413]}
                _correct(operation["responses"])
                _link(operation, [each for _, _, each in operations])
                example = curl_example(method, path, operation)
                operation["description"] += f"\n\n```sh\n{example}\n```"
            self.openapi_schema = document
        return self.openapi_schema


_AT_THE_DOOR: dict[str, dict[str, Any]] = {
    str(status): {"description": _MEANINGS[status]} for status in (401, 429)
}
"""Where a key is needed, before the route is reached."""


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Each with its method and its path."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, dict)
    ]


def _correct(responses: dict[str, dict[str, Any]]) -> None:
    """FastAPI declares the model under the media type of the route's success."""
    for status, response in responses.items():
        if int(status) >= 400:
            schema = {"$ref": f"#/components/schemas/{Problem.__name__}"}
            response["content"] = {MEDIA_TYPE: {"schema": schema}}
        if int(status) in _HEADERS:
            response.setdefault("headers", {}).update(_HEADERS[int(status)])
        response.setdefault("headers", {})["X-Request-ID"] = {
            "description": "The id of the request, taken from the request if it had one.",
            "schema": {"type": "string"},
        }


_NAMES = {
    "submit_job": "job_id",
    "retry_job": "job_id",
    "submit_batch": "batch_id",
    "create_webhook": "webhook_id",
    "test_webhook": "delivery_id",
    "create_key": "key_id",
    "upload_dataset": "dataset_id",
}
"""By operation, the parameter that has the `id` of what it has made."""


def _link(operation: dict[str, Any], operations: list[dict[str, Any]]) -> None:
    """Say of what was made what may be done with it (OpenAPI's links)."""
    name = _NAMES.get(operation["operationId"])
    made = operation["responses"].get("201") or operation["responses"].get("202")
    if name is None or made is None:
        return
    known = {each: f"$request.path.{each}" for each in _path_parameters(operation)}
    known[name] = "$response.body#/id"
    made["links"] = {
        each["operationId"]: {"operationId": each["operationId"], "parameters": parameters}
        for each in operations
        if name in (parameters := {n: known[n] for n in _path_parameters(each) if n in known})
    }


def _path_parameters(operation: dict[str, Any]) -> list[str]:
    return [each["name"] for each in operation.get("parameters", ()) if each["in"] == "path"]
