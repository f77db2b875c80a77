"""`bonsai evaluate` and `bonsai compare` with tasks of lm-evaluation-harness."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from client.cli import app
from tests.formats.pruned_folders import pruned_folder
from tests.harness_tasks import COUNT, tasks_folder
from tests.tiny_models import tiny_text

COMMAND = "from client.cli import main; main()"


def bonsai(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with widths per layer, beside the dense one."""
    return pruned_folder(tmp_path_factory.mktemp("models"), "LlamaForCausalLM")


@pytest.fixture(scope="module")
def wish(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options of a short exam with two tasks."""
    place = tmp_path_factory.mktemp("exam")
    text, tasks = tiny_text(place / "text.txt"), tasks_folder(place / "tasks")
    return (
        *("--text", str(text), "--window", "64", "--windows", "2", "--device", "cpu"),
        *("--task", "tiny_choice", "--task", "tiny_perplexity", "--tasks-folder", str(tasks)),
    )


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_the_help_names_the_options_of_tasks(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [command, "--help"])
    text = " ".join(result.stdout.split())
    assert all(f"{name} " in text for name in ("--task", "--tasks-folder", "--limit"))


def test_tasks_stand_in_the_json_and_nothing_else_on_standard_output(
    pruned: Path, wish: tuple[str, ...]
) -> None:
    """The harness prints there while it resamples for the standard error of a perplexity."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "evaluate", str(pruned), *wish, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    measured = json.loads(done.stdout)
    assert measured["perplexity"] > 1
    found = {(score["task"], score["metric"]): score for score in measured["tasks"]}
    assert found.keys() == {
        ("tiny_choice", "acc"),
        ("tiny_choice", "acc_norm"),
        ("tiny_perplexity", "perplexity"),
    }
    assert all(score["standard_error"] > 0 for score in found.values())
    assert found["tiny_choice", "acc"]["samples"] == COUNT
    assert found["tiny_perplexity", "perplexity"]["higher_is_better"] is False
    assert measured["harness"]["tasks"] == ["tiny_choice", "tiny_perplexity"]


def test_tasks_are_shown_beside_the_exam_with_their_standard_errors(
    pruned: Path, wish: tuple[str, ...]
) -> None:
    asked = ("compare", str(pruned.parent / "dense"), str(pruned), *wish[:-4], *wish[-2:])
    result = bonsai(*asked, "--limit", "9")
    assert result.exit_code == 0, result.output
    row = next(line for line in result.stdout.splitlines() if "tiny_choice, acc " in line)
    assert row.count(" ± ") == 2
    assert "tiny_choice (version 3, 0 shots, 9 samples)" in result.stdout
    scores = [each["tasks"] for each in json.loads(bonsai(*asked, "--limit", "9", "--json").stdout)]
    for first, second in zip(*scores, strict=True):
        assert (first["task"], first["metric"]) == (second["task"], second["metric"])
    assert all(f"{each[0]['value']:.4f} ± " in row for each in scores)


def test_without_tasks_there_are_none(pruned: Path, wish: tuple[str, ...]) -> None:
    measured = json.loads(bonsai("evaluate", str(pruned), *wish[:8], "--json").stdout)
    assert measured["tasks"] == []
    assert "harness" not in measured


@pytest.mark.parametrize("option", [("--limit", "3"), ("--tasks-folder", ".")])
def test_options_of_a_task_need_one(
    pruned: Path, wish: tuple[str, ...], option: tuple[str, str]
) -> None:
    result = bonsai("evaluate", str(pruned), *wish[:8], *option)
    assert result.exit_code == 2
    assert "name one" in result.stderr
    assert bonsai("evaluate", str(pruned), *wish, "--limit", "0").exit_code == 2


def test_a_task_that_cannot_be_asked_is_explained(
    pruned: Path, wish: tuple[str, ...], tmp_path: Path
) -> None:
    result = bonsai("evaluate", str(pruned), *wish, "--tasks-folder", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert f"tasks_folder: there is no such folder (got '{tmp_path / 'none'}')" in result.stderr


def test_without_the_extra_its_installation_is_told(pruned: Path, wish: tuple[str, ...]) -> None:
    without = f"import sys; sys.modules['lm_eval'] = None; {COMMAND}"
    done = subprocess.run(
        [sys.executable, "-c", without, "evaluate", str(pruned), *wish],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is not installed" in done.stderr
    assert "pip install 'bonsai-pruning[lm-eval]'" in done.stderr
    assert "Traceback" not in done.stderr
