"""The commands about uploaded texts: `bonsai datasets ...`."""

from pathlib import Path
from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import print_json, results
from client.tables import datasets_table

app = typer.Typer(
    no_args_is_help=True, help="Upload texts for jobs to calibrate on, list and delete them."
)

DatasetArgument = Annotated[str, typer.Argument(metavar="ID", help="The data set's id.")]


@app.command()
def upload(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A .txt file, or a .jsonl file with an object with a text on each line.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="A name for people (default: the file's).")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whose jobs may use it.")] = None,
    json: options.Json = False,
) -> None:
    """Upload a text; print what `bonsai submit --calibration` takes for it."""
    with connect(context) as client:
        dataset = client.upload_dataset(file, name=name, owner=owner)
    if json:
        print_json(dataset.model_dump(mode="json"))
    else:
        results().print(dataset.source, soft_wrap=True)


@app.command("list")
def list_datasets(context: typer.Context, json: options.Json = False) -> None:
    """List the uploaded texts, newest first."""
    with connect(context) as client:
        datasets = list(client.datasets())
    if json:
        print_json([dataset.model_dump(mode="json") for dataset in datasets])
    else:
        results().print(datasets_table(datasets))


@app.command()
def show(context: typer.Context, dataset: DatasetArgument, json: options.Json = False) -> None:
    """Show one uploaded text: its size, its digest, and how a job names it."""
    with connect(context) as client:
        found = client.dataset(dataset)
    if json:
        print_json(found.model_dump(mode="json"))
    else:
        results().print(datasets_table([found]))


@app.command()
def delete(context: typer.Context, dataset: DatasetArgument) -> None:
    """Remove an uploaded text that no job needs any more."""
    with connect(context) as client:
        client.delete_dataset(dataset)
