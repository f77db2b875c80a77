"""The commands for many jobs at once: `bonsai batch ...`."""

from json import loads
from pathlib import Path
from typing import Annotated, Any

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.errors import ClientError
from client.exit_codes import ExitCode
from client.responses import Batch
from client.tables import batch_table, batches_table

app = typer.Typer(no_args_is_help=True, help="Submit, show and cancel many jobs at once.")

BatchArgument = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="JSON as for POST /v1/batches: jobs, or a template with models and sparsities.",
        ),
    ],
    idempotency_key: options.IdempotencyKey = None,
    json: options.Json = False,
) -> None:
    """Submit a batch; print its id."""
    with connect(context) as client:
        batch = client.submit_batch(_read(file), idempotency_key=idempotency_key)
    if json:
        print_json(batch.model_dump(mode="json"))
    else:
        results().print(batch.id)


@app.command("list")
def list_batches(context: typer.Context, json: options.Json = False) -> None:
    """List the batches, newest first, each with its jobs by state."""
    with connect(context) as client:
        batches = list(client.batches())
    if json:
        print_json([batch.model_dump(mode="json") for batch in batches])
    else:
        results().print(batches_table(batches) if batches else "no batches")


@app.command()
def show(context: typer.Context, batch: BatchArgument, json: options.Json = False) -> None:
    """Show how the jobs of a batch fare. Exit code: 0, or 1 if one has failed."""
    with connect(context) as client:
        found = client.batch(batch)
    _print(found, as_json=json)
    if found.counts.get("failed"):
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def cancel(context: typer.Context, batch: BatchArgument, json: options.Json = False) -> None:
    """Cancel every job of a batch that has not ended."""
    with connect(context) as client:
        _print(client.cancel_batch(batch), as_json=json)


def _print(batch: Batch, *, as_json: bool) -> None:
    if as_json:
        print_json(batch.model_dump(mode="json"))
    else:
        results().print(batch_table(batch))


def _read(file: Path) -> dict[str, Any]:
    try:
        content = loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ClientError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ClientError(f"{file} must hold an object with jobs, or with a template")
    return content
