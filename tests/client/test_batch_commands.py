"""`bonsai batch` against the real service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from client import BonsaiClient
from tests.fake_worker import FakeWorker

Bonsai = Callable[..., Result]


@pytest.fixture
def batch(bonsai: Bonsai, body: dict[str, Any], tmp_path: Path) -> str:
    file = tmp_path / "batch.json"
    file.write_text(json.dumps({"name": "night", "template": body, "sparsities": [0.1, 0.3]}))
    return bonsai("batch", "submit", str(file)).stdout.strip()


def test_a_file_becomes_jobs(client: BonsaiClient, batch: str) -> None:
    found = client.batch(batch)
    assert (found.name, found.counts, found.finished) == ("night", {"queued": 2}, False)
    assert [job.target["sparsity"] for job in found.jobs] == [0.1, 0.3]


def test_the_report_says_what_failed_also_by_its_exit_code(
    bonsai: Bonsai, batch: str, worker: FakeWorker
) -> None:
    assert bonsai("batch", "show", batch).exit_code == 0
    worker.fail(worker.claim())
    result = bonsai("batch", "show", batch)
    assert result.exit_code == 1
    assert "1 failed, 1 queued" in result.stdout
    assert "broken_numerics" in result.stdout
    report = json.loads(bonsai("batch", "show", batch, "--json").stdout)
    assert report["counts"] == {"failed": 1, "queued": 1}


def test_one_cancel_ends_all(bonsai: Bonsai, client: BonsaiClient, batch: str) -> None:
    assert "2 cancelled" in bonsai("batch", "cancel", batch).stdout
    assert client.batch(batch).finished


@pytest.mark.parametrize("content", ["{", "[]", None])
def test_a_file_that_is_no_batch_is_named(
    bonsai: Bonsai, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "batch.json"
    if content is not None:
        file.write_text(content)
    result = bonsai("batch", "submit", str(file))
    assert result.exit_code == 1
    assert str(file) in result.stderr.replace("\n", "")
