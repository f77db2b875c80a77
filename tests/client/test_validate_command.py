"""`bonsai validate`: what a job would take, before it is submitted."""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from typer.testing import Result

from client import BonsaiClient
from jobs.workers import WorkerStore
from tests.devices import HOST

Bonsai = Callable[..., Result]


def arguments(body: dict[str, Any], sparsity: str = "0.3") -> tuple[str, ...]:
    return (
        *(body["model"]["source"], "--calibration", body["calibration"]["source"]),
        *("--sparsity", sparsity, "--samples", "4", "--sequence-length", "64"),
    )


def test_validate_shows_what_a_job_would_take_and_submits_none(
    bonsai: Bonsai, client: BonsaiClient, body: dict[str, Any], engine: Engine
) -> None:
    WorkerStore(engine).arrive("one", HOST, 60)
    result = bonsai("validate", *arguments(body))
    assert result.exit_code == 0, result.output
    told = client.validate(body)
    assert told.forward_tokens is not None
    assert f"sub-models      {told.masks} " in result.stdout
    assert f"{told.forward_tokens:,}" in result.stdout
    assert "one (fits)" in result.stdout
    assert "not known: no job has told yet" in result.stdout
    assert list(client.jobs()) == []


def test_validate_is_submit_with_a_flag_and_speaks_json(
    bonsai: Bonsai, client: BonsaiClient, body: dict[str, Any]
) -> None:
    shown = bonsai("validate", *arguments(body), "--json")
    same = bonsai("submit", *arguments(body), "--validate-only", "--json")
    assert json.loads(shown.stdout) == json.loads(same.stdout)
    assert json.loads(shown.stdout)["request"]["calibration"]["samples"] == 4
    assert list(client.jobs()) == []


def test_validate_says_what_a_submit_would_say(bonsai: Bonsai, body: dict[str, Any]) -> None:
    result = bonsai("validate", *arguments(body, "0.99"))
    assert result.exit_code == 1
    assert "target.sparsity" in result.stderr


def test_the_client_asks_of_a_batch(client: BonsaiClient, body: dict[str, Any]) -> None:
    estimate = client.validate_batch({"template": body, "sparsities": [0.2, 0.3]})
    assert len(estimate.jobs) == 2
    masks = [job.masks for job in estimate.jobs]
    assert estimate.masks == sum(each or 0 for each in masks)
    assert list(client.jobs()) == []
