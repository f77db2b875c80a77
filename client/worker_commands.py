"""The commands about workers: `bonsai worker ...`."""

from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.tables import workers_table

app = typer.Typer(no_args_is_help=True, help="List the workers, and have one stop.")


@app.command("list")
def list_workers(context: typer.Context, json: options.Json = False) -> None:
    """List the workers that run, and those lost within a day."""
    with connect(context) as client:
        workers = client.workers()
    if json:
        print_json([worker.model_dump(mode="json") for worker in workers])
    else:
        results().print(workers_table(workers))


@app.command()
def drain(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `bonsai worker list` shows it.")],
    json: options.Json = False,
) -> None:
    """Have a worker give its job back, within seconds, and stop."""
    with connect(context) as client:
        worker = client.drain(name)
    if json:
        print_json(worker.model_dump(mode="json"))
