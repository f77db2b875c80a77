"""Real worker processes over real servers, pruning a tiny model."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol
from uuid import UUID

import pytest
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from jobs.artifacts import ArtifactStore
from jobs.doorbell import Doorbell
from jobs.records import Evaluation, Job, Round
from jobs.request import JobRequest
from jobs.settings import Settings
from jobs.storage import artifact_store
from jobs.store import JobStore
from tests.tiny_models import tiny_model, tiny_text

PROJECT = Path(__file__).resolve().parents[2]


class NamedFile(Protocol):
    """A file of a job, as the store or the client has it."""

    name: str
    sha256: str


def digests_but_of_reports(files: Iterable[NamedFile]) -> dict[str, str]:
    """Of a result, by name; its report has times and its lineage the job, which differ."""
    told = ("report.json", "report.html", "lineage.json")
    return {file.name: file.sha256 for file in files if Path(file.name).name not in told}


@dataclass
class Service:
    """The parts of the service that a test drives, and the workers that it has started."""

    settings: Settings
    engine: Engine
    store: JobStore
    files: ArtifactStore
    doorbell: Doorbell
    log: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(
        self, *, largest_file: int | None = None, **settings: str
    ) -> subprocess.Popen[bytes]:
        """With BONSAI_ settings besides the usual ones, and the most bytes that a file may have."""
        environment = {
            **os.environ,
            "BONSAI_DATABASE_URL": self.settings.database_url,
            "BONSAI_REDIS_URL": self.settings.redis_url,
            "BONSAI_DATA_DIR": str(self.settings.data_dir),
            **self._place_of_files(),
            "BONSAI_DEVICE": "cpu",
            "BONSAI_LEASE_SECONDS": "4",
            "BONSAI_HEARTBEAT_SECONDS": "0.5",
            "BONSAI_SWEEP_SECONDS": "0.5",
            "BONSAI_BACKOFF_SECONDS": "0.1",
            **{f"BONSAI_{name.upper()}": value for name, value in settings.items()},
        }
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "worker"],
                env=environment,
                cwd=PROJECT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=largest_file and partial(limit_files, largest_file),
            )
        self.workers.append(worker)
        return worker

    def _place_of_files(self) -> dict[str, str]:
        url = self.settings.artifacts_url
        return {"BONSAI_ARTIFACTS_URL": url} if url else {}

    def submit(self, request: JobRequest) -> UUID:
        job = self.store.submit(request)
        self.doorbell.ring(job.id)
        return job.id

    def change(self, job_id: UUID, **values: object) -> None:
        """Change a job's row behind everybody's back."""
        with Session(self.engine) as session, session.begin():
            session.execute(update(Job).where(Job.id == job_id).values(**values))

    def evaluated(self, job_id: UUID) -> int:
        query = select(func.count()).select_from(Evaluation).where(Evaluation.job_id == job_id)
        with Session(self.engine) as session:
            return session.scalars(query).one()

    def wait(self, job_id: UUID, reached: Callable[[Job], bool], seconds: float = 120) -> Job:
        end = time.monotonic() + seconds
        while not reached(job := self.store.show(job_id)):
            assert time.monotonic() < end, (
                f"still {job.state} {job.progress} {job.error}\n{self.log.read_text()[-3000:]}"
            )
            time.sleep(0.02)
        return job

    def wait_evaluated(self, job_id: UUID, masks: int) -> None:
        self.wait(job_id, lambda _: self.evaluated(job_id) >= masks)

    def wait_attempt(self, job_id: UUID, number: int) -> None:
        self.wait(job_id, lambda job: job.attempts >= number)

    def wait_attempt_end(self, job_id: UUID, number: int) -> None:
        self.wait(job_id, lambda job: job.fencing_token is None or job.attempts > number)

    def wait_final(self, job_id: UUID) -> Job:
        return self.wait(job_id, lambda job: job.finished_at is not None)

    def digests(self, job_id: UUID) -> dict[str, str]:
        return digests_but_of_reports(self.store.artifacts(job_id))

    def content(self, job_id: UUID, name: str) -> str:
        """Of a text among the job's files."""
        [file] = [file for file in self.store.artifacts(job_id) if file.name == name]
        return (self.settings.artifacts_dir / file.key).read_text()

    def newest_checkpoint(self, job_id: UUID, name: str) -> Path:
        """The stored file of the last round that has one of this name, `prior` or `weights`."""
        with Session(self.engine) as session:
            rounds = session.scalars(
                select(Round).where(Round.job_id == job_id).order_by(Round.number)
            )
            places = [getattr(found, name) for found in rounds]
        return self.settings.artifacts_dir / [place for place in places if place][-1]["key"]

    def event_types(self, job_id: UUID) -> list[str]:
        return [event.type for event in self.store.events(job_id, limit=1000).items]


def limit_files(size: int) -> None:
    """Writing more than this to a file fails in this process and those it starts."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def children_of(process_id: int) -> list[int]:
    """Process ids of the attempts that a worker runs, whichever thread has started them (Linux).

    Each leads a session of its own; what else a worker starts, for a moment, does not.
    """
    found = []
    for path in Path(f"/proc/{process_id}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has ended
            found += [int(word) for word in path.read_text().split()]
    return [child for child in found if leads_a_session(child)]


def leads_a_session(process_id: int) -> bool:
    try:
        return os.getsid(process_id) == process_id
    except ProcessLookupError:
        return False


@pytest.fixture
def service(settings: Settings, engine: Engine, tmp_path: Path) -> Iterator[Service]:
    service = Service(
        settings,
        engine,
        JobStore(engine),
        artifact_store(settings),
        Doorbell(settings),
        tmp_path / "workers.log",
    )
    yield service
    for worker in service.workers:
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    service.doorbell.close()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    return tiny_model(folder / "model", layers=3), tiny_text(folder / "text.txt")


@pytest.fixture
def request_for(inputs: tuple[Path, Path]) -> Callable[..., JobRequest]:
    """A request for the tiny model; keyword arguments change the pruning."""

    def make(*, sparsity: float = 0.3, source: str | None = None, **pruning: object) -> JobRequest:
        model, text = inputs
        return JobRequest.model_validate(
            {
                "model": {"source": source or str(model)},
                "calibration": {"source": str(text), "samples": 8, "sequence_length": 64},
                "target": {"sparsity": sparsity},
                "pruning": {
                    "preset": "paper",
                    "masks_per_round": 100,
                    "sparsity_per_round": 0.1,
                    **pruning,
                },
            }
        )

    return make
