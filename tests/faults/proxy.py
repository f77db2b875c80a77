"""A network that can be cut: a TCP port in front of a server."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

_PIECE = 65536


class Proxy:
    """Forwards connections until it is told otherwise.

    Attributes:
        port: on the loopback.
        silent: while set, nothing comes through either way, and nobody is told: half-open.
    """

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.silent = False
        self._open = True
        self._swallow: bytes | None = None
        self._after = b""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self._open = False
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._close(pair)

    def mend(self) -> None:
        """Take connections again."""
        self._open, self.silent = True, False

    def swallow_reply_to(self, words: bytes, *, after: bytes = b"") -> None:
        """The next time a client says these words, the server hears them, and the client is cut off
        before it gets the reply; only on a connection that has said the others since now."""
        self._after, self._swallow = after, words

    @property
    def swallowed(self) -> bool:
        """Whether that has happened."""
        return self._swallow is None

    def close(self) -> None:
        """For good."""
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self._open:
                client.close()
                continue
            pair = (client, self._connect())
            self._pairs.append(pair)
            for work in (self._to_server, self._to_client):
                threading.Thread(target=work, args=(pair,), daemon=True).start()

    def _to_server(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        has_come_to_it = False
        with suppress(OSError):
            while piece := client.recv(_PIECE):
                while self.silent:
                    threading.Event().wait(0.05)
                words = self._swallow
                has_come_to_it |= words is not None and self._after in piece
                if words is not None and words in piece and has_come_to_it:
                    # The other direction must not be quicker than this one.
                    self._swallow = None
                    client.shutdown(socket.SHUT_RDWR)
                    server.sendall(piece)
                    threading.Event().wait(0.3)
                    break
                server.sendall(piece)
        self._close(pair)

    def _to_client(self, pair: tuple[socket.socket, socket.socket]) -> None:
        client, server = pair
        with suppress(OSError):
            while piece := server.recv(_PIECE):
                while self.silent:
                    threading.Event().wait(0.05)
                client.sendall(piece)
        self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
