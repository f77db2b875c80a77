"""Downloads over a connection that fails: a small server that cuts, lies or ignores ranges."""

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from client import Artifact, ClientError, CorruptedDownloadError, UnreachableServiceError
from client.download import Download
from client.sender import Sender

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ARTIFACT = Artifact(name="model.safetensors", size_bytes=len(CONTENT), sha256=DIGEST)


@dataclass
class Behaviour:
    """How the server answers."""

    content: bytes = CONTENT
    cut_after: int | None = None
    """Bytes after which each connection ends."""
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)
    """The Range of each request."""


@pytest.fixture
def behaviour() -> Behaviour:
    return Behaviour()


@pytest.fixture
def http(behaviour: Behaviour) -> Iterator[httpx.Client]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers["Range"]
            behaviour.asked.append(wanted)
            begin = 0
            if wanted and behaviour.ranges and self.headers["If-Range"] == f'"{DIGEST}"':
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            rest = behaviour.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[: behaviour.cut_after])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}", trust_env=False) as client:
        yield client
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(http: httpx.Client, artifact: Artifact, folder: Path) -> Path:
    return Sender(http).run(Download("/file", artifact, folder).run())


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.tries.PAUSE_SECONDS", 0.001)


def test_a_download_that_is_cut_goes_on_where_it_ended(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.cut_after = 200_000
    path = fetch(http, ARTIFACT, tmp_path)
    assert path.read_bytes() == CONTENT
    assert behaviour.asked == [None, "bytes=200000-", "bytes=400000-"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_later_run_goes_on_with_the_part(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(CONTENT[:1000])
    assert fetch(http, ARTIFACT, tmp_path).read_bytes() == CONTENT
    assert behaviour.asked == ["bytes=1000-"]


def test_a_part_that_is_whole_is_only_checked(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(CONTENT)
    assert fetch(http, ARTIFACT, tmp_path).read_bytes() == CONTENT
    assert behaviour.asked == []


@pytest.mark.parametrize("left", [b"x" * 1000, CONTENT + b"x", b"x" * len(CONTENT)])
def test_a_part_of_something_else_is_thrown_away(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path, left: bytes
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(left)
    assert fetch(http, ARTIFACT, tmp_path).read_bytes() == CONTENT
    assert behaviour.asked[-1] is None


def test_a_server_without_ranges_is_asked_for_the_whole(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.ranges = False
    (tmp_path / "model.safetensors.part").write_bytes(CONTENT[:1000])
    assert fetch(http, ARTIFACT, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("damaged", [CONTENT[:-1] + b"!", CONTENT + b"!"])
def test_a_damaged_file_is_not_kept(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path, damaged: bytes
) -> None:
    behaviour.content = damaged
    with pytest.raises(CorruptedDownloadError, match=DIGEST):
        fetch(http, ARTIFACT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_content_is_fetched_anew(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"an older one")
    assert fetch(http, ARTIFACT, tmp_path).read_bytes() == CONTENT


def test_a_connection_that_brings_nothing_is_given_up(
    http: httpx.Client, behaviour: Behaviour, tmp_path: Path
) -> None:
    behaviour.cut_after = 0
    with pytest.raises(UnreachableServiceError):
        fetch(http, ARTIFACT, tmp_path)


def test_a_name_may_hold_a_folder(http: httpx.Client, behaviour: Behaviour, tmp_path: Path) -> None:
    artifact = ARTIFACT.model_copy(update={"name": "sparsity-0.2/model.safetensors"})
    found = fetch(http, artifact, tmp_path)
    assert found == tmp_path / "sparsity-0.2" / "model.safetensors"
    assert found.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name", ["../up", "a/../b", "/etc/x", "a/", "..", "", ".", "c:\\x", "a\\b", "a/c:x"]
)
def test_a_name_that_leaves_the_folder_is_refused(
    http: httpx.Client, tmp_path: Path, name: str
) -> None:
    artifact = Artifact(name=name, size_bytes=0, sha256=DIGEST)
    with pytest.raises(ClientError, match="not a file name"):
        fetch(http, artifact, tmp_path)
