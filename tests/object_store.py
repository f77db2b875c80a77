"""An object store that speaks S3: SeaweedFS from a wheel, one for a run, with one bucket.

Its user may read, write and list that bucket, and nothing else.
"""

import http.client
import json
import shutil
import socket
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from client.embedded.child import Child

BUCKET = "models"
REGION = "us-east-1"
USER = {"accessKey": "bonsai", "secretKey": "of-the-service"}
ADMINISTRATOR = {"accessKey": "admin", "secretKey": "of-the-operator"}
IDENTITIES = {
    "identities": [
        {
            "name": "bonsai",
            "credentials": [USER],
            "actions": [f"{action}:{BUCKET}" for action in ("Read", "Write", "List")],
        },
        {"name": "admin", "credentials": [ADMINISTRATOR], "actions": ["Admin", "Read", "Write"]},
    ]
}
SERVERS = ("master", "volume", "filer", "s3")


@pytest.fixture(scope="session")
def object_store() -> Iterator[int]:
    """The port of the server on the loopback."""
    folder = Path(tempfile.mkdtemp(prefix="bonsai-test-"))
    (folder / "identities.json").write_text(json.dumps(IDENTITIES))
    (folder / "data").mkdir()
    free = free_ports(2 * len(SERVERS))
    ports = dict(zip(SERVERS, free[::2], strict=True))
    server = Child(
        "weed",
        [
            Path(sysconfig.get_path("scripts")) / "weed",
            "server",
            *("-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"),
            *("-s3.config=identities.json", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=100"),
            *(f"-{name}.port={port}" for name, port in ports.items()),
            *(f"-{name}.port.grpc={port}" for name, port in zip(SERVERS, free[1::2], strict=True)),
        ],
        log=folder / "weed.log",
        folder=folder,
    )
    try:
        server.start()
        make_bucket(ports["s3"], server)
        yield ports["s3"]
    finally:
        server.kill_group()
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        found = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [listener.getsockname()[1] for listener in found]


def make_bucket(port: int, server: Child) -> None:
    """The server makes it with an administrator's first write, once all its parts are up."""
    store = S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{port}",
        region=REGION,
        access_key_id=ADMINISTRATOR["accessKey"],
        secret_access_key=ADMINISTRATOR["secretKey"],
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    end = time.monotonic() + 120
    while True:
        try:
            obstore.put(store, "made", b"")
        except (BaseError, FileNotFoundError):
            assert server.running, server.obituary()
            assert time.monotonic() < end, server.log_tail()
            time.sleep(0.1)
        else:
            return


class Gateway:
    """Stands before the object store, and fails when it is told to.

    Attributes:
        refuses: whether a request (`PUT /bucket/key`) is answered with 503.
        spoils: what becomes of the content that a GET brings.
        asked: each request so far, and the status of its answer.
    """

    def __init__(self, backend: int) -> None:
        self.refuses: Callable[[str], bool] = lambda _: False
        self.spoils: Callable[[bytes], bytes] = lambda body: body
        self.asked: list[tuple[str, int]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                request = f"{self.command} {self.path}"
                if gateway.refuses(request):
                    gateway.asked.append((request, 503))
                    self.answer(503, {}, b"")
                    return
                # With the headers as they came: Host is part of what is signed.
                connection = http.client.HTTPConnection("127.0.0.1", backend)
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                found = connection.getresponse()
                content = found.read()
                if self.command == "GET":
                    content = gateway.spoils(content)
                gateway.asked.append((request, found.status))
                self.answer(found.status, dict(found.getheaders()), content)
                connection.close()

            def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                own = {"content-length", "transfer-encoding", "connection"}
                length = headers.get("Content-Length", "0")
                for name, value in headers.items():
                    if name.lower() not in own:
                        self.send_header(name, value)
                # What HEAD tells is the size of a body that does not come.
                self.send_header(
                    "Content-Length", length if self.command == "HEAD" else str(len(body))
                )
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.pass_on)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def enter(monkeypatch: pytest.MonkeyPatch, port: int) -> str:
    """Set what AWS's tools read, in this process and those it starts; a URL of one's own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", USER["accessKey"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", USER["secretKey"])
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture
def s3_url(object_store: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a prefix of this test's own, with the way to it in the environment."""
    return enter(monkeypatch, object_store)


@pytest.fixture
def gateway(object_store: int) -> Iterator[Gateway]:
    gateway = Gateway(object_store)
    yield gateway
    gateway.close()


@pytest.fixture
def s3_url_through(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same by way of the gateway."""
    return enter(monkeypatch, gateway.port)
