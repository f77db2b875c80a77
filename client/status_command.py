"""`bonsai status`: whether the service takes jobs, and what does not work."""

import typer

from client import options
from client.connection import connect
from client.console import print_json, results


def status(context: typer.Context, json: options.Json = False) -> None:
    """Tell whether the service takes jobs (else exit code 1), and what does not work."""
    with connect(context) as client:
        found = client.readiness()
    if json:
        print_json(found.model_dump(mode="json"))
        return
    results().print(f"{found.status}, workers: {found.workers}")
    for shortcoming in found.degraded:
        results().print(f"{shortcoming.part}: {shortcoming.meaning}")
