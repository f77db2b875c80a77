"""A receiver of webhooks: a real HTTP server in a thread, which answers as it is told."""

import contextlib
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from standardwebhooks.webhooks import Webhook


@dataclass
class Message:
    """What came in one request."""

    path: str
    headers: dict[str, str]
    content: bytes

    def verified(self, secret: str) -> dict[str, Any]:
        """The message, if its signature is right; WebhookVerificationError otherwise."""
        found: dict[str, Any] = Webhook(secret).verify(self.content, self.headers)
        return found


@dataclass
class Receiver:
    """Answers the statuses in turn, the last one for ever.

    Attributes:
        statuses: what is answered.
        headers: sent with each answer.
        body: of each answer.
        drip_seconds: pause after each byte of an answer, head and body.
        messages: what has come so far.
        port: to listen on; 0: any, which it then is.
    """

    statuses: list[int] = field(default_factory=lambda: [204])
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    drip_seconds: float = 0.0
    messages: list[Message] = field(default_factory=list)
    port: int = 0
    tls: ssl.SSLContext | None = None

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?key=1"

    def wait_for(self, count: int) -> list[Message]:
        """The messages, once there are so many."""
        end = time.monotonic() + 60
        while len(self.messages) < count:
            assert time.monotonic() < end, f"{len(self.messages)} of {count} messages came"
            time.sleep(0.01)
        return self.messages

    def next_status(self) -> int:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.messages.append(Message(self.path, dict(self.headers), content))
            lines = [f"HTTP/1.1 {receiver.next_status()} told", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in receiver.headers.items()]
            answer = "\r\n".join([*lines, "", ""]).encode() + receiver.body
            pieces = [answer]
            if receiver.drip_seconds:
                pieces = [bytes([byte]) for byte in answer]
            # The other side need not listen to the end.
            with contextlib.suppress(OSError):
                for piece in pieces:
                    self.wfile.write(piece)
                    time.sleep(receiver.drip_seconds)

        def log_message(self, *_: object) -> None:
            """Nothing: tests look at the messages."""

    return Handler
