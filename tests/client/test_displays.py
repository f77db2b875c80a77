"""What the displays show on a terminal."""

import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from bonsai_core.events import MaskEvaluated, ModelLoaded, RoundFinished, RoundStarted
from client import Job, Progress
from client.progress import describe, job_display, rounds_done
from client.prune_display import PruneDisplay
from client.responses import Expiries, QueuedJob
from client.tables import duration, expiries_table, how_far, jobs_table, queue_table

RUNNING = {
    "stage": "pruning",
    "round": 2,
    "rounds": 6,
    "masks_evaluated": 30,
    "masks_per_round": 200,
    "sparsity": 0.05,
    "perplexity_before": 17.0,
    "perplexity": 18.25,
    "forward_passes_per_second": 12.345,
    "seconds_left": 3725,
    "seconds_left_basis": "rounds",
}


NOON = "2026-11-25T12:00:00Z"


def a_job(state: str, **progress: Any) -> Job:
    return Job(id="1", state=state, created_at=datetime.now(UTC), progress=Progress(**progress))


def a_terminal() -> tuple[Console, StringIO]:
    written = StringIO()
    return Console(
        file=written, force_terminal=True, color_system=None, highlight=False, width=120
    ), written


def test_a_running_job_has_a_bar_for_itself_its_rounds_and_the_trials() -> None:
    console, written = a_terminal()
    with job_display(console) as display:
        display.show(a_job("queued"))
        display.show(a_job("running", **RUNNING))
    shown = written.getvalue()
    assert re.search(r"trials +\S+ +\S* *30/200", shown)
    assert re.search(r"rounds +\S+ +\S* *1/6", shown)
    assert re.search(r"job +\S+ +\S* *19% of all rounds", shown)
    assert (
        "sparsity 0.050; perplexity 17.00 -> 18.25; 12.3 passes/s; about 1 h 02 min left" in shown
    )


@pytest.mark.parametrize(
    ("state", "changed", "expected"),
    [
        ("running", {}, 1.15),
        ("cancelled", {}, 1.15),
        ("succeeded", {}, 6.0),
        ("running", {"masks_evaluated": 0, "masks_per_round": 0}, 1.0),
        ("running", {"round": 0, "masks_evaluated": 0}, 0.0),
        ("queued", {"round": 0, "rounds": 0}, 0.0),
        ("running", {"round": 6, "masks_evaluated": 201}, 6.0),
    ],
)
def test_a_job_is_as_far_as_its_rounds_and_the_share_of_the_current_one(
    state: str, changed: dict[str, Any], expected: float
) -> None:
    assert rounds_done(a_job(state, **RUNNING | changed)) == pytest.approx(expected)


def test_an_estimate_says_what_it_leaves_out() -> None:
    shown = describe(a_job("running", **RUNNING | {"seconds_left_basis": "masks"}))
    assert shown.endswith("about 1 h 02 min, of trials alone, left")


def test_a_job_that_has_ended_shows_no_time_left() -> None:
    assert describe(a_job("cancelled", **RUNNING)) == (
        "cancelled; sparsity 0.050; perplexity 17.00 -> 18.25"
    )
    assert describe(a_job("queued")) == "queued"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (7500, "2 h 05 min")],
)
def test_durations_are_for_people(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_a_round_without_trials_shows_none() -> None:
    console, written = a_terminal()
    with job_display(console) as display:
        display.show(a_job("running", **{**RUNNING, "masks_evaluated": 0, "masks_per_round": 0}))
    assert "trials" not in written.getvalue()
    job = a_job("running", **RUNNING)
    assert how_far(job) == "round 2/6, trial 30/200"
    assert how_far(a_job("running", rounds=6, round=2)) == "round 2/6"
    assert how_far(a_job("succeeded", **RUNNING)) == "round 2/6"


def test_what_expires_is_shown_with_when_it_goes() -> None:
    console, written = a_terminal()
    item = {"job_id": "12345678-9", "finished_at": NOON, "why": "age", "size_bytes": 2_500_000}
    items = [
        {**item, "is_due": False},
        {**item, "due_at": NOON, "is_due": False},
        {**item, "due_at": NOON, "is_due": True, "name": "smol"},
    ]
    console.print(expiries_table(Expiries.model_validate({"items": items, "size_bytes": 1})))
    lines = [line.split() for line in written.getvalue().splitlines() if "12345678" in line]
    assert [line[-2:] for line in lines[::2]] == [["now", "2.5"], ["now", "2.5"]]
    assert lines[1][-1] == "2.5"
    assert lines[1][-3].count("-") == 2


def test_a_prune_shows_its_rounds_and_trials() -> None:
    console, written = a_terminal()
    with PruneDisplay(console) as display:
        display.hear(ModelLoaded("LlamaForCausalLM", "cpu", "float32", 1500, 1000, 4, 17.0))
        display.hear(RoundStarted(1, 4, 8, 3, 0.0))
        for trial in range(3, 8):
            display.hear(MaskEvaluated(1, trial, -2.5, 0.1))
        display.hear(RoundFinished(1, 4, 0.05, 18.0, 61.0))
    shown = written.getvalue()
    assert "LlamaForCausalLM on cpu in float32: 1,500 parameters" in shown
    assert "round 1/4: sparsity 0.0500, perplexity 18.000, 1 min 01 s" in shown
    assert "8/8" in shown
    assert "trials" in shown
    assert "1/4" in shown


def at_eighty_columns(table: Table) -> list[str]:
    written = StringIO()
    Console(width=80, file=written, markup=False).print(table)
    return written.getvalue().splitlines()


def test_a_job_takes_one_line_at_eighty_columns() -> None:
    progress = Progress(round=10, rounds=12, masks_evaluated=117, masks_per_round=121, sparsity=0.2)
    request = {
        "model": {"source": "/srv/models/Llama-3.1-8B-Instruct"},
        "target": {"sparsity": 0.5},
    }
    known = {"created_at": datetime.now(UTC) - timedelta(hours=26), "name": "llama-nightly-run-7"}
    jobs = [
        Job(id=f"{n:08}-x", state=state, request=request, progress=progress, position=99, **known)
        for n, state in enumerate(("running", "succeeded", "cancelling", "queued"))
    ]
    lines = at_eighty_columns(jobs_table(jobs))
    assert max(map(len, lines)) <= 80
    for job in jobs:
        (line,) = [line for line in lines if job.id[:8] in line]
        assert job.state in line
        assert "1 d" in line
        assert "llam" in line
    assert "10/12, 117/121" in "".join(lines)
    waiting = [
        QueuedJob(
            id=job.id,
            name=job.name,
            state=job.state,
            owner="search-and-ads",
            priority="highest",
            model="/srv/models/Llama-3.1-8B-Instruct",
            queued_at=job.created_at,
            position=None if job.state == "running" else 12,
            worker="gpu-7.cluster.example" if job.state == "running" else None,
        )
        for job in jobs
    ]
    lines = at_eighty_columns(queue_table(waiting))
    assert max(map(len, lines)) <= 80
    assert all(len([line for line in lines if job.id[:8] in line]) == 1 for job in jobs)
