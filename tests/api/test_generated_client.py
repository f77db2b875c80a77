"""A client that openapi-python-client writes from our document does a whole job."""

import base64
import hashlib
import importlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from api.app import create_app
from jobs.progress import Progress
from jobs.settings import Settings
from tests.api.conftest import ADMIN_KEY
from tests.fake_worker import FakeWorker
from tests.served import served

FILES = {"model.safetensors": bytes(range(256)) * 1000, "report.json": b'{"sparsity": 0.3}'}

Module = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Module]:
    """Gives a module of the generated package."""
    folder = tmp_path_factory.mktemp("generated")
    document = folder / "openapi.json"
    document.write_text(json.dumps(create_app(Settings()).openapi()))
    command = [sys.executable, "-m", "openapi_python_client", "generate"]
    options = ["--path", str(document), "--output-path", str(folder / "platform_client")]
    run = subprocess.run(
        [*command, *options, "--meta", "none"], capture_output=True, text=True, check=False
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    # Media types of bytes are all that it may leave out.
    unread = [line for line in said.splitlines() if line.startswith("Cannot parse")]
    assert all("application/x-tar" in line for line in unread), said
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module(f"platform_client.{name}")
    sys.path.remove(str(folder))


@pytest.fixture
def url(settings: Settings, engine: Engine) -> Iterator[str]:
    changes = {"admin_key": SecretStr(ADMIN_KEY.reveal())}
    with served(create_app(settings.model_copy(update=changes))) as url:
        yield url


@pytest.fixture
def platform(module: Module, url: str) -> Any:
    """The generated client, with a key."""
    client = module("client").AuthenticatedClient(url, token=ADMIN_KEY.reveal(), timeout=60)
    return client.with_headers({"User-Agent": "platform"})


def test_it_submits_watches_and_downloads(
    module: Module, platform: Any, worker: FakeWorker, body: dict[str, Any]
) -> None:
    request = module("models").JobRequest.from_dict(body)
    submit = module("api.jobs.submit_job").sync
    estimate = submit(client=platform, body=request, validate_only=True)
    assert type(estimate).__name__ == "Estimate"
    assert estimate.masks > 0
    job = submit(client=platform, body=request, idempotency_key="night-1")
    assert submit(client=platform, body=request, idempotency_key="night-1").id == job.id
    assert (job.state, job.position) == ("queued", 1)

    working = threading.Thread(target=work, args=(worker,))
    working.start()
    stream = module("api.events.stream_events").sync_detailed(job.id, client=platform)
    working.join()
    assert [line for line in stream.content.decode().splitlines() if line.startswith("event: end")]
    page = module("api.events.list_events").sync(job.id, client=platform)
    assert [event.type_ for event in page.items] == ["submitted", "running", "succeeded"]
    job = module("api.jobs.show_job").sync(job.id, client=platform, wait=30)
    assert (job.state, job.progress.round_) == ("succeeded", 1)

    manifest = module("api.artifacts.list_artifacts").sync(job.id, client=platform)
    assert {file.name for file in manifest.items} == set(FILES)
    download = module("api.artifacts.download_artifact").sync_detailed
    for file in manifest.items:
        response = download(job.id, file.name, client=platform)
        content = response.parsed.payload.read()
        assert content == FILES[file.name]
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert response.headers["Repr-Digest"] == f"sha-256=:{digest}:"
        assert hashlib.sha256(content).hexdigest() == file.sha256


def test_it_reads_problems(module: Module, platform: Any, body: dict[str, Any]) -> None:
    body["target"] = {"sparsity": 1.5}
    request = module("models").JobRequest.from_dict(body)
    problem = module("api.jobs.submit_job").sync(client=platform, body=request)
    assert type(problem).__name__ == "Problem"
    assert [error.pointer for error in problem.errors] == ["/target/sparsity"]


def work(worker: FakeWorker) -> None:
    claim = worker.claim()
    worker.progress(claim, Progress(stage="pruning", round=1, rounds=1))
    worker.evaluate(claim, number=1, trials=2)
    worker.succeed(claim, FILES)
