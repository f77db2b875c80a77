"""The real application behind a real socket, and the command line pointed at it."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from api.app import create_app
from client import BonsaiClient
from client.cli import app
from jobs.settings import Settings
from tests.served import served


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    """The address of the service, served in a thread."""
    with served(create_app(settings)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[BonsaiClient]:
    with BonsaiClient(url) as client:
        yield client


@pytest.fixture
def bonsai(url: str) -> Callable[..., Result]:
    """Runs the command with some arguments."""

    def run(*arguments: str) -> Result:
        return CliRunner(env={"BONSAI_URL": url, "COLUMNS": "200"}).invoke(app, arguments)

    return run
