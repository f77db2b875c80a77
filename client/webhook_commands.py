"""The commands about webhooks: `bonsai webhooks ...`."""

import time
from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.errors import ClientError
from client.exit_codes import ExitCode
from client.responses import Delivery, Webhook
from client.service import BonsaiClient
from client.tables import deliveries_table, webhook_table, webhooks_table

app = typer.Typer(
    no_args_is_help=True, help="Have addresses told what happens to jobs, and see what arrives."
)

_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 60.0

WebhookArgument = Annotated[str, typer.Argument(metavar="ID", help="The webhook's id.")]
Events = Annotated[
    list[str] | None,
    typer.Option(
        "--event",
        help="What is told, such as job.succeeded; may be given several times (default: that a job "
        "has succeeded, failed or was cancelled).",
    ),
]
Name = Annotated[str | None, typer.Option(help="A name for people.")]


@app.command()
def create(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where messages are posted.")],
    event: Events = None,
    owner: Annotated[
        str | None, typer.Option(help="Whose jobs are told of (default default)")
    ] = None,
    name: Name = None,
    json: options.Json = False,
) -> None:
    """Have an address told what happens to jobs; its secret is shown now and never again."""
    with connect(context) as client:
        _print(client.create_webhook(url, events=event, owner=owner, name=name), as_json=json)


@app.command("list")
def list_webhooks(context: typer.Context, json: options.Json = False) -> None:
    """List the webhooks, newest first."""
    with connect(context) as client:
        webhooks = list(client.webhooks())
    if json:
        print_json([webhook.model_dump(mode="json") for webhook in webhooks])
    else:
        results().print(webhooks_table(webhooks))


@app.command()
def show(context: typer.Context, webhook: WebhookArgument, json: options.Json = False) -> None:
    """Show one webhook: what it hears of, and whether anything arrives."""
    with connect(context) as client:
        _print(client.webhook(webhook), as_json=json)


@app.command()
def update(
    context: typer.Context,
    webhook: WebhookArgument,
    url: Annotated[str | None, typer.Option(help="Another address.")] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="What is told from now on; may be given several times."),
    ] = None,
    name: Name = None,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Send messages, or none.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Change a webhook; what is not named stays."""
    wanted = {"url": url, "events": event, "name": name, "enabled": enabled}
    changes = {key: value for key, value in wanted.items() if value is not None}
    with connect(context) as client:
        _print(client.update_webhook(webhook, **changes), as_json=json)


@app.command()
def delete(context: typer.Context, webhook: WebhookArgument) -> None:
    """Remove a webhook, its log, and what still waits to be sent."""
    with connect(context) as client:
        client.delete_webhook(webhook)


@app.command("rotate-secret")
def rotate_secret(
    context: typer.Context, webhook: WebhookArgument, json: options.Json = False
) -> None:
    """Give a webhook another secret, shown now and never again; for a while both sign."""
    with connect(context) as client:
        _print(client.rotate_webhook_secret(webhook), as_json=json)


@app.command("test")
def ping(context: typer.Context, webhook: WebhookArgument, json: options.Json = False) -> None:
    """Send a test message and wait for what comes of it. Exit code: 0 if it has arrived."""
    with connect(context) as client:
        _follow(client, webhook, client.test_webhook(webhook), as_json=json)


@app.command()
def deliveries(
    context: typer.Context,
    webhook: WebhookArgument,
    json: options.Json = False,
) -> None:
    """List what was and will be sent to a webhook, newest first."""
    with connect(context) as client:
        found = list(client.deliveries(webhook))
    if json:
        print_json([delivery.model_dump(mode="json") for delivery in found])
    else:
        results().print(deliveries_table(found))


@app.command()
def replay(
    context: typer.Context,
    webhook: WebhookArgument,
    delivery: Annotated[
        str, typer.Argument(metavar="DELIVERY", help="As `bonsai webhooks deliveries` shows it.")
    ],
    json: options.Json = False,
) -> None:
    """Send a delivery again and wait for what comes of it. Exit code: 0 if it has arrived."""
    with connect(context) as client:
        _follow(client, webhook, client.replay(webhook, delivery), as_json=json)


def _follow(client: BonsaiClient, webhook: str, sent: Delivery, *, as_json: bool) -> None:
    """Wait for the next try of a delivery, and show what came of it."""
    end, found = time.monotonic() + _LONGEST_WAIT_SECONDS, sent
    while found.attempts == sent.attempts or _is_under_way(found):
        if time.monotonic() > end:
            raise ClientError(
                f"delivery {sent.id} was not tried yet: the service has much to send, or cannot; "
                f"`bonsai webhooks deliveries {webhook}` shows what becomes of it"
            )
        time.sleep(_POLL_SECONDS)
        found = client.delivery(webhook, sent.id)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        results().print(deliveries_table([found]))
    if found.delivered_at is None:
        raise typer.Exit(ExitCode.FAILED)


def _is_under_way(delivery: Delivery) -> bool:
    """Due before its last try began, which has not been written down yet."""
    due, tried = delivery.next_try_at, delivery.tried_at
    return due is not None and tried is not None and due <= tried


def _print(webhook: Webhook, *, as_json: bool) -> None:
    if as_json:
        print_json(webhook.model_dump(mode="json"))
    else:
        results().print(webhook_table(webhook))
