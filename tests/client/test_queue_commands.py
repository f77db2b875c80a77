"""`bonsai list` with filters, `edit`, `rounds`, `queue` and `models` against the real service."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from api.app import create_app
from client import BonsaiClient
from client.cli import app
from jobs.settings import Settings
from tests.fake_worker import FakeWorker
from tests.served import served

Bonsai = Callable[..., Result]


@pytest.fixture
def submit(bonsai: Bonsai, model_folder: Path, text_file: Path) -> Callable[..., str]:
    def submit(*more: str) -> str:
        options = ("--calibration", str(text_file), "--samples", "4", "--sequence-length", "64")
        result = bonsai("submit", str(model_folder), *options, "--sparsity", "0.3", *more)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    return submit


def test_jobs_are_listed_by_what_is_said_of_them(
    bonsai: Bonsai, submit: Callable[..., str], model_folder: Path, worker: FakeWorker
) -> None:
    one = submit("--name", "one", "--label", "team=search")
    two = submit("--name", "two", "--metadata", '{"ticket": 7}')
    worker.fail(worker.claim())

    def listed(*options: str) -> list[str]:
        result = bonsai("list", "--json", *options)
        assert result.exit_code == 0, result.output
        return [job["id"] for job in json.loads(result.stdout)]

    assert listed() == [two, one]
    assert listed("--sort", "created_at") == [one, two]
    assert listed("--limit", "1") == [two]
    assert listed("--label", "team=search") == [one]
    assert listed("--state", "failed", "--state", "running") == [one]
    assert listed("--name", "two", "--model", str(model_folder)) == [two]
    assert listed("--since", "2999-01-01") == []
    assert json.loads(bonsai("show", two, "--json").stdout)["metadata"] == {"ticket": 7}
    assert bonsai("list", "--label", "odd").exit_code == 1
    assert "not JSON" in bonsai("edit", two, "--metadata", "{").output


def test_a_job_is_edited(bonsai: Bonsai, submit: Callable[..., str]) -> None:
    job = submit("--label", "a=1")
    result = bonsai(
        "edit", job[:8], "--name", "mine", "--label", "b=2", "--priority", "high", "--json"
    )
    changed = json.loads(result.stdout)
    assert (changed["name"], changed["labels"], changed["priority"]) == ("mine", {"b": "2"}, "high")
    assert "mine" in bonsai("edit", job, "--metadata", "{}").stdout
    assert "say what to change" in bonsai("edit", job).output


def test_rounds_and_queue_are_shown(
    bonsai: Bonsai, submit: Callable[..., str], worker: FakeWorker
) -> None:
    first, second = submit("--name", "first"), submit("--name", "second")
    assert bonsai("rounds", first).stdout.strip() == "no rounds yet"
    claim = worker.claim()
    worker.begin_round(claim, 1)
    worker.report(claim, "round_started", {"round": 1, "masks": 4})
    worker.evaluate(claim, number=1, trials=4)
    worker.finish_round(claim, 1, {"sparsity": 0.1, "perplexity": 12.5, "cut": False})
    worker.report(claim, "round_finished", {"round": 1, "seconds": 75})
    shown = bonsai("rounds", first).stdout
    for told in ("4 of 4", "0.100 planned", "12.5"):
        assert told in shown
    (each,) = json.loads(bonsai("rounds", first, "--json").stdout)
    assert each["masks_evaluated"] == 4
    queue = bonsai("queue").stdout
    assert "running on fake" in queue
    assert "#1" in queue
    assert "1 ready" in queue
    found = json.loads(bonsai("queue", "--json").stdout)
    assert [job["id"] for job in found["running"] + found["waiting"]] == [first, second]


def test_models_are_listed_and_told_of(
    settings: Settings, engine: Engine, model_folder: Path
) -> None:
    shelf = settings.model_copy(update={"source_folders": (model_folder.parent,)})
    with served(create_app(shelf)) as url:

        def run(*arguments: str) -> str:
            result = CliRunner(env={"BONSAI_URL": url}).invoke(app, ["models", *arguments])
            assert result.exit_code == 0, result.output
            return result.stdout

        (model,) = json.loads(run("--json"))["items"]
        assert model["source"] == str(model_folder)
        assert "LlamaForCausalLM" in run()
        assert "2 groups of 2 heads" in run(str(model_folder))
        assert json.loads(run(str(model_folder), "--json"))["units"] == model["units"]


def test_without_named_folders_it_says_so(bonsai: Bonsai) -> None:
    assert "BONSAI_SOURCE_FOLDERS" in bonsai("models").output


def test_batches_are_listed(
    bonsai: Bonsai, client: BonsaiClient, model_folder: Path, text_file: Path
) -> None:
    assert bonsai("batch", "list").stdout.strip() == "no batches"
    job = {
        "model": {"source": str(model_folder)},
        "calibration": {"source": str(text_file), "samples": 4, "sequence_length": 64},
        "target": {"sparsity": 0.3},
    }
    made = client.submit_batch({"template": job})
    (found,) = client.batches()
    assert (found.id, found.counts) == (made.id, {"queued": 1})
    listed = bonsai("batch", "list").stdout
    assert made.id in listed
    assert "1 queued" in listed
    assert json.loads(bonsai("batch", "list", "--json").stdout)[0]["id"] == made.id
