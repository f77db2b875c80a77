"""Files are stored whole or not at all, and no key leaves the store."""

from pathlib import Path

import pytest

from jobs.artifacts import LocalArtifactStore, sha256_of


@pytest.fixture
def files(tmp_path: Path) -> LocalArtifactStore:
    return LocalArtifactStore(tmp_path / "store")


def test_a_stored_file_is_a_copy_with_size_and_digest(
    files: LocalArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    stored = files.put("jobs/1/model", source)
    source.write_bytes(b"changed")
    assert files.path("jobs/1/model").read_bytes() == b"weights"
    assert (stored.size_bytes, stored.sha256) == (7, sha256_of(files.path("jobs/1/model")))


def test_a_failed_write_leaves_nothing(files: LocalArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.put("jobs/1/model", tmp_path / "missing")
    assert list((tmp_path / "store" / "jobs" / "1").iterdir()) == []


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a/../../x", "", "."])
def test_a_key_that_leaves_the_store_is_refused(files: LocalArtifactStore, key: str) -> None:
    with pytest.raises(ValueError, match="relative path"):
        files.path(key)


def test_deleting_a_prefix_removes_its_files_and_no_others(
    files: LocalArtifactStore, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x")
    files.put("jobs/1/a/model", source)
    files.put("jobs/1/b/model", source)
    files.delete("jobs/1/a")
    files.delete("jobs/1/never-there")
    assert files.path("jobs/1/b/model").is_file()
    with pytest.raises(FileNotFoundError):
        files.path("jobs/1/a/model")
