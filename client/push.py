"""`bonsai push`: a result to a repository of the Hugging Face hub, from this process."""

from dataclasses import asdict
from pathlib import Path

from bonsai_core.errors import PruneError
from bonsai_core.hub import push
from client.console import print_json, results
from client.errors import ClientError


def run_push(folder: Path, repository: str, *, branch: str, public: bool, as_json: bool) -> None:
    """Push and print where it lies."""
    try:
        pushed = push(folder.expanduser(), repository, branch=branch, public=public)
    except PruneError as error:
        raise ClientError(str(error)) from error
    if as_json:
        print_json(asdict(pushed))
    else:
        results().print(pushed.url, soft_wrap=True)
