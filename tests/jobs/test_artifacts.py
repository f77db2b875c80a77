"""Files are stored whole or not at all, wherever that is, and no key leaves its place."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jobs.artifacts import (
    ArtifactStore,
    LocalArtifactStore,
    StoredFile,
    require_key,
    require_sound,
    sha256_of,
)
from jobs.errors import DamagedFileError, StorageUnavailableError
from jobs.s3_artifacts import S3ArtifactStore
from jobs.settings import Settings
from jobs.storage import artifact_store
from tests.object_store import Gateway

LARGE = bytes(range(256)) * 140_000
"""Of three parts of an upload, and more than one read."""


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, settings: Settings) -> ArtifactStore:
    if request.param == "s3":
        url = request.getfixturevalue("s3_url")
        settings = settings.model_copy(update={"artifacts_url": url})
    return artifact_store(settings)


@pytest.fixture
def through(gateway: Gateway, s3_url_through: str) -> S3ArtifactStore:
    """A store behind a gateway that may fail."""
    del gateway
    return S3ArtifactStore(s3_url_through, patience_seconds=20)


def source(folder: Path, content: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(content)
    return path


def content(files: ArtifactStore, key: str) -> bytes:
    return b"".join(files.read(key, 0, files.size(key)))


class TestEveryStore:
    """What the port promises, whoever keeps it."""

    @pytest.mark.parametrize("stored", [b"weights", b"", LARGE], ids=["small", "empty", "large"])
    def test_a_stored_file_is_a_copy_with_size_and_digest(
        self, files: ArtifactStore, tmp_path: Path, stored: bytes
    ) -> None:
        path = source(tmp_path, stored)
        file = files.put("jobs/1/model", path)
        path.write_bytes(b"changed")
        assert content(files, "jobs/1/model") == stored
        assert file == StoredFile("jobs/1/model", len(stored), hashlib.sha256(stored).hexdigest())
        require_sound(files, file)

    @pytest.mark.parametrize(
        ("start", "end"), [(0, 1), (5, 5), (10_000_000, 30_000_001), (35_839_990, 35_840_000)]
    )
    def test_a_range_is_read_alone_and_in_pieces(
        self, files: ArtifactStore, tmp_path: Path, start: int, end: int
    ) -> None:
        files.put("jobs/1/model", source(tmp_path, LARGE))
        pieces = list(files.read("jobs/1/model", start, end))
        assert b"".join(pieces) == LARGE[start:end]
        assert all(len(piece) <= 4 << 20 for piece in pieces)

    def test_a_range_that_is_not_there_is_said_not_to_be(
        self, files: ArtifactStore, tmp_path: Path
    ) -> None:
        files.put("jobs/1/model", source(tmp_path, b"weights"))
        with pytest.raises(EOFError, match="ends at byte 7"):
            list(files.read("jobs/1/model", 3, 100))
        with pytest.raises(EOFError, match="ends at byte 50"):
            list(files.read("jobs/1/model", 50, 100))

    def test_a_file_that_is_not_there_is_said_not_to_be(self, files: ArtifactStore) -> None:
        with pytest.raises(FileNotFoundError, match="jobs/1/model"):
            files.size("jobs/1/model")
        with pytest.raises(FileNotFoundError, match="jobs/1/model"):
            list(files.read("jobs/1/model", 0, 1))

    def test_a_failed_write_leaves_nothing(self, files: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            files.put("jobs/1/model", tmp_path / "missing")
        with pytest.raises(FileNotFoundError):
            files.size("jobs/1/model")

    def test_what_is_at_hand_is_what_was_stored(self, files: ArtifactStore, tmp_path: Path) -> None:
        file = files.put("jobs/1/model", source(tmp_path, LARGE))
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        with files.at_hand(file, scratch) as path:
            assert sha256_of(path) == file.sha256
        assert list(scratch.iterdir()) == []

    @pytest.mark.parametrize(
        "damaged",
        [LARGE[:-1], LARGE[:-1] + b"!", LARGE + b"!", None],
        ids=["cut", "flipped", "longer", "gone"],
    )
    def test_a_file_that_is_not_what_was_stored_is_noticed(
        self, files: ArtifactStore, tmp_path: Path, damaged: bytes | None
    ) -> None:
        file = files.put("jobs/1/model", source(tmp_path, LARGE))
        if damaged is None:
            files.delete("jobs/1")
        else:
            files.put("jobs/1/model", source(tmp_path, damaged))
        with pytest.raises(DamagedFileError) as caught:
            require_sound(files, file)
        assert caught.value.found == (damaged and hashlib.sha256(damaged).hexdigest())
        with pytest.raises(DamagedFileError), files.at_hand(file, tmp_path):
            pass
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]

    def test_deleting_a_prefix_removes_its_files_and_no_others(
        self, files: ArtifactStore, tmp_path: Path
    ) -> None:
        for key in ("jobs/1/a/model", "jobs/1/a/deep/er", "jobs/1/b/model", "jobs/1/ab"):
            files.put(key, source(tmp_path, b"x"))
        files.delete("jobs/1/a")
        files.delete("jobs/1/never-there")
        for key in ("jobs/1/b/model", "jobs/1/ab"):
            assert content(files, key) == b"x"
        for key in ("jobs/1/a/model", "jobs/1/a/deep/er"):
            with pytest.raises(FileNotFoundError):
                files.size(key)

    @pytest.mark.parametrize("name", ["odd name#1.txt", "50%.txt", "müll.json", "a+b=c&d?e"])
    def test_odd_names_are_names(self, files: ArtifactStore, tmp_path: Path, name: str) -> None:
        files.put(f"jobs/1/{name}", source(tmp_path, name.encode()))
        assert content(files, f"jobs/1/{name}") == name.encode()

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            ("", "empty part"),
            ("/etc/passwd", "empty part"),
            ("jobs//model", "empty part"),
            ("jobs/", "empty part"),
            (".", r"without '\.' and '\.\.'"),
            ("../x", r"without '\.' and '\.\.'"),
            ("a/../../x", r"without '\.' and '\.\.'"),
            ("a/./x", r"without '\.' and '\.\.'"),
            ("a\0b", "control character"),
            ("a/b\n", "control character"),
            ("..\\x", "backslash"),
            ("C:\\x", "backslash"),
            ("a" * 256, "too long: 1024 bytes"),
            ("/".join(["é" * 100] * 6), "too long: 1024 bytes"),
            ("a/\udcff", "not Unicode"),
        ],
    )
    def test_a_key_that_might_leave_the_store_is_refused(
        self, files: ArtifactStore, tmp_path: Path, key: str, problem: str
    ) -> None:
        path = source(tmp_path, b"x")
        for work in (
            lambda: files.put(key, path),
            lambda: files.size(key),
            lambda: list(files.read(key, 0, 1)),
            lambda: files.link(key, 60),
            lambda: files.delete(key),
        ):
            with pytest.raises(ValueError, match=problem):
                work()
        assert path.read_bytes() == b"x"

    @pytest.mark.parametrize(
        "key", ["%2e%2e/x", "..%2fx", "\uff0e\uff0e/x", "\u2025/x", "a/\u2215etc", "...", "..x"]
    )
    def test_what_only_looks_like_a_way_out_is_a_name(
        self, files: ArtifactStore, tmp_path: Path, key: str
    ) -> None:
        files.put(f"inside/{key}", source(tmp_path, b"x"))
        assert content(files, f"inside/{require_key(key)}") == b"x"
        files.delete("inside")
        with pytest.raises(FileNotFoundError):
            files.size(f"inside/{key}")


def test_nothing_lies_outside_of_a_folder(tmp_path: Path) -> None:
    files = LocalArtifactStore(tmp_path / "store")
    files.put("jobs/..x/%2e%2e", source(tmp_path, b"x"))
    assert {path.name for path in tmp_path.iterdir()} == {"store", "source"}
    assert files.link("jobs/..x/%2e%2e", 60) is None


def test_a_link_gives_the_file_to_whoever_has_it_and_to_nobody_else(
    s3_url: str, tmp_path: Path
) -> None:
    files = S3ArtifactStore(s3_url, patience_seconds=5)
    files.put("jobs/1/odd name", source(tmp_path, b"weights"))
    url = files.link("jobs/1/odd name", 60)
    assert httpx.get(url, trust_env=False).content == b"weights"
    assert httpx.get(url, headers={"Range": "bytes=3-"}, trust_env=False).content == b"ghts"
    assert httpx.get(url.split("?")[0], trust_env=False).status_code == 403
    assert httpx.put(url, content=b"x", trust_env=False).status_code == 403


def first(count: int) -> Iterator[bool]:
    """True so often, then False for ever."""
    yield from [True] * count
    while True:
        yield False


def test_f16_a_store_that_fails_in_an_upload_gets_the_failed_parts_again(
    through: S3ArtifactStore, gateway: Gateway, tmp_path: Path
) -> None:
    fails = first(4)
    gateway.refuses = lambda request: "partNumber" in request and next(fails)
    file = through.put("jobs/1/model", source(tmp_path, LARGE))
    require_sound(through, file)
    parts = [status for request, status in gateway.asked if "partNumber" in request]
    assert sorted(parts) == [200] * 3 + [503] * 4


def test_f16_a_store_that_stays_away_is_given_up_and_has_nothing(
    through: S3ArtifactStore, gateway: Gateway, s3_url_through: str, tmp_path: Path
) -> None:
    hasty = S3ArtifactStore(s3_url_through, patience_seconds=0.5)
    gateway.refuses = lambda request: "partNumber=2" in request
    with pytest.raises(StorageUnavailableError, match="could not store 'jobs/1/model'"):
        hasty.put("jobs/1/model", source(tmp_path, LARGE))
    with pytest.raises(FileNotFoundError):
        through.size("jobs/1/model")
    # What did arrive is thrown away at once, as far as anybody is there to do so.
    assert ("DELETE", 204) in [(request.split()[0], status) for request, status in gateway.asked]


def test_an_upload_that_comes_back_as_something_else_is_made_again(
    through: S3ArtifactStore, gateway: Gateway, tmp_path: Path
) -> None:
    spoils = first(1)
    gateway.spoils = lambda body: bytes(len(body)) if next(spoils) else body
    require_sound(through, through.put("jobs/1/model", source(tmp_path, b"weights")))
    assert [request.split()[0] for request, _ in gateway.asked].count("PUT") == 2


def test_a_store_that_gives_back_something_else_is_not_believed(
    through: S3ArtifactStore, gateway: Gateway, tmp_path: Path
) -> None:
    gateway.spoils = lambda body: bytes(len(body))
    with pytest.raises(StorageUnavailableError, match="something else"):
        through.put("jobs/1/model", source(tmp_path, b"weights"))
    with pytest.raises(FileNotFoundError):
        through.size("jobs/1/model")


def test_a_place_that_refuses_says_so(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = S3ArtifactStore("s3://others/models", patience_seconds=1)
    with pytest.raises(StorageUnavailableError):
        other.put("model", source(tmp_path, b"x"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageUnavailableError, match="could not look for 'model'"):
        S3ArtifactStore(s3_url, patience_seconds=1).size("model")


def test_each_piece_on_the_way_is_told(s3_url: str, tmp_path: Path) -> None:
    told: list[None] = []
    files = S3ArtifactStore(s3_url, patience_seconds=5, on_piece=lambda: told.append(None))
    file = files.put("jobs/1/model", source(tmp_path, LARGE))
    # Three parts up, and nine reads to look at them.
    assert len(told) == 12
    require_sound(files, file)
    assert len(told) == 21


@pytest.mark.parametrize("url", ["http://x/y", "s3:/x", "s3://", "s3://X_y", "s3://bucket//a", "x"])
def test_a_url_that_names_no_bucket_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="artifacts_url"):
        Settings(artifacts_url=url)
