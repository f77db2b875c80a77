"""The command line against the real service."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner, Result

from bonsai_core.config import CalibrationSource, DType, Layout, Preset, Prior, Pruning
from bonsai_core.families import ExpertUnits
from bonsai_core.recipes.names import BUILT_IN as RECIPES
from client import BonsaiClient, Job, LogLine
from client.cli import app
from client.progress import JobJson, JobLines
from jobs.log_lines import LogStore
from jobs.progress import Progress, Stage
from jobs.schedule import Schedule
from tests.fake_worker import FakeWorker

Bonsai = Callable[..., Result]
COMMANDS = [
    *(
        "up",
        "submit",
        "validate",
        "list",
        "show",
        "watch",
        "wait",
        "pause",
        "resume",
        "cancel",
        "retry",
    ),
    *("attempts", "logs", "keys", "profile", "whoami"),
    *("batch", "download", "prune", "evaluate"),
]


@pytest.fixture
def job(client: BonsaiClient, body: dict[str, Any]) -> Job:
    return client.submit(body, name="small")


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_a_help_text(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) > 5


def test_the_help_names_every_command() -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--help"])
    assert all(f" {command} " in result.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", ["submit", "validate", "prune"])
def test_the_help_names_every_option_and_choice(command: str) -> None:
    result = CliRunner(env={"COLUMNS": "250"}).invoke(app, [command, "--help"])
    text = " ".join(result.stdout.split())
    for choices in (Preset, RECIPES, Prior, Layout, ExpertUnits, DType):
        assert all(str(choice) in text for choice in choices)
    for model in (Pruning, CalibrationSource):
        fields = set(model.model_fields) - {"source"}
        assert all(f"--{name.replace('_', '-')} " in text for name in fields)


def test_submit_sends_every_option(
    bonsai: Bonsai, client: BonsaiClient, model_folder: Path, text_file: Path
) -> None:
    result = bonsai(
        "submit",
        str(model_folder),
        *("--calibration", str(text_file), "--sparsity", "0.3", "--name", "small"),
        *("--label", "team=search", "--label", "note=a=b", "--dtype", "float32"),
        *("--samples", "4", "--sequence-length", "64", "--prior", "random"),
        *("--utility", "perplexity", "--masks-per-round", "8", "--sparsity-per-round", "0.1"),
        *("--samples-per-mask", "2", "--preset", "statistics", "--recipe", "random_masks"),
        *("--own-text", "0.25"),
        *("--layout", "uniform", "--align", "8", "--tensor-parallel", "2"),
        *("--no-refit", "--seed", "7"),
        *("--improvements", "5", "--damping", "0.5", "--experts", "whole"),
        *("--device-kind", "cpu", "--memory", "1.5"),
        *("--format", "gguf-q8_0", "--format", "mlx"),
        *("--report-text", str(text_file), "--prompt", "A tree"),
    )
    assert result.exit_code == 0, result.output
    job = client.job(result.stdout.strip())
    assert (job.name, job.labels) == ("small", {"team": "search", "note": "a=b"})
    assert job.request == {
        "name": "small",
        "labels": {"team": "search", "note": "a=b"},
        "metadata": {},
        "model": {
            "source": str(model_folder),
            "revision": None,
            "gguf_file": None,
            "dtype": "float32",
        },
        "calibration": {"source": str(text_file), "samples": 4, "sequence_length": 64},
        "target": {
            "sparsity": 0.3,
            "parameters": None,
            "memory_bytes": None,
            "dtype": None,
            "stops": [],
        },
        "owner": "default",
        "schedule": Schedule().model_dump(mode="json"),
        "device": {"kind": "cpu", "memory_bytes": 3 * 2**29, "streamed_memory_bytes": None},
        "pruning": {
            "preset": "statistics",
            "recipe": "random_masks",
            "prior": "random",
            "utility": "perplexity",
            "masks_per_round": 8,
            "sparsity_per_round": 0.1,
            "improvements": 5,
            "own_text": 0.25,
            "samples_per_mask": 2,
            "layout": "uniform",
            "experts": "whole",
            "align": 8,
            "tensor_parallel": 2,
            "refit": False,
            "damping": 0.5,
            "seed": 7,
        },
        "formats": ["gguf-q8_0", "mlx"],
        "report": {"enabled": True, "text": str(text_file), "prompts": ["A tree"]},
    }


@pytest.mark.parametrize("preset", list(Preset))
def test_options_left_out_are_what_the_preset_says(
    bonsai: Bonsai, client: BonsaiClient, model_folder: Path, text_file: Path, preset: Preset
) -> None:
    result = bonsai(
        *("submit", str(model_folder), "--calibration", str(text_file), "--sparsity", "0.3"),
        *("--samples", "4", "--sequence-length", "64", "--preset", preset, "--align", "4"),
    )
    assert result.exit_code == 0, result.output
    expected = Pruning(preset=preset, align=4).model_dump(mode="json")
    assert client.job(result.stdout.strip()).request["pruning"] == expected


def test_a_mix_of_utilities_is_given_as_json(
    bonsai: Bonsai, client: BonsaiClient, model_folder: Path, text_file: Path
) -> None:
    command = (
        *("submit", str(model_folder), "--calibration", str(text_file), "--sparsity", "0.3"),
        *("--samples", "4", "--sequence-length", "64", "--utility"),
    )
    result = bonsai(*command, '[{"name": "kl"}, {"name": "nll", "weight": 0.5}]')
    assert result.exit_code == 0, result.output
    job = client.job(result.stdout.strip())
    parts = job.request["pruning"]["utility"]
    assert [(part["name"], part["weight"]) for part in parts] == [("kl", 1.0), ("nll", 0.5)]
    assert "name kl" in bonsai("show", job.id).stdout
    torn = bonsai(*command, '[{"name": "kl"')
    assert torn.exit_code == 1
    assert "--utility" in torn.stderr
    assert "is not JSON" in torn.stderr


def test_submit_makes_local_paths_absolute(
    bonsai: Bonsai,
    client: BonsaiClient,
    model_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(model_folder.parent)
    (model_folder / "small.gguf").touch()
    samples = ("--samples", "1", "--sequence-length", "64")
    for given in ("model", "./model", "model/small.gguf"):
        result = bonsai(
            *("submit", given, "--calibration", "text.txt", "--sparsity", "0.3"), *samples
        )
        assert result.exit_code == 0, result.output
        job = client.job(result.stdout.strip())
        assert job.request["model"]["source"] == str(model_folder)
        assert job.request["calibration"]["source"] == str(text_file)
        expected = "small.gguf" if given.endswith("gguf") else None
        assert job.request["model"]["gguf_file"] == expected


def test_a_refused_job_is_explained(bonsai: Bonsai, model_folder: Path, text_file: Path) -> None:
    result = bonsai(
        *("submit", str(model_folder), "--calibration", str(text_file), "--sparsity", "0.99"),
        *("--samples", "1", "--sequence-length", "64"),
    )
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "/target/sparsity" in result.stderr
    assert "up to 0." in result.stderr


def test_usage_errors_have_exit_code_2(bonsai: Bonsai) -> None:
    assert bonsai("submit").exit_code == 2
    assert bonsai("paint").exit_code == 2
    assert bonsai("up", "--port", "0").exit_code == 2


def test_a_bad_label_is_explained(bonsai: Bonsai) -> None:
    result = bonsai("submit", "a/b", "--calibration", "c", "--sparsity", "0.1", "--label", "x")
    assert result.exit_code == 1
    assert "key=value" in result.stderr


def test_list_shows_a_line_for_each_job(bonsai: Bonsai, job: Job) -> None:
    result = bonsai("list")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if job.id[:8] in line)
    assert "small" in line
    assert "queued" in line
    assert bonsai("list", "--state", "failed").stdout.strip() == "no jobs"
    assert bonsai("list", "--state", "odd").exit_code == 1


@pytest.fixture
def long_jobs(client: BonsaiClient, body: dict[str, Any]) -> list[Job]:
    target = {"parameters": 50_000}
    name = "a-name-that-somebody-has-taken-time-for"
    jobs = [client.submit(body, name=name), client.submit(body, name=name, target=target)]
    return [*jobs, client.cancel(client.submit(body).id)]


def test_a_list_reads_well_at_80_columns(url: str, long_jobs: list[Job]) -> None:
    terminal = {"BONSAI_URL": url, "COLUMNS": "80", "TTY_COMPATIBLE": "1", "NO_COLOR": "1"}
    result = CliRunner(env=terminal).invoke(app, ["list"])
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    # Ids and states are whole.
    firsts = [line.split() for line in lines if re.match(r" ?[0-9a-f]{8} ", line)]
    assert [words[0] for words in firsts] == [job.id[:8] for job in reversed(long_jobs)]
    assert ["cancelled" in words or "queued" in words for words in firsts] == [True] * 3


def test_a_list_in_a_pipe_has_a_line_for_each_job_and_no_colours(
    bonsai: Bonsai, long_jobs: list[Job]
) -> None:
    shown = bonsai("list").stdout
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 2 + len(long_jobs)


def test_json_is_all_there_is_on_standard_output(bonsai: Bonsai, job: Job) -> None:
    shown = json.loads(bonsai("show", job.id, "--json").stdout)
    assert (shown["id"], shown["request"]) == (job.id, job.request)
    listed = json.loads(bonsai("list", "--json").stdout)
    assert [item["id"] for item in listed] == [job.id]


def test_show_takes_the_beginning_of_an_id(bonsai: Bonsai, job: Job, worker: FakeWorker) -> None:
    worker.fail(worker.claim())
    result = bonsai("show", job.id[:6])
    assert result.exit_code == 0
    assert job.id in result.stdout
    assert "broken_numerics" in result.stdout


def test_a_beginning_must_name_one_job(
    bonsai: Bonsai, client: BonsaiClient, body: dict[str, Any], job: Job
) -> None:
    beginnings = {job.id[0]}
    while True:
        other = client.submit(body)
        if other.id[0] in beginnings:
            break
        beginnings.add(other.id[0])
    result = bonsai("show", other.id[0])
    assert result.exit_code == 1
    assert other.id in result.stderr
    missing = bonsai("show", "zzz")
    assert missing.exit_code == 1
    assert "bonsai list" in missing.stderr


def test_cancel_tells_the_state(bonsai: Bonsai, job: Job, worker: FakeWorker) -> None:
    worker.claim()
    result = bonsai("cancel", job.id[:8])
    assert result.stdout.strip() == f"{job.id} cancelling"


def test_submit_sends_the_schedule(
    bonsai: Bonsai, client: BonsaiClient, job: Job, model_folder: Path, text_file: Path
) -> None:
    result = bonsai(
        *("submit", str(model_folder), "--calibration", str(text_file), "--sparsity", "0.3"),
        *("--owner", "team", "--priority", "high", "--after", job.id[:8]),
        *("--not-before", "2026-12-01T22:00:00+01:00", "--deadline", "2999-01-01T00:00:00Z"),
        *("--window", "22:00-07:00 Europe/Berlin", "--samples", "4", "--sequence-length", "64"),
    )
    sent = client.job(result.stdout.strip())
    assert sent.owner == "team"
    assert sent.request["schedule"] == {
        "priority": "high",
        "not_before": "2026-12-01T22:00:00+01:00",
        "deadline": "2999-01-01T00:00:00Z",
        "after": job.id,
        "window": {
            "hours": "22:00-07:00",
            "zone": "Europe/Berlin",
            "days": [
                *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
            ],
            "at_close": "pause",
        },
    }
    listed = bonsai("list").stdout
    assert "position 1" in listed
    assert "waits: " in listed
    assert "22:00-07:00" in bonsai("show", sent.id).stdout


def test_pause_and_resume_tell_the_state(bonsai: Bonsai, job: Job) -> None:
    assert bonsai("pause", job.id[:8]).stdout.strip() == f"{job.id} paused"
    assert bonsai("resume", job.id[:8]).stdout.strip() == f"{job.id} queued"


def test_retry_prints_the_id_of_the_new_job(
    bonsai: Bonsai, client: BonsaiClient, job: Job, worker: FakeWorker
) -> None:
    worker.fail(worker.claim())
    again = client.job(bonsai("retry", job.id).stdout.strip())
    assert (again.retry_of, again.state) == (job.id, "queued")
    assert job.id in bonsai("show", again.id).stdout
    refused = bonsai("retry", again.id)
    assert refused.exit_code == 1
    assert "is queued: no retry now; legal: pause, resume, cancel" in refused.stderr


def test_attempts_are_listed(bonsai: Bonsai, job: Job, worker: FakeWorker) -> None:
    assert bonsai("attempts", job.id).stdout.strip() == "no attempts"
    claim = worker.claim()
    worker.evaluate(claim, number=1, trials=3)
    worker.release(claim, "drained")
    lines = bonsai("attempts", job.id).stdout.splitlines()
    assert any("fake" in line and "drained" in line and "trial 2" in line for line in lines)
    (attempt,) = json.loads(bonsai("attempts", job.id, "--json").stdout)
    assert (attempt["outcome"], attempt["masks_evaluated"]) == ("drained", 3)


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_watch_ends_with_the_code_of_the_state(
    bonsai: Bonsai, client: BonsaiClient, job: Job, worker: FakeWorker, end: str, code: int
) -> None:
    claim = worker.claim()
    progress = Progress(
        stage=Stage.PRUNING,
        round=2,
        rounds=6,
        masks_evaluated=3,
        masks_per_round=8,
        sparsity=0.05,
        perplexity_before=17.25,
        perplexity=18.5,
        seconds_left=95,
    )
    worker.progress(claim, progress)
    if end == "succeeded":
        worker.succeed(claim, {})
    elif end == "failed":
        worker.fail(claim)
    else:
        client.cancel(job.id)
        worker.release(claim, "cancelled")
    result = bonsai("watch", job.id)
    assert result.exit_code == code
    assert end in result.stderr
    assert "perplexity 17.25 -> 18.50" in result.stderr
    assert result.stdout == ""
    assert ("broken_numerics" in result.stderr) == (end == "failed")


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
def test_wait_prints_a_line_and_ends_with_the_code_of_the_state(
    bonsai: Bonsai, client: BonsaiClient, job: Job, worker: FakeWorker, end: str, code: int
) -> None:
    early = bonsai("wait", job.id, "--timeout", "0.3")
    assert (early.exit_code, early.stdout) == (124, f"{job.id} queued\n")
    claim = worker.claim()
    if end == "cancelled":
        client.cancel(job.id)

    def work() -> None:
        if end == "succeeded":
            worker.succeed(claim, {})
        elif end == "failed":
            worker.fail(claim)
        else:
            worker.release(claim, "cancelled")

    later = threading.Timer(0.3, work)
    later.start()
    result = bonsai("wait", job.id[:8], "--timeout", "60")
    later.join()
    assert result.exit_code == code
    assert result.stderr == ""
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"{job.id} {end}")
    assert ("broken_numerics" in line) == (end == "failed")
    as_json = bonsai("wait", job.id, "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["state"]) == (code, end)


def test_watch_shows_progress_while_it_comes(
    bonsai: Bonsai, job: Job, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = worker.claim()
    show, shown = JobLines.show, iter(range(100))

    def watched(display: JobLines, now: Job) -> None:
        show(display, now)
        number = next(shown)
        if number < 2:
            worker.progress(claim, Progress(stage=Stage.PRUNING, round=number + 1, rounds=2))
        elif number == 2:
            worker.succeed(claim, {})

    monkeypatch.setattr(JobLines, "show", watched)
    lines = bonsai("watch", job.id).stderr.splitlines()
    assert [line for line in lines if "round 1/2" in line]
    assert [line for line in lines if "round 2/2" in line]
    assert lines[-1].startswith("succeeded")


def test_watch_prints_the_job_as_a_line_of_json_with_each_change(
    bonsai: Bonsai, job: Job, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = worker.claim()
    show = JobJson.show

    def watched(display: JobJson, now: Job) -> None:
        show(display, now)
        if now.progress.round == 0:
            worker.progress(claim, Progress(stage=Stage.PRUNING, round=1, rounds=2))
        elif now.state == "running":
            worker.fail(claim)

    monkeypatch.setattr(JobJson, "show", watched)
    result = bonsai("watch", job.id, "--json")
    assert result.exit_code == 1
    assert result.stderr == ""
    told = [Job.model_validate_json(line) for line in result.stdout.splitlines()]
    assert {each.id for each in told} == {job.id}
    assert [told[0].progress.round, told[1].progress.round, told[-1].state] == [0, 1, "failed"]


def test_commands_that_change_a_job_print_it_as_json(
    bonsai: Bonsai, job: Job, worker: FakeWorker, tmp_path: Path
) -> None:
    for command, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert json.loads(bonsai(command, job.id, "--json").stdout)["state"] == state
    again = json.loads(bonsai("retry", job.id, "--json").stdout)
    assert again["retry_of"] == job.id
    assert json.loads(bonsai("pin", again["id"], "--json").stdout)["pinned"] is True
    assert json.loads(bonsai("unpin", again["id"], "--json").stdout)["pinned"] is False
    worker.succeed(worker.claim(), {"report.json": b"{}"})
    got = bonsai("download", again["id"], "--output", str(tmp_path / "got"), "--json")
    assert json.loads(got.stdout) == {
        "folder": str(tmp_path / "got"),
        "files": [str(tmp_path / "got" / "report.json")],
    }


def test_submit_can_watch(
    bonsai: Bonsai,
    model_folder: Path,
    text_file: Path,
    worker: FakeWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    show = JobLines.show

    def watched(display: JobLines, now: Job) -> None:
        show(display, now)
        if now.state == "queued":
            worker.fail(worker.claim())

    monkeypatch.setattr(JobLines, "show", watched)
    result = bonsai(
        *("submit", str(model_folder), "--calibration", str(text_file), "--sparsity", "0.3"),
        *("--samples", "1", "--sequence-length", "64", "--watch"),
    )
    assert result.exit_code == 1
    assert len(result.stdout.strip()) == 36


@pytest.fixture
def logs(engine: Engine) -> LogStore:
    return LogStore(engine)


def test_logs_are_those_of_the_last_attempt_or_of_the_one_that_is_named(
    bonsai: Bonsai, job: Job, worker: FakeWorker, logs: LogStore
) -> None:
    assert bonsai("logs", job.id).stderr == "no attempts\n"
    for number in (1, 2):
        claim = worker.claim()
        logs.keep(claim.fencing_token, {1: f"attempt {number}", 2: "[red]x[/] \u2028"})
        if number == 1:
            worker.release(claim, "drained")
    assert bonsai("logs", job.id).stdout == "attempt 2\n[red]x[/] \u2028\n"
    assert bonsai("logs", job.id, "--attempt", "1", "--tail", "2").stdout.startswith("attempt 1\n")
    assert bonsai("logs", job.id, "--tail", "1").stdout == "[red]x[/] \u2028\n"
    lines = bonsai("logs", job.id, "--json").stdout.split("\n")
    assert json.loads(lines[0])["text"] == "attempt 2"
    missing = bonsai("logs", job.id, "--attempt", "3")
    assert missing.exit_code == 1
    assert "numbers 1 to 2" in missing.stderr


def test_logs_are_followed_over_attempts_to_the_end_of_the_job(
    bonsai: Bonsai,
    job: Job,
    worker: FakeWorker,
    logs: LogStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line that is printed makes the worker do what comes next."""
    printed: list[str] = []
    claims = [worker.claim()]
    logs.keep(claims[0].fencing_token, {1: "first"})

    def watched(line: LogLine, *, json: bool) -> None:
        printed.append(line.text)
        match line.text:
            case "first":
                logs.keep(claims[0].fencing_token, {2: "second"})
            case "second":
                worker.release(claims[0], "drained")
                claims.append(worker.claim())
                logs.keep(claims[1].fencing_token, {1: "again"})
            case "again":
                logs.keep(claims[1].fencing_token, {2: "done"})
                worker.succeed(claims[1], {})

    monkeypatch.setattr("client.log_commands._print", watched)
    assert bonsai("logs", job.id, "--follow").exit_code == 0
    assert printed == ["first", "second", "again", "done"]


def test_download_brings_the_files(
    bonsai: Bonsai, job: Job, worker: FakeWorker, tmp_path: Path
) -> None:
    early = bonsai("download", job.id, "--output", str(tmp_path / "got"))
    assert early.exit_code == 1
    assert "queued" in early.stderr
    worker.succeed(worker.claim(), {"model.safetensors": b"weights", "report.json": b"{}"})
    result = bonsai("download", job.id, "--output", str(tmp_path / "got"))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "got" / "model.safetensors").read_bytes() == b"weights"
    assert "2 files" in result.stdout


def test_a_service_that_is_away_is_said_to_be() -> None:
    result = CliRunner().invoke(app, ["--url", "http://127.0.0.1:1", "list"])
    assert result.exit_code == 1
    assert "bonsai up" in result.stderr


def test_listing_jobs_loads_nothing_heavy(url: str) -> None:
    program = (
        "import sys\n"
        "from client.cli import main\n"
        f"sys.argv = ['bonsai', '--url', '{url}', 'list']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "ours = {'api', 'worker', 'jobs', 'bonsai_core', 'migrations'}\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sqlalchemy', 'celery', 'fastapi', 'redis'}\n"
        "loaded = (ours | heavy) & {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
