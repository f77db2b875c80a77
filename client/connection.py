"""How commands reach the service."""

from dataclasses import dataclass
from pathlib import Path

import typer

from client.keys import read_key
from client.service import BonsaiClient


@dataclass(frozen=True, slots=True)
class Connection:
    """What all commands share: where the service is, and in which file the key lies."""

    url: str | None
    key_file: Path | None


def connect(context: typer.Context) -> BonsaiClient:
    """The client that a command uses."""
    connection: Connection = context.obj
    file = connection.key_file
    return BonsaiClient(connection.url, api_key=None if file is None else read_key(file))
