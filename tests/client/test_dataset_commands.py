"""`bonsai datasets` and the client against the real service."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from client import AsyncBonsaiClient, BonsaiClient, ClientError

Bonsai = Callable[..., Result]


def test_a_text_is_uploaded_listed_used_and_removed(
    bonsai: Bonsai, text_file: Path, model_folder: Path
) -> None:
    uploaded = bonsai("datasets", "upload", str(text_file), "--name", "trees")
    assert uploaded.exit_code == 0, uploaded.output
    source = uploaded.stdout.strip()
    (listed,) = json.loads(bonsai("datasets", "list", "--json").stdout)
    assert (listed["source"], listed["name"]) == (source, "trees")
    assert listed["sha256"] == hashlib.sha256(text_file.read_bytes()).hexdigest()
    assert "trees" in bonsai("datasets", "list").stdout
    shown = json.loads(bonsai("datasets", "show", listed["id"], "--json").stdout)
    assert shown == listed
    options = ("--calibration", source, "--samples", "4", "--sequence-length", "64")
    job = bonsai("submit", str(model_folder), *options, "--sparsity", "0.3")
    assert job.exit_code == 0, job.output
    refused = bonsai("datasets", "delete", listed["id"])
    assert refused.exit_code == 1
    assert job.stdout.strip() in refused.output
    bonsai("cancel", job.stdout.strip())
    assert bonsai("datasets", "delete", listed["id"]).exit_code == 0
    assert json.loads(bonsai("datasets", "list", "--json").stdout) == []


def test_the_client_tells_the_type_by_the_ending(client: BonsaiClient, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a tree"}\n' * 3)
    found = client.upload_dataset(rows)
    assert (found.media_type, found.lines, found.name) == ("application/jsonl", 3, "rows.jsonl")
    assert client.dataset(found.id) == found
    assert list(client.datasets()) == [found]
    with pytest.raises(ClientError, match=r"\.jsonl"):
        client.upload_dataset(tmp_path / "rows.json")
    client.delete_dataset(found.id)
    assert list(client.datasets()) == []


def test_the_twin_uploads_as_well(url: str, text_file: Path) -> None:
    async def upload() -> Any:
        async with AsyncBonsaiClient(url) as client:
            return await client.upload_dataset(text_file, name="trees")

    assert asyncio.run(upload()).size_bytes == text_file.stat().st_size


def test_a_text_comes_back_as_it_was(client: BonsaiClient, text_file: Path, tmp_path: Path) -> None:
    found = client.upload_dataset(text_file)
    path = client.download_dataset(found.id, tmp_path / "back")
    assert path.name == f"{found.id}.txt"
    assert path.read_bytes() == text_file.read_bytes()
