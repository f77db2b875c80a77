"""The servers of one data folder, started and stopped together."""

import contextlib
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType

from client.embedded.child import Child
from client.embedded.errors import EmbeddedStackError
from client.embedded.folder_lock import FolderLock
from client.embedded.postgres import DATABASE, Postgres
from client.embedded.sockets import socket_folder
from client.embedded.valkey import Valkey


class EmbeddedStack:
    """PostgreSQL and Valkey; either can be left out where one is already running somewhere.

    Everything lies in the data folder and ends with this process, by kill -9 too. The folder may
    be moved between two starts.
    """

    def __init__(
        self, data: Path, *, durable: bool = True, postgres: bool = True, valkey: bool = True
    ) -> None:
        self.data = data.expanduser().resolve()
        self._durable = durable
        self._wants_postgres = postgres
        self._wants_valkey = valkey
        self._lock = FolderLock(self.data)
        self._sockets: Path | None = None
        self._postgres: Postgres | None = None
        self._valkey: Valkey | None = None

    def start(self) -> None:
        """Returns when both accept clients. Call it from the main thread."""
        if sys.platform == "linux" and threading.current_thread() is not threading.main_thread():
            raise EmbeddedStackError(
                "The embedded servers end with the thread that starts them: "
                "start them from the main thread."
            )
        try:
            self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise EmbeddedStackError(
                f"Cannot make the data folder {self.data} ({error.strerror}). Choose another one."
            ) from error
        self._lock.acquire()
        try:
            self._start_servers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Both are asked at once, and get the time that a last checkpoint may take."""
        children = self._children()
        polite = {"postgres": signal.SIGINT, "valkey": signal.SIGTERM}
        for child in children:
            child.send(polite[child.name])
        for child in children:
            child.wait(30)
        self.kill()

    def kill(self) -> None:
        """Stop at once; the next start replays what was committed."""
        for child in self._children():
            if child.name == "postgres":
                # Immediate shutdown takes the server's helpers along; after a kill they stay for a
                # moment, and the next start would have to wait for them.
                child.send(signal.SIGQUIT)
                child.wait(5)
            child.kill_group()
        if self._sockets is not None and self._sockets.parent != self.data:
            with contextlib.suppress(OSError):  # not empty after a kill; the next start uses it
                self._sockets.rmdir()
        self._postgres = self._valkey = None
        self._lock.release()

    @property
    def database_url(self) -> str:
        """SQLAlchemy's form for psycopg 3, of the database `app`."""
        return self.database_url_of(DATABASE)

    def database_url_of(self, database: str) -> str:
        if self._postgres is None:
            raise EmbeddedStackError(f"The stack in {self.data} runs no PostgreSQL (now).")
        return self._postgres.url(database)

    @property
    def redis_url(self) -> str:
        """redis-py's form, of logical database 0."""
        if self._valkey is None:
            raise EmbeddedStackError(f"The stack in {self.data} runs no Valkey (now).")
        return self._valkey.url()

    @property
    def process_ids(self) -> dict[str, int]:
        return {child.name: child.process_id for child in self._children()}

    def require_alive(self) -> None:
        """Raise with the last words of a server that has ended by itself."""
        for child in self._children():
            if not child.running:
                raise EmbeddedStackError(child.obituary())

    def _start_servers(self) -> None:
        sockets = self._sockets = socket_folder(self.data)
        # Started side by side: each spends most of its start waiting.
        if self._wants_valkey:
            self._valkey = Valkey(self.data, sockets, durable=self._durable)
        if self._wants_postgres:
            self._postgres = Postgres(self.data, sockets, durable=self._durable)
            self._postgres.start()
        # Second, since handing over the socket folder is PostgreSQL's.
        if self._valkey is not None:
            self._valkey.start()
            self._valkey.wait_ready()
        if self._postgres is not None:
            self._postgres.wait_ready()

    def _children(self) -> list[Child]:
        return [server.child for server in (self._valkey, self._postgres) if server is not None]

    def __enter__(self) -> "EmbeddedStack":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
