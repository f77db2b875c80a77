"""`bonsai prune` and `bonsai evaluate`: the real algorithm on tiny models, in the command."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bonsai_core.config import Preset, Pruning
from client.cli import app
from tests.formats.pruned_folders import pruned_folder
from tests.tiny_models import tiny_model, tiny_text

BONSAI = [sys.executable, "-c", "from client.cli import main; main()"]


def bonsai(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_text(tmp_path_factory.mktemp("text") / "text.txt")


def arguments(model: Path, text: Path, output: Path, masks: int = 8) -> Sequence[str]:
    return (
        *("prune", str(model), "--sparsity", "0.3", "--sparsity-per-round", "0.15"),
        *("--preset", "paper", "--utility", "nll"),
        *("--calibration", str(text), "--samples", "4", "--sequence-length", "64"),
        *("--masks-per-round", str(masks), "--device", "cpu", "--output", str(output)),
    )


def test_prune_leaves_a_smaller_model_and_no_ledger(
    model: Path, text: Path, tmp_path: Path
) -> None:
    output = tmp_path / "smaller"
    result = bonsai(*arguments(model, text, output))
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["smaller"]
    assert (output / "config.json").is_file()
    assert str(output) in result.stdout
    assert "parameters" in result.stdout
    assert re.search(r"nll +-\d+\.\d+ -> -\d+\.\d+", result.stdout)
    assert "trials       16 in" in result.stdout
    assert "round 1/" in result.stderr
    again = bonsai(*arguments(model, text, output))
    assert again.exit_code == 1
    assert "is not empty" in again.stderr


def test_one_run_leaves_a_model_at_every_stop(model: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "smaller"
    result = bonsai(*arguments(model, text, output), "--stop", "0.1", "--stop", "0.2")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["smaller"]
    names = [f"sparsity-{sparsity}" for sparsity in (0.1, 0.2, 0.3)]
    assert all((output / name / "lineage.json").is_file() for name in names)
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "report.json", *names]
    assert f"report       {output / 'report.html'}" in result.stdout
    report = json.loads((output / "report.json").read_text())
    assert [one["folder"] for one in report["results"]] == names
    said = [json.loads((output / name / "bonsai.json").read_text()) for name in names]
    assert [one["request"]["target"]["sparsity"] for one in said] == [0.1, 0.2, 0.3]
    assert [one["sparsity"] for one in said] == sorted(one["sparsity"] for one in said)
    for name in names:
        assert str(output / name) in result.stdout


def test_a_report_is_made_only_where_it_is_wanted(model: Path, text: Path, tmp_path: Path) -> None:
    words = (*arguments(model, text, tmp_path / "out"), "--preset", "statistics")
    gone = bonsai(*words, "--report-text", str(tmp_path / "gone.txt"))
    assert gone.exit_code == 1
    assert "report.text: there is no such file" in gone.stderr
    assert not (tmp_path / "out").exists()
    result = bonsai(*words, "--no-report")
    assert result.exit_code == 0, result.output
    assert not list((tmp_path / "out").glob("report.*"))


@pytest.mark.parametrize("preset", ["best", "paper", "statistics"])
def test_a_preset_alone_is_enough(model: Path, text: Path, tmp_path: Path, preset: str) -> None:
    output = tmp_path / "smaller"
    result = bonsai(
        *("prune", str(model), "--sparsity", "0.3", "--calibration", str(text), "--samples", "4"),
        *("--sequence-length", "64", "--device", "cpu", "--output", str(output)),
        *("--preset", preset, "--masks-per-round", "8"),
    )
    assert result.exit_code == 0, result.output
    asked = json.loads((output / "bonsai.json").read_text())["request"]["pruning"]
    assert asked == Pruning(preset=Preset(preset), masks_per_round=8).model_dump(mode="json")


def test_a_model_larger_than_the_device_is_pruned_to_the_same_weights(
    model: Path, text: Path, tmp_path: Path
) -> None:
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    limit = f"{0.9 * weights / 2**30:.9f}"
    for name, limits in (("whole", ()), ("streamed", ("--device-memory", limit))):
        result = bonsai(*arguments(model, text, tmp_path / name), *limits)
        assert result.exit_code == 0, result.output
    whole, streamed = (tmp_path / name / "model.safetensors" for name in ("whole", "streamed"))
    assert whole.read_bytes() == streamed.read_bytes()


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("--preset", "cheap", "pruning.preset"),
        ("--recipe", "elegance", "pruning.recipe"),
        ("--utility", "elegance", "pruning.utility"),
        ("--masks-per-round", "7", "pruning.masks_per_round"),
        ("--prior", "guess", "pruning.prior"),
        ("--sparsity", "0.99", "target.sparsity"),
        ("--parameters", "9", "target"),
        ("--samples", "4000", "calibration.samples"),
        ("--device-memory", "0.00001", "device_memory"),
    ],
)
def test_a_wish_that_cannot_be_met_names_its_field(
    model: Path, text: Path, tmp_path: Path, option: str, value: str, field: str
) -> None:
    result = bonsai(*arguments(model, text, tmp_path / "smaller"), option, value)
    assert result.exit_code == 1
    assert field in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def interrupted(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the command, and press Ctrl-C once it has loaded the model."""
    process = subprocess.Popen(
        [*BONSAI, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        heading = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    return subprocess.CompletedProcess(command, process.returncode, output, heading + errors)


def test_an_interrupted_prune_is_resumed_to_the_same_model(
    model: Path, text: Path, tmp_path: Path
) -> None:
    output, whole = tmp_path / "smaller", tmp_path / "whole"
    command = arguments(model, text, output, masks=60)
    stopped = interrupted(command)
    assert stopped.returncode == 130, stopped.stderr
    assert "--resume" in stopped.stderr
    assert not output.exists()
    assert (tmp_path / "smaller.ledger").is_dir()

    refused = bonsai(*command)
    assert refused.exit_code == 1
    assert "--resume" in refused.stderr

    resumed = bonsai(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    assert not (tmp_path / "smaller.ledger").exists()
    assert bonsai(*arguments(model, text, whole, masks=60)).exit_code == 0
    assert (output / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_second_interrupt_leaves_at_once() -> None:
    """A mask of a large model takes long: here, for ever."""
    program = (
        "import os, signal, time\n"
        "from client.interruption import Interruption\n"
        "with Interruption() as interruption:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    while not interruption.wished:\n"
        "        pass\n"
        "    print('noted', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(60)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (130, "noted\n")
    assert "again leaves at once" in done.stderr


def test_resuming_nothing_starts_anew(model: Path, text: Path, tmp_path: Path) -> None:
    result = bonsai(*arguments(model, text, tmp_path / "smaller"), "--resume", "--json")
    assert result.exit_code == 0, result.output
    assert "nothing to resume" in result.stderr
    assert json.loads(result.stdout)["folder"] == str(tmp_path / "smaller")


def test_evaluate_prints_the_measurement(model: Path, text: Path) -> None:
    command = ("evaluate", str(model), "--text", str(text), "--window", "64", "--windows", "4")
    result = bonsai(*command, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "perplexity" in result.stdout
    assert "4 windows of 64 tokens" in result.stdout
    measured = json.loads(bonsai(*command, "--device", "cpu", "--json").stdout)
    assert (measured["windows"], measured["window"], measured["tokens"]) == (4, 64, 252)
    assert measured["perplexity"] > 1
    assert measured["decode_tokens_per_second"] > 0
    assert len(measured["text_sha256"]) == 64


def test_evaluate_takes_the_whole_text_for_0_windows(model: Path, text: Path) -> None:
    command = ("evaluate", str(model), "--text", str(text), "--window", "64", "--windows", "0")
    measured = json.loads(bonsai(*command, "--device", "cpu", "--json").stdout)
    assert measured["windows"] == text.stat().st_size // 64


def test_compare_shows_two_models_side_by_side(model: Path, text: Path, tmp_path: Path) -> None:
    smaller = pruned_folder(tmp_path, "LlamaForCausalLM")
    models = (str(smaller.parent / "dense"), str(smaller))
    command = ("compare", *models, "--text", str(text), "--window", "64", "--windows", "4")
    result = bonsai(*command, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "ratio" in result.stdout
    dense, pruned = json.loads(bonsai(*command, "--device", "cpu", "--json").stdout)
    assert pruned["parameters"] < dense["parameters"]
    assert pruned["text_sha256"] == dense["text_sha256"]
    alone = bonsai("evaluate", *command[2:], "--device", "cpu", "--json")
    same = ("perplexity", "accuracy", "parameters", "file_bytes")
    assert [json.loads(alone.stdout)[name] for name in same] == [pruned[name] for name in same]


@pytest.mark.parametrize("wrong", [("--text", "/nowhere.txt"), ("--dtype", "int3")])
def test_evaluate_names_what_is_wrong(model: Path, text: Path, wrong: tuple[str, str]) -> None:
    result = bonsai("evaluate", str(model), "--text", str(text), *wrong)
    assert result.exit_code == 1
    assert wrong[1] in result.stderr or "dtype" in result.stderr
    assert "Traceback" not in result.stderr
