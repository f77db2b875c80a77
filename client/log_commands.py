"""`bonsai logs`: what the processes of a job's attempts have said."""

from collections.abc import Iterator
from typing import Annotated

import typer

from client import options
from client.connection import connect
from client.console import messages, results
from client.exit_codes import ExitCode
from client.job_ids import find_job
from client.responses import LogLine
from client.service import BonsaiClient

_WAIT_SECONDS = 30.0


def logs(
    context: typer.Context,
    job: options.JobArgument,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on with what comes, until the job has ended."),
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Of this attempt, and no other (default the last)."),
    ] = None,
    tail: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=1000, help="Begin with the last N lines.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print each line as a JSON object, with number and time.")
    ] = False,
) -> None:
    """Print what the process of a job's attempt has said."""
    with connect(context) as client:
        job_id = find_job(client, job)
        numbers = iter([attempt]) if attempt else _attempts(client, job_id, follow=follow)
        number = None
        try:
            for number in numbers:
                for line in client.logs(job_id, attempt=number, tail=tail, follow=follow):
                    _print(line, json=json)
                tail = None
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
    if number is None:
        messages().print("no attempts")


def _attempts(client: BonsaiClient, job_id: str, *, follow: bool) -> Iterator[int]:
    """The number of the last attempt; to follow, those after it as they begin, to the job's end."""
    job = client.job(job_id)
    if not follow:
        yield from [job.attempts] if job.attempts else []
        return
    number = max(1, job.attempts)
    while True:
        while job.attempts < number:
            if job.is_final:
                return
            job = client.job(job_id, wait_seconds=_WAIT_SECONDS, state=job.state)
        yield number
        number += 1
        job = client.job(job_id)


def _print(line: LogLine, *, json: bool) -> None:
    results().print(line.model_dump_json() if json else line.text, soft_wrap=True)
