"""The servers that tests use: one embedded pair for a run, or those named in the environment.

A module of tests has a database and a logical Redis database of its own: no module sees what
another left.
"""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from client.embedded.stack import EmbeddedStack

# Servers have 16 by default; number 0 is left to whoever else uses a server that was named. Of the
# others each of pytest-xdist's processes has its share.
LOGICAL_DATABASES = range(1, 16)[
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) :: int(
        os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    )
]

_module_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Servers:
    """Where PostgreSQL and Redis answer, and how to name one database of theirs."""

    database_url: str
    redis_url: str

    def database_url_of(self, name: str) -> str:
        url = make_url(self.database_url).set(database=name)
        return url.render_as_string(hide_password=False)

    def redis_url_of(self, number: int) -> str:
        """A Unix socket's URL has the number in its query, another one in its path."""
        url = make_url(self.redis_url)
        if url.drivername == "unix":
            return f"{self.redis_url.split('?')[0]}?db={number}"
        return url.set(database=str(number)).render_as_string(hide_password=False)

    def execute(self, statement: str) -> None:
        """Run a statement that may stand in no transaction, such as CREATE DATABASE."""
        engine = create_engine(self.database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    database_url = os.environ.get("BONSAI_TEST_DATABASE_URL")
    redis_url = os.environ.get("BONSAI_TEST_REDIS_URL")
    # Not below pytest's own folders: their paths are too long for sockets on some systems.
    folder = Path(tempfile.mkdtemp(prefix="bonsai-test-"))
    try:
        with EmbeddedStack(
            folder, durable=False, postgres=not database_url, valkey=not redis_url
        ) as stack:
            yield Servers(
                database_url=database_url or stack.database_url,
                redis_url=redis_url or stack.redis_url,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> Iterator[str]:
    """The name of a database with all migrations; copying it is faster than migrating anew."""
    # Imported late: tests that need no database should not need its packages.
    from migrations import upgrade

    # Runs beside each other may share a named server.
    name = f"template_{os.getpid()}"
    servers.execute(f"CREATE DATABASE {name}")
    upgrade(servers.database_url_of(name))
    yield name
    servers.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def database_url(servers: Servers, template_database: str) -> Iterator[str]:
    """A migrated, empty database of this module's own."""
    name = f"test_{os.getpid()}_{next(_module_numbers)}"
    servers.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
    yield servers.database_url_of(name)
    servers.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def redis_url(servers: Servers) -> str:
    """An empty logical database of this module's own."""
    number = LOGICAL_DATABASES[next(_module_numbers) % len(LOGICAL_DATABASES)]
    url = servers.redis_url_of(number)
    connection = redis.Redis.from_url(url)
    connection.flushdb()
    connection.close()
    return url
