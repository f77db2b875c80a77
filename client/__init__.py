"""The typed Python client of the service, and the `bonsai` command line.

    from client import BonsaiClient

    with BonsaiClient() as client:
        job = client.submit(
            model={"source": "/models/SmolLM2-135M"},
            calibration={"source": "/data/text.txt"},
            target={"sparsity": 0.2},
        )
        client.wait(job.id)
        client.download(job.id, "smaller")

`service` is the client, `async_service` its twin for an event loop, `responses` what both return.
What they do is written once, as generators of `effects`: `calls` are single requests, `operations`
what takes several, `watch` how a job is followed, `download` how files come over whole; `sender`
and `async_sender` run them. `cli` and the `*_commands` are the command line. Only `up`, `embedded`,
`prune` and `evaluate` need more than httpx, typer, rich and pydantic; they are imported when their
command runs.
"""

from client.async_service import AsyncBonsaiClient
from client.errors import (
    ClientError,
    CorruptedDownloadError,
    ServiceError,
    UnexpectedAnswerError,
    UnreachableServiceError,
)
from client.responses import Artifact, Estimate, Event, Job, Key, LogLine, NewKey, Problem, Progress
from client.service import BonsaiClient

__all__ = [
    "Artifact",
    "AsyncBonsaiClient",
    "BonsaiClient",
    "ClientError",
    "CorruptedDownloadError",
    "Estimate",
    "Event",
    "Job",
    "Key",
    "LogLine",
    "NewKey",
    "Problem",
    "Progress",
    "ServiceError",
    "UnexpectedAnswerError",
    "UnreachableServiceError",
]
