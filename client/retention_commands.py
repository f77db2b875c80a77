"""The commands about what is kept: `bonsai pin`, `unpin`, `gc`."""

from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.job_ids import find_job
from client.tables import expiries_table


def pin(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Keep the files of a job whatever its age."""
    with connect(context) as client:
        pinned = client.pin(find_job(client, job))
    if json:
        print_json(pinned.model_dump(mode="json"))


def unpin(context: typer.Context, job: options.JobArgument, json: options.Json = False) -> None:
    """Let the files of a job expire as others do."""
    with connect(context) as client:
        unpinned = client.pin(find_job(client, job), pinned=False)
    if json:
        print_json(unpinned.model_dump(mode="json"))


def collect(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be done.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Announce the end of files that are not kept any longer, and remove those announced before."""
    with connect(context) as client:
        found = client.collect(dry_run=dry_run)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        results().print(expiries_table(found) if found.items else "nothing expires")
