"""Addresses that hear what happens to jobs: make, change and test them; what was sent to each."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Body, Response
from fastapi.openapi.models import Example

from api.access import Submitter, Viewer
from api.dependencies import WayOut, Webhooks
from api.openapi import problems
from api.outbound import Outbound, RefusedUrlError
from api.problems import REFUSED_URL, FieldError, ProblemError, shown
from api.routes.jobs import Cursor, Limit
from api.schemas import Delivery, DeliveryPage, Webhook, WebhookPage, webhook_path
from api.validation import require_storable
from jobs.webhooks import WebhookChange, WebhookRequest

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

_CREATED: dict[str, Any] = {
    "description": "It hears of what happens from now on. Keep its secret: it is not shown again.",
    "headers": {"Location": {"description": "Its path.", "schema": {"type": "string"}}},
}
_ENDS = ["job.succeeded", "job.failed"]
_NEW = {
    "ends": Example(
        summary="When jobs have ended",
        value={"url": "https://platform.example/hooks/bonsai", "events": _ENDS, "owner": "search"},
    ),
    "short": Example(
        summary="What must be said", value={"url": "https://platform.example/hooks/bonsai"}
    ),
}
_CHANGES = {
    "disable": Example(summary="Send nothing for now", value={"enabled": False}),
    "events": Example(summary="Hear of other events", value={"events": ["job.failed"]}),
}


@router.post(
    "",
    operation_id="create_webhook",
    status_code=201,
    responses={201: _CREATED, **problems(400, 415, 422, 503)},
)
def create(
    request: Annotated[WebhookRequest, Body(openapi_examples=_NEW)],
    response: Response,
    webhooks: Webhooks,
    outbound: WayOut,
    _: Submitter,
) -> Webhook:
    """Have an address told what happens to the jobs of an owner, by signed messages as in the
    Standard Webhooks specification. The answer has the secret that signs them."""
    require_storable(request)
    _require_allowed(outbound, request.url)
    row = webhooks.create(request)
    response.headers["Location"] = webhook_path(row.id)
    return Webhook.of(row, reveal=True)


@router.get("", operation_id="list_webhooks", responses=problems(422, 503))
def list_webhooks(
    webhooks: Webhooks, _: Viewer, limit: Limit = 50, cursor: Cursor = None
) -> WebhookPage:
    """All webhooks, newest first."""
    page = webhooks.list(limit=limit, cursor=cursor)
    return WebhookPage(items=[Webhook.of(row) for row in page.items], next_cursor=page.next_cursor)


@router.get("/{webhook_id}", operation_id="show_webhook", responses=problems(404, 422, 503))
def show(webhook_id: UUID, webhooks: Webhooks, _: Viewer) -> Webhook:
    """One webhook: what it hears of, and whether anything arrives."""
    return Webhook.of(webhooks.show(webhook_id))


@router.patch(
    "/{webhook_id}", operation_id="update_webhook", responses=problems(400, 404, 415, 422, 503)
)
def update(
    webhook_id: UUID,
    change: Annotated[WebhookChange, Body(openapi_examples=_CHANGES)],
    webhooks: Webhooks,
    outbound: WayOut,
    _: Submitter,
) -> Webhook:
    """Change the address, the events or the name of a webhook, disable or enable it."""
    require_storable(change)
    if change.url is not None:
        _require_allowed(outbound, change.url)
    return Webhook.of(webhooks.change(webhook_id, change))


@router.delete(
    "/{webhook_id}",
    operation_id="delete_webhook",
    status_code=204,
    responses=problems(404, 422, 503),
)
def delete(webhook_id: UUID, webhooks: Webhooks, _: Submitter) -> None:
    """Remove a webhook, its log, and what still waits to be sent to it."""
    webhooks.delete(webhook_id)


@router.post(
    "/{webhook_id}/rotate-secret",
    operation_id="rotate_webhook_secret",
    responses=problems(404, 422, 503),
)
def rotate_secret(webhook_id: UUID, webhooks: Webhooks, _: Submitter) -> Webhook:
    """Give a webhook another secret; the answer has it. For 24 hours messages are signed with the
    one before too, so that receivers may change over in peace."""
    return Webhook.of(webhooks.rotate_secret(webhook_id), reveal=True)


@router.post(
    "/{webhook_id}/test",
    operation_id="test_webhook",
    status_code=202,
    responses=problems(404, 409, 422, 503),
)
def test(webhook_id: UUID, webhooks: Webhooks, _: Submitter) -> Delivery:
    """Send a message `webhook.test`, whatever the webhook's events. It goes the way of all others
    but is tried once; its delivery tells how that went, within seconds."""
    return Delivery.of(webhooks.ping(webhook_id))


@router.get(
    "/{webhook_id}/deliveries", operation_id="list_deliveries", responses=problems(404, 422, 503)
)
def deliveries(
    webhook_id: UUID, webhooks: Webhooks, _: Viewer, limit: Limit = 50, cursor: Cursor = None
) -> DeliveryPage:
    """What was and will be sent to a webhook, newest first, with how the last try ended."""
    page = webhooks.deliveries(webhook_id, limit=limit, cursor=cursor)
    return DeliveryPage(
        items=[Delivery.of(row) for row in page.items], next_cursor=page.next_cursor
    )


@router.get(
    "/{webhook_id}/deliveries/{delivery_id}",
    operation_id="show_delivery",
    responses=problems(404, 422, 503),
)
def delivery(webhook_id: UUID, delivery_id: UUID, webhooks: Webhooks, _: Viewer) -> Delivery:
    """One delivery."""
    return Delivery.of(webhooks.delivery(webhook_id, delivery_id))


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/replay",
    operation_id="replay_delivery",
    status_code=202,
    responses=problems(404, 409, 422, 503),
)
def replay(webhook_id: UUID, delivery_id: UUID, webhooks: Webhooks, _: Submitter) -> Delivery:
    """Send a delivery now, whether it has arrived, waits or is given up. It keeps its id, by which
    a receiver knows what it has seen; where its tries are used up, it gets this one."""
    return Delivery.of(webhooks.replay(webhook_id, delivery_id))


def _require_allowed(outbound: Outbound, url: str) -> None:
    try:
        outbound.check(url)
    except RefusedUrlError as error:
        message = (
            f"{error}; give a URL that is allowed, or ask the operator (BONSAI_WEBHOOK_NETWORKS)"
        )
        fault = FieldError(
            pointer="/url", message=message, value=shown(url), allowed=outbound.allowed
        )
        raise ProblemError(REFUSED_URL, f"url: {message}", [fault]) from error
