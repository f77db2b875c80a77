"""What is said of a job, and what its rounds did: `bonsai edit`, `bonsai rounds`."""

from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.errors import ClientError
from client.job_ids import find_job
from client.request import parse_labels, parse_metadata
from client.tables import job_table, rounds_table


def edit(
    context: typer.Context,
    job: options.JobArgument,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="A label, in place of those it has; may be repeated."
        ),
    ] = None,
    metadata: options.Metadata = None,
    priority: options.Priority = None,
    json: options.Json = False,
) -> None:
    """Change what is said of a job, or its priority while it waits; what is not named stays."""
    if name is None and not label and metadata is None and priority is None:
        raise ClientError("say what to change: --name, --label, --metadata or --priority")
    with connect(context) as client:
        changed = client.edit(
            find_job(client, job),
            name=name,
            labels=parse_labels(label) if label else None,
            metadata=parse_metadata(metadata),
            priority=priority,
        )
    if json:
        print_json(changed.model_dump(mode="json"))
    else:
        results().print(job_table(changed))


def rounds(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Show what each round of a job did."""
    with connect(context) as client:
        found = client.rounds(find_job(client, job))
    if json:
        print_json([each.model_dump(mode="json") for each in found])
    else:
        results().print(rounds_table(found) if found else "no rounds yet")
