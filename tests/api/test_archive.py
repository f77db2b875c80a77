"""A whole model as one archive: laid out without reading, so that a cut download goes on."""

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from api.archive import Archive, FileRange, Member
from jobs.artifacts import ArtifactStore
from tests.api.problems import require_problem
from tests.api.test_artifacts import settings
from tests.fake_worker import FakeWorker

__all__ = ["settings"]

FILES = {
    "model-00001-of-00002.safetensors": bytes(range(256)) * 20_000,
    "model-00002-of-00002.safetensors": b"\x01" * 511,
    "empty.json": b"",
    "config.json": b"{}" * 256,
    "müll " + "long" * 40 + ".txt": b"x" * 513,
}


@pytest.fixture
def path(client: TestClient, job: dict[str, Any], worker: FakeWorker) -> str:
    """The path of the archive of a job that has succeeded."""
    worker.succeed(worker.claim(), FILES)
    return client.get(job["links"]["artifacts"]).json()["links"]["archive"]


def unpacked(archive: bytes) -> dict[str, bytes]:
    """What Python's own reader finds in it, by name."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as tar:
        found = {}
        for member in tar.getmembers():
            file = tar.extractfile(member)
            assert file is not None
            assert (member.mode, member.uid, member.gid) == (0o644, 0, 0)
            found[member.name] = file.read()
        return found


def in_folder(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    return {f"{folder}/{name}": content for name, content in files.items()}


def test_it_holds_every_file_in_a_folder_of_its_own(
    client: TestClient, path: str, job: dict[str, Any], tmp_path: Path
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-tar"
    assert response.headers["content-length"] == str(len(response.content))
    assert response.headers["content-disposition"] == f'attachment; filename="{job["id"]}.tar"'
    assert unpacked(response.content) == in_folder(FILES, job["id"])
    # The system's tar understands it too, and has nothing to complain of.
    done = subprocess.run(
        ["tar", "-xf", "-", "-C", tmp_path], input=response.content, capture_output=True, check=True
    )
    assert done.stderr == b""
    folder = tmp_path / job["id"]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == FILES


def test_head_tells_size_and_etag_and_they_stay(client: TestClient, path: str) -> None:
    head, first, second = client.head(path), client.get(path), client.get(path)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(first.content))
    assert head.headers["etag"] == first.headers["etag"] == second.headers["etag"]
    assert first.content == second.content


def test_a_download_that_was_cut_at_two_fifths_goes_on(client: TestClient, path: str) -> None:
    whole = client.get(path)
    size = len(whole.content)
    cut = size * 2 // 5
    rest = client.get(path, headers={"Range": f"bytes={cut}-", "If-Range": whole.headers["etag"]})
    assert rest.status_code == 206
    assert rest.headers["content-range"] == f"bytes {cut}-{size - 1}/{size}"
    assert rest.headers["content-length"] == str(size - cut)
    assert whole.content[:cut] + rest.content == whole.content


def test_of_another_archive_all_is_sent(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"Range": "bytes=100-", "If-Range": '"another"'})
    assert response.status_code == 200
    assert len(response.content) == int(response.headers["content-length"])


def test_a_range_outside_is_a_problem(client: TestClient, path: str) -> None:
    size = int(client.head(path).headers["content-length"])
    response = client.get(path, headers={"Range": f"bytes={size}-"})
    require_problem(response, 416, "range_not_satisfiable")
    assert response.headers["content-range"] == f"bytes */{size}"


def test_a_job_without_files_has_no_archive(client: TestClient, job: dict[str, Any]) -> None:
    response = client.get(f"{job['links']['self']}/archive")
    problem = require_problem(response, 404, "artifact_not_found")
    assert "succeeded" in problem["detail"]


def test_an_archive_with_a_lost_file_is_refused_before_a_byte_is_sent(
    client: TestClient, path: str, artifacts: ArtifactStore
) -> None:
    artifacts.delete("jobs")
    require_problem(client.get(path), 410, "artifact_gone")


def members(files: Mapping[str, bytes]) -> list[Member]:
    return [
        Member(name, f"key/{name}", len(content), hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]


def made(archive: Archive, files: Mapping[str, bytes], start: int, end: int) -> bytes:
    """The bytes of a range, from files in memory."""
    return b"".join(
        files[part.key.removeprefix("key/")][part.start : part.end]
        if isinstance(part, FileRange)
        else part
        for part in archive.parts(start, end)
    )


@given(st.data())
@effort(max_examples=60, deadline=None)
def test_any_range_is_that_part_of_the_whole(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 2000), min_size=1, max_size=4))
    files = {f"file-{number}": bytes([number + 1]) * size for number, size in enumerate(sizes)}
    archive = Archive("model", members(files))
    whole = made(archive, files, 0, archive.size_bytes)
    assert len(whole) == archive.size_bytes
    assert unpacked(whole) == in_folder(files, "model")
    start = data.draw(st.integers(0, archive.size_bytes))
    end = data.draw(st.integers(start, archive.size_bytes))
    assert made(archive, files, start, end) == whole[start:end]


def test_its_etag_tells_content_names_and_folder_apart() -> None:
    files = {"a": b"1", "b": b"2"}
    tags = [
        Archive("model", members(files)).tag,
        Archive("model", members({**files, "b": b"3"})).tag,
        Archive("model", members({"a": b"1", "c": b"2"})).tag,
        Archive("other", members(files)).tag,
        Archive("model", members({"a": b"1"})).tag,
    ]
    assert len(set(tags)) == len(tags)
    assert Archive("model", members(files)).tag == tags[0]


def test_a_file_of_more_than_eight_gibibytes_has_its_size() -> None:
    """Which is more than the size of the first tars has digits for."""
    size = 20 * 2**30
    archive = Archive("model", [Member("big", "key/big", size, "00" * 32)])
    header = next(archive.parts(0, archive.size_bytes))
    assert isinstance(header, bytes)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024)), mode="r:") as tar:
        first = tar.next()
        assert first is not None
        assert (first.name, first.size) == ("model/big", size)
    assert archive.size_bytes == len(header) + size + 1024
