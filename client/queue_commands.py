"""What runs and waits, and which models there are: `bonsai queue`, `bonsai models`."""

from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import messages, print_json, results
from client.request import absolute
from client.tables import model_table, models_table, queue_table


def queue(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most jobs that wait to show.")] = 50,
    json: options.Json = False,
) -> None:
    """Show what runs, and what waits in the order in which it would be taken."""
    with connect(context) as client:
        found = client.queue(limit=limit)
    if json:
        print_json(found.model_dump(mode="json"))
        return
    jobs = [*found.running, *found.waiting]
    results().print(queue_table(jobs) if jobs else "nothing of yours runs or waits")
    held = "".join(f", {count} {reason}" for reason, count in found.held.items())
    results().print(f"of all owners: {found.ready} ready{held}")


def models(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="A folder or hub id to tell more of."),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the models that the service may read, or tell what may go of one."""
    with connect(context) as client:
        if source is not None:
            model = client.model(absolute(source))
            if json:
                print_json(model.model_dump(mode="json"))
            else:
                results().print(model_table(model))
            return
        found = client.models()
    if json:
        print_json(found.model_dump(mode="json"))
        return
    if found.folders is None:
        messages().print("no folders are set (BONSAI_SOURCE_FOLDERS), so none is looked into")
    elif not found.complete:
        messages().print("there are very many folders, and some were not looked into")
    results().print(models_table(found.items) if found.items else "no models")
