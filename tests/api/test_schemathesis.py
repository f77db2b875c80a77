"""The running service against its own OpenAPI document: schemathesis, all checks on.

BONSAI_TEST_EXAMPLES sets how many requests each operation gets at least (5), BONSAI_TEST_SEED the
random numbers (1); `benchmarks/results/schemathesis.md` has a longer run.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from api.app import create_app
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.store import JobStore
from tests.api.conftest import ADMIN_KEY
from tests.fake_worker import FakeWorker
from tests.served import served

EXAMPLES = os.environ.get("BONSAI_TEST_EXAMPLES", "5")
PROJECT = Path(__file__).resolve().parents[2]
FILE = "report.json"
SEED = os.environ.get("BONSAI_TEST_SEED", "1")

# What a document cannot say: files are there, webhooks lead outside, two fields exclude each other.
# So a body that fits the document may still be refused, by a problem that names the field.
CONFIGURATION = """
[dictionaries.folder]
values = [{model}]

[dictionaries.text]
values = [{text}]

[dictionaries.job]
values = [{job}]

[dictionaries.name]
values = [{name}, "fake"]

[dictionaries.seconds]
values = [0, 0.2]

[parameters]
"query.wait" = {{ dictionary = "seconds", probability = 0.95 }}
"path.job_id" = {{ dictionary = "job", probability = 0.5 }}
"path.name" = {{ dictionary = "name", probability = 0.5 }}
"body.model.source" = {{ dictionary = "folder", probability = 0.9 }}
"body.calibration.source" = {{ dictionary = "text", probability = 0.9 }}

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "404", "409", "422"]
"""


@pytest.fixture
def ended(worker: FakeWorker, engine: Engine, body: dict[str, Any]) -> str:
    """A job that has succeeded, with a file, a ledger, events and an attempt."""
    job = JobStore(engine).submit(JobRequest.model_validate(body))
    worker.arrive()
    claim = worker.claim()
    worker.evaluate(claim, number=1, trials=3)
    worker.succeed(claim, {FILE: b"{}"})
    return str(job.id)


@pytest.fixture
def service(settings: Settings, engine: Engine) -> Iterator[str]:
    changes = {"admin_key": SecretStr(ADMIN_KEY.reveal())}
    with served(create_app(settings.model_copy(update=changes))) as url:
        yield url


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("phases", ["examples,coverage", "fuzzing,stateful"])
def test_the_service_does_what_its_document_says(
    service: str, ended: str, model_folder: Path, text_file: Path, tmp_path: Path, phases: str
) -> None:
    configuration = tmp_path / "schemathesis.toml"
    known = {"model": str(model_folder), "text": str(text_file), "job": ended, "name": FILE}
    quoted = {name: json.dumps(value) for name, value in known.items()}
    configuration.write_text(CONFIGURATION.format(**quoted))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)),
        *(
            "run",
            f"{service}/openapi.json",
            "--header",
            f"Authorization: Bearer {ADMIN_KEY.reveal()}",
        ),
        *("--checks", "all", "--phases", phases, "--max-examples", EXAMPLES, "--seed", SEED),
        *("--suppress-health-check", "all", "--continue-on-failure"),
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks", "PYTHONPATH": str(PROJECT)}
    run = subprocess.run(
        command, env=os.environ | hooks, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
