"""`bonsai push`: a result and its lineage arrive on a hub, also after an interruption."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bonsai_core.digests import sha256_of
from client.cli import app
from tests.hub import TOKEN, Hub
from tests.served import served
from tests.tiny_models import tiny_model, tiny_text


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `bonsai prune` wrote."""
    place = tmp_path_factory.mktemp("pruned")
    model, text = tiny_model(place / "dense"), tiny_text(place / "text.txt")
    wish = ["--preset", "statistics", "--sparsity", "0.3", "--samples", "8"]
    wish += ["--sequence-length", "32", "--format", "gguf-f16", "--no-report", "--output"]
    words = ["prune", str(model), "--calibration", str(text), *wish, str(place / "smaller")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return place / "smaller"


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "smaller")


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def address(hub: Hub) -> Iterator[str]:
    with served(hub.app()) as url:
        yield url


def push(address: str, *words: str | Path, token: str | None = TOKEN) -> tuple[int, str, str]:
    """Exit code, standard output and standard error."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1", "COLUMNS": "400"}
    environment |= {"HF_HOME": "/nonexistent"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "-m", "client", "push", *map(str, words)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


def names_of(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths}


def test_all_files_arrive_and_the_commit_tells_the_lineage(
    hub: Hub, address: str, folder: Path
) -> None:
    code, told, problem = push(address, folder, "me/smaller", "--json")
    assert code == 0, problem
    files = hub.repositories["me/smaller"]["main"]
    assert set(files) == names_of(folder)
    assert all((folder / name).read_bytes() == content for name, content in files.items())
    assert hub.private["me/smaller"]
    [commit] = hub.commits
    lineage = json.loads(files["lineage.json"])
    manifest = json.loads(files["bonsai.json"])
    assert lineage["base"]["sha256"] == manifest["source_sha256"]
    assert lineage["base"]["source"] == manifest["request"]["model"]["source"]
    assert lineage["job"] is None
    assert lineage["code"]["bonsai-pruning"] == manifest["versions"]["bonsai-pruning"]
    assert lineage["manifest_sha256"] == sha256_of(folder / "bonsai.json")
    assert "pruned by 3" in commit.summary
    for said in (manifest["source_sha256"], lineage["manifest_sha256"], "bonsai-pruning 0."):
        assert said in commit.description
    url = f"{address}/me/smaller/commit/{1:040x}"
    assert json.loads(told) == {
        "repository": "me/smaller",
        "branch": "main",
        "commit": f"{1:040x}",
        "url": url,
    }


def test_after_an_interruption_the_same_command_uploads_what_is_missing(
    hub: Hub, address: str, folder: Path
) -> None:
    hub.refused = {2}
    code, _, problem = push(address, folder, "me/smaller")
    assert code == 1
    assert "the same command goes on" in problem
    assert "Traceback" not in problem
    assert hub.repositories["me/smaller"]["main"] == {}
    before = list(hub.uploads)
    assert len(before) == 1
    code, told, problem = push(address, folder, "me/smaller")
    assert code == 0, problem
    assert told.strip().startswith(f"{address}/me/smaller")
    assert set(hub.repositories["me/smaller"]["main"]) == names_of(folder)
    weights = {sha256_of(folder / n) for n in ("model.safetensors", "gguf/model-f16.gguf")}
    assert set(hub.uploads) == weights
    assert len(hub.uploads) == 2


def test_weights_of_an_earlier_result_do_not_stay_and_other_files_do(
    hub: Hub, address: str, folder: Path
) -> None:
    old = {"model-00001-of-00002.safetensors": b"old", "notes.txt": b"mine", "config.json": b"{}"}
    hub.repositories["team/model"] = {"main": dict(old)}
    hub.private["team/model"] = False
    code, _, problem = push(address, folder, "team/model")
    assert code == 0, problem
    files = hub.repositories["team/model"]["main"]
    assert set(files) == names_of(folder) | {"notes.txt"}
    assert files["config.json"] == (folder / "config.json").read_bytes()


def test_a_branch_is_made_and_the_others_stay_as_they_are(
    hub: Hub, address: str, folder: Path
) -> None:
    code, _, problem = push(address, folder, "me/sizes", "--branch", "half", "--public")
    assert code == 0, problem
    assert set(hub.repositories["me/sizes"]["half"]) == names_of(folder)
    assert hub.repositories["me/sizes"]["main"] == {}
    assert not hub.private["me/sizes"]


@pytest.mark.parametrize(
    ("token", "repository", "said"),
    [
        (None, "me/smaller", "HF_TOKEN: there is no token"),
        ("hf_another", "me/smaller", "the token of HF_TOKEN may write there"),
        (TOKEN, "me/a/b", "allowed: owner/name"),
    ],
)
def test_a_refusal_says_what_to_do(
    address: str, folder: Path, token: str | None, repository: str, said: str
) -> None:
    code, _, problem = push(address, folder, repository, token=token)
    assert code == 1
    assert said in problem
    assert "Traceback" not in problem
    assert token is None or token not in problem


def test_only_a_whole_result_is_given_away(hub: Hub, address: str, folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    code, _, problem = push(address, folder, "me/smaller")
    assert (code, hub.repositories) == (1, {})
    assert "not as the manifest says: config.json" in problem
    (folder / "bonsai.json").unlink()
    code, _, problem = push(address, folder, "me/smaller")
    assert code == 1
    assert "no bonsai.json" in problem


@pytest.mark.parametrize("content", ["", '{"manifest_sha256": "of another"}', "[]"])
def test_a_lineage_that_is_not_its_own_is_given_to_nobody(
    hub: Hub, address: str, folder: Path, content: str
) -> None:
    (folder / "lineage.json").write_text(content)
    code, _, problem = push(address, folder, "me/smaller")
    assert (code, hub.repositories) == (1, {})
    assert "lineage.json cannot be read, or is of another bonsai.json" in problem


def test_a_lineage_that_is_missing_is_written(hub: Hub, address: str, folder: Path) -> None:
    before = (folder / "lineage.json").read_bytes()
    (folder / "lineage.json").unlink()
    code, _, problem = push(address, folder, "me/smaller")
    assert code == 0, problem
    assert hub.repositories["me/smaller"]["main"]["lineage.json"] == before


def test_a_hub_that_is_away_is_said_to_be(folder: Path) -> None:
    code, _, problem = push("http://127.0.0.1:9", folder, "me/smaller")
    assert code == 1
    assert "the same command goes on from there" in problem
