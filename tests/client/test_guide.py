"""The guide of docs/api.md does what it says: each of its three ways, from nothing to a model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.app import create_app
from bonsai_core.verification import verify
from jobs.settings import Settings
from tests.embedded.test_up import Up, up
from tests.tiny_models import tiny_model, tiny_text

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?(\w*)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
METHODS = {"GET", "POST", "PATCH", "DELETE"}


def way(language: str, name: str = "") -> str:
    """All snippets of one way, in their order."""
    return "".join(text for kind, word, text in BLOCKS if (kind, word) == (language, name))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader would work, with the text and the model that the guide speaks of."""
    folder = tmp_path / "work"
    folder.mkdir()
    tiny_text(folder / "wiki.txt")
    tiny_model(tmp_path / "model", layers=3)
    return folder


def fitted(script: str, service: Up, folder: Path) -> str:
    """The script for a service and a model of this test, which is tiny."""
    changes = {
        "http://127.0.0.1:8000": f"http://127.0.0.1:{service.port}",
        "/models/SmolLM2-135M": str(folder.parent / "model"),
        '"samples": 32, "sequence_length": 512': '"samples": 8, "sequence_length": 64',
        "--samples 32 --sequence-length 512": "--samples 8 --sequence-length 64",
    }
    for old, new in changes.items():
        script = script.replace(old, new)
    assert "SmolLM2" not in script
    return script


def run(script: str, language: str, folder: Path) -> str:
    environment = {name: it for name, it in os.environ.items() if not name.startswith("BONSAI_")}
    # `bonsai` and `python3` are those of this installation.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(PROJECT)
    shell = ["bash", "-euo", "pipefail", "-c"]
    command = [*([sys.executable, "-c"] if language == "python" else shell), script]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["curl", "bonsai", "python"])
def test_it_leads_from_a_key_to_a_model(folder: Path, name: str) -> None:
    language, word = ("python", "") if name == "python" else ("bash", name)
    with up(folder.parent / "data") as service:
        service.wait_ready()
        said = run(fitted(way(language, word), service, folder), language, folder)
    names = {path.name for path in (folder / "smaller").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "lineage.json"} <= names
    checks = verify(folder / "smaller", "cpu")
    assert [check for check in checks if not check.holds] == []
    assert "probe.mean_nll" in [check.name for check in checks]
    if name == "curl":
        assert "event: end" in said
        assert "succeeded" in said
        # The last answer is the problem that the guide promises.
        assert '"pointer": "/target/sparsity"' in said


def test_every_snippet_is_of_a_way_that_is_run_or_checked() -> None:
    run_here = {("bash", "curl"), ("bash", "bonsai"), ("python", "")}
    checked_here = {("http", "")}
    answers = {("json", ""), ("text", "")}
    assert {(kind, word) for kind, word, _ in BLOCKS} == run_here | checked_here | answers


def test_every_address_that_the_page_names_is_there() -> None:
    paths = create_app(Settings()).openapi()["paths"]
    known = {(method.upper(), shape(path)) for path, it in paths.items() for method in it}
    lines = [
        line.split() for kind, _, text in BLOCKS if kind == "http" for line in text.split("\n")
    ]
    named = [
        (words[0], shape(words[1].split("?")[0]))
        for words in lines
        if words[:1] and words[0] in METHODS
    ]
    assert len(named) > 40
    assert [each for each in named if each not in known] == []


def shape(path: str) -> str:
    """A path, whatever its parameters are called."""
    return re.sub(r"\{[^}]*\}", "{}", path)
