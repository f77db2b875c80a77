"""Whether files can be stored, found out by storing one."""

from pathlib import Path

from jobs.artifacts import LocalArtifactStore
from jobs.storage_check import StorageCheck


def test_a_store_works_again_when_it_does(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    check = StorageCheck(LocalArtifactStore(root), seconds=0)
    root.write_bytes(b"in the way")
    assert not check.works()
    root.unlink()
    assert check.works()
    assert not list(root.rglob("check")), "nothing is left behind"


def test_it_is_not_tried_at_every_question(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    check = StorageCheck(LocalArtifactStore(root), seconds=3600)
    assert check.works()
    (root / "checks").rmdir()
    root.rmdir()
    root.write_bytes(b"in the way")
    assert check.works()
