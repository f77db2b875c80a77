"""The typed Python client of the service, and the `bonsai` command line.

    from client import Client

    with Client() as client:
        job = client.submit(
            model={"source": "/models/SmolLM2-135M"},
            calibration={"source": "/data/text.txt"},
            target={"sparsity": 0.2},
        )
        client.wait(job.id)
        client.download(job.id, "smaller")

`service` is the client, `responses` what it returns, `download` how files come over whole, `watch`
how a job is followed. `cli`
and the `*_commands` are the command line. Only `up`, `embedded`, `prune` and `evaluate` need more
than httpx, typer, rich and pydantic; they are imported when their command runs.
"""

from client.errors import (
    ClientError,
    CorruptedDownloadError,
    ServiceError,
    UnexpectedAnswerError,
    UnreachableServiceError,
)
from client.responses import Artifact, Estimate, Event, Job, Key, LogLine, NewKey, Problem, Progress
from client.service import Client

__all__ = [
    "Artifact",
    "Client",
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
