"""Valkey (or Redis) in a data folder."""

import contextlib
import signal
import socket
from pathlib import Path
from urllib.parse import quote

from client.embedded.binaries import valkey_program
from client.embedded.child import Child
from client.embedded.errors import EmbeddedStackError
from client.embedded.processes import end_processes

SOCKET_NAME = "valkey.sock"
# A process is known by the file name of its program.
PROGRAM_NAMES = ("valkey-server", "redis-server")
LOGICAL_DATABASES = 16


class Valkey:
    """Reached through a Unix socket, by its own user only."""

    def __init__(self, data: Path, sockets: Path, *, durable: bool) -> None:
        self.folder = data / "valkey"
        self.socket = sockets / SOCKET_NAME
        self.child = Child(
            "valkey",
            [
                valkey_program(),
                *("--port", "0"),
                *("--unixsocket", self.socket),
                *("--unixsocketperm", "700"),
                *("--databases", str(LOGICAL_DATABASES)),
                *("--save", ""),
                *("--appendonly", "yes" if durable else "no"),
                *("--appendfsync", "everysec"),
                # A broker that evicts keys loses messages.
                *("--maxmemory-policy", "noeviction"),
            ],
            log=data / "logs" / "valkey.log",
            # Its working folder is where it writes; it is also how an orphan is found.
            folder=self.folder,
            death_signal=signal.SIGTERM,
        )

    def start(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise EmbeddedStackError(f"Cannot make {self.folder}: {error.strerror}.") from error
        # Two servers destroy each other's append-only file, and the second silently takes over the
        # socket.
        end_processes(self.folder, PROGRAM_NAMES, signal.SIGTERM)
        self.socket.unlink(missing_ok=True)
        self.child.start()

    def wait_ready(self) -> None:
        self.child.wait_until(self._ready, seconds=120)

    def url(self, database: int = 0) -> str:
        """For redis-py."""
        return f"unix://{quote(str(self.socket), safe='/')}?db={database}"

    def _ready(self) -> bool:
        """It answers -LOADING until it has read its append-only file."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            connection.connect(str(self.socket))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        return False
