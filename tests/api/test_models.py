"""Which models there are, and what may go of one; never one that lies outside."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from jobs import models
from jobs.settings import Settings
from tests.api.problems import require_problem
from tests.conftest import CONFIG


def a_model(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Models of every kind, in the one folder that is allowed."""
    shelf = tmp_path / "shelf"
    a_model(shelf / "team" / "good", dtype="bfloat16")
    a_model(shelf / "odd", architectures=["OddForCausalLM"])
    a_model(shelf / "broken", hidden_size="many")
    (shelf / "broken-json").mkdir()
    (shelf / "broken-json" / "config.json").write_text("{")
    (shelf / "gguf").mkdir()
    (shelf / "gguf" / "small.gguf").write_bytes(b"GGUF")
    (shelf / "nothing").mkdir()
    a_model(shelf / ".hidden" / "model")
    secret = a_model(tmp_path / "secret")
    (shelf / "link").symlink_to(secret)
    (shelf / "leads-out").mkdir()
    (shelf / "leads-out" / "config.json").symlink_to(secret / "config.json")
    return shelf


@pytest.fixture
def client(settings: Settings, engine: Engine, shelf: Path) -> Any:
    allowed = settings.model_copy(update={"source_folders": (shelf,)})
    with TestClient(create_app(allowed), raise_server_exceptions=False) as client:
        yield client


def test_the_models_of_the_allowed_folders_are_listed(client: TestClient, shelf: Path) -> None:
    page = client.get("/v1/models").json()
    assert (page["folders"], page["complete"]) == ([str(shelf)], True)
    found = {Path(each["source"]).relative_to(shelf).as_posix(): each for each in page["items"]}
    assert set(found) == {"team/good", "odd", "broken", "gguf"}
    good = found["team/good"]
    assert (good["prunable"], good["dtype"], good["weights_bytes"]) == (True, "bfloat16", 1000)
    assert (found["odd"]["prunable"], found["odd"]["units"]) == (False, None)
    assert "docs" in found["odd"]["reason"] or "choose a model" in found["odd"]["reason"]
    assert (found["broken"]["prunable"], found["gguf"]["prunable"]) == (False, None)
    assert found["gguf"]["gguf_files"] == ["small.gguf"]


def test_a_model_tells_what_may_go_of_it(
    client: TestClient, shelf: Path, text_file: Path, tmp_path: Path
) -> None:
    source = str(shelf / "team" / "good")
    units = client.get("/v1/models/inspect", params={"source": source}).json()["units"]
    assert (units["layers"], units["attention_groups"], units["heads_per_group"]) == (2, 2, 2)
    assert (units["mlp_channels"], units["experts"], units["context"]) == (128, 0, None)
    inside = shelf / "text.txt"
    inside.write_text(text_file.read_text())
    job = {
        "model": {"source": source},
        "calibration": {"source": str(inside), "samples": 4, "sequence_length": 64},
    }
    # What it calls reachable is what a submission lets through, and no more.
    for share, status in (
        (units["reachable_sparsity"] - 1e-6, 200),
        (units["reachable_sparsity"] + 1e-6, 422),
    ):
        asked = {**job, "target": {"sparsity": share}}
        answer = client.post("/v1/jobs?validate_only=true", json=asked)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize("inside", ["link", "leads-out", "..", "../secret", "team/../../secret"])
def test_no_path_leaves_the_folder(client: TestClient, shelf: Path, inside: str) -> None:
    response = client.get("/v1/models/inspect", params={"source": f"{shelf}/{inside}"})
    problem = require_problem(response, 422, "source_not_allowed")
    outside = client.get("/v1/models/inspect", params={"source": "/nowhere/at/all"})
    # What is there outside is not told.
    assert require_problem(outside, 422, "source_not_allowed")["title"] == problem["title"]


def test_a_folder_that_is_none_is_said_to_be_none(client: TestClient, shelf: Path) -> None:
    for name in ("missing", "nothing", "broken-json"):
        response = client.get("/v1/models/inspect", params={"source": str(shelf / name)})
        require_problem(response, 422, "invalid_model")
    require_problem(client.get("/v1/models/inspect"), 422, "invalid_request")


def test_of_a_hub_only_a_worker_can_tell(client: TestClient) -> None:
    model = client.get("/v1/models/inspect", params={"source": "owner/name"}).json()
    assert (model["prunable"], model["units"]) == (None, None)
    assert "worker" in model["reason"]


def test_very_many_folders_are_not_all_looked_into(
    client: TestClient, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "MOST_FOLDERS", 3)
    page = client.get("/v1/models").json()
    assert page["complete"] is False
    assert len(page["items"]) < 4


def test_without_named_folders_none_is_looked_into(settings: Settings, engine: Engine) -> None:
    with TestClient(create_app(settings)) as client:
        page = client.get("/v1/models").json()
        assert (page["items"], page["folders"], page["complete"]) == ([], None, True)
