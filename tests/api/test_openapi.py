"""The OpenAPI document is complete."""

import re
from typing import Any

import pytest

from api.access import PUBLIC
from api.app import create_app
from api.problems import MEDIA_TYPE
from jobs.request import JobRequest
from jobs.settings import Settings

OPERATIONS = {
    ("post", "/v1/jobs"): "submit_job",
    ("get", "/v1/jobs"): "list_jobs",
    ("get", "/v1/jobs/{job_id}"): "show_job",
    ("patch", "/v1/jobs/{job_id}"): "edit_job",
    ("get", "/v1/jobs/{job_id}/rounds"): "list_rounds",
    ("get", "/v1/batches"): "list_batches",
    ("get", "/v1/queue"): "show_queue",
    ("get", "/v1/models"): "list_models",
    ("get", "/v1/models/inspect"): "inspect_model",
    ("post", "/v1/jobs/{job_id}/pause"): "pause_job",
    ("post", "/v1/jobs/{job_id}/resume"): "resume_job",
    ("post", "/v1/jobs/{job_id}/cancel"): "cancel_job",
    ("post", "/v1/jobs/{job_id}/retry"): "retry_job",
    ("get", "/v1/jobs/{job_id}/attempts"): "list_attempts",
    ("post", "/v1/batches"): "submit_batch",
    ("get", "/v1/batches/{batch_id}"): "show_batch",
    ("post", "/v1/batches/{batch_id}/cancel"): "cancel_batch",
    ("get", "/v1/jobs/{job_id}/attempts/{number}/logs"): "list_log_lines",
    ("get", "/v1/jobs/{job_id}/events"): "list_events",
    ("get", "/v1/jobs/{job_id}/events/stream"): "stream_events",
    ("post", "/v1/datasets"): "upload_dataset",
    ("get", "/v1/datasets"): "list_datasets",
    ("get", "/v1/datasets/{dataset_id}"): "show_dataset",
    ("get", "/v1/datasets/{dataset_id}/content"): "download_dataset",
    ("delete", "/v1/datasets/{dataset_id}"): "delete_dataset",
    ("get", "/v1/jobs/{job_id}/artifacts"): "list_artifacts",
    ("get", "/v1/jobs/{job_id}/artifacts/{name}"): "download_artifact",
    ("get", "/v1/jobs/{job_id}/artifacts/{name}/link"): "link_artifact",
    ("get", "/v1/jobs/{job_id}/archive"): "download_archive",
    ("post", "/v1/jobs/{job_id}/pin"): "pin_job",
    ("post", "/v1/jobs/{job_id}/unpin"): "unpin_job",
    ("post", "/v1/gc"): "collect_garbage",
    ("post", "/v1/webhooks"): "create_webhook",
    ("get", "/v1/webhooks"): "list_webhooks",
    ("get", "/v1/webhooks/{webhook_id}"): "show_webhook",
    ("patch", "/v1/webhooks/{webhook_id}"): "update_webhook",
    ("delete", "/v1/webhooks/{webhook_id}"): "delete_webhook",
    ("post", "/v1/webhooks/{webhook_id}/rotate-secret"): "rotate_webhook_secret",
    ("post", "/v1/webhooks/{webhook_id}/test"): "test_webhook",
    ("get", "/v1/webhooks/{webhook_id}/deliveries"): "list_deliveries",
    ("get", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}"): "show_delivery",
    ("post", "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"): "replay_delivery",
    ("get", "/v1/workers"): "list_workers",
    ("post", "/v1/workers/{name}/drain"): "drain_worker",
    ("post", "/v1/keys"): "create_key",
    ("get", "/v1/keys"): "list_keys",
    ("get", "/v1/keys/{key_id}"): "show_key",
    ("post", "/v1/keys/{key_id}/rotate"): "rotate_key",
    ("post", "/v1/keys/{key_id}/revoke"): "revoke_key",
    ("get", "/v1/me"): "show_me",
    ("get", "/v1/audit"): "list_audit_events",
    ("get", "/healthz"): "healthz",
    ("get", "/readyz"): "readyz",
    ("get", "/metrics"): "metrics",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_is_named_tagged_and_described(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    found = operations(document)
    assert {place: operation["operationId"] for place, operation in found.items()} == OPERATIONS
    for operation in found.values():
        assert operation["tags"]
        assert operation["description"]


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        errors = {status for status in operation["responses"] if status >= "400"}
        assert errors >= {"403", "500"}
        for status in errors:
            content = operation["responses"][status]["content"]
            assert content == {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_operation_that_needs_a_key_says_so_and_what_comes_without_one(
    document: dict[str, Any],
) -> None:
    scheme = document["components"]["securitySchemes"]["key"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for (_, path), operation in operations(document).items():
        needs_key = path not in PUBLIC
        assert operation.get("security") == ([{"key": []}] if needs_key else None), path
        assert ({"401", "429"} <= set(operation["responses"])) is needs_key, path
        if needs_key:
            assert "WWW-Authenticate" in operation["responses"]["401"]["headers"]
            assert "Retry-After" in operation["responses"]["429"]["headers"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'#/components/schemas/([^']+)'", str(document)))
    assert references == set(document["components"]["schemas"])


def test_every_field_of_a_request_has_its_meaning(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in (
        "ModelSource",
        "CalibrationSource",
        "Target",
        "Pruning",
        "WeightedUtility",
        "Progress",
        "WebhookRequest",
        "WebhookChange",
    ):
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


def test_a_stream_is_declared_as_one(document: dict[str, Any]) -> None:
    responses = document["paths"]["/v1/jobs/{job_id}/events/stream"]["get"]["responses"]
    assert set(responses["200"]["content"]) == {"text/event-stream"}
    assert "content" not in responses["204"]


def test_submissions_tell_of_their_key(document: dict[str, Any]) -> None:
    for path in ("/v1/jobs", "/v1/batches"):
        operation = document["paths"][path]["post"]
        (key,) = [each for each in operation["parameters"] if each["in"] == "header"]
        assert (key["name"], key["required"]) == ("Idempotency-Key", False)
        assert "7 days" in key["description"]
        assert "[!-~]{1,255}" in str(key["schema"])
        assert "Idempotency-Replayed" in operation["responses"]["201"]["headers"]


def test_the_request_has_examples(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"]
    pruning = content["examples"]["all"]["value"]["pruning"]
    defaults = JobRequest.model_fields["pruning"].default.model_dump(mode="json")
    # The document leaves out what is null.
    assert pruning == {field: value for field, value in defaults.items() if value is not None}
