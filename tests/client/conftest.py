"""The real application behind a real socket, and the command line pointed at it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from api.app import create_app
from client import Client
from client.cli import app
from jobs.settings import Settings


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The address of a service, served in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings), log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    """The address of the service."""
    with served(settings) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def bonsai(url: str) -> Callable[..., Result]:
    """Runs the command with some arguments."""

    def run(*arguments: str) -> Result:
        return CliRunner(env={"BONSAI_URL": url, "COLUMNS": "200"}).invoke(app, arguments)

    return run
