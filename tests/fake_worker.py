"""A worker's part in a job's life, played step by step by a test: real rows, no model."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from jobs.artifacts import ArtifactStore, StoredFile
from jobs.attempts import AttemptStore, Claim
from jobs.ledger import LedgerStore
from jobs.progress import Progress
from jobs.records import Artifact, Job
from jobs.states import JobState
from jobs.workers import WorkerStore
from tests.devices import HOST


class FakeWorker:
    """Claims the oldest queued job and moves it on as it is told."""

    def __init__(
        self,
        engine: Engine,
        artifacts: ArtifactStore,
        scratch: Path,
        *,
        registers: bool = False,
    ) -> None:
        self._engine = engine
        self._attempts = AttemptStore(engine, registers=registers)
        self._artifacts = artifacts
        self._scratch = scratch

    def arrive(self) -> None:
        WorkerStore(self._engine).arrive("fake", HOST, 600)

    def claim(self) -> Claim:
        claim = self._attempts.claim(worker="fake", device=HOST, lease_seconds=600)
        assert claim is not None, "no job is queued"
        return claim

    def progress(self, claim: Claim, progress: Progress) -> None:
        with Session(self._engine) as session, session.begin():
            session.execute(
                update(Job)
                .where(Job.id == claim.job_id)
                .values(progress=progress.model_dump(mode="json"))
            )

    def report(self, claim: Claim, event: str, data: Mapping[str, Any]) -> None:
        self._attempts.report(claim, event, data)

    def evaluate(self, claim: Claim, *, number: int, trials: int) -> None:
        ledger = LedgerStore(self._engine, claim.job_id, claim.fencing_token)
        for trial in range(trials):
            ledger.record(number, trial, 0.0, 0.1)

    def begin_round(self, claim: Claim, number: int) -> None:
        prior = StoredFile(f"jobs/{claim.job_id}/prior-{number}", 1, "0" * 64)
        LedgerStore(self._engine, claim.job_id, claim.fencing_token).begin_round(number, prior)

    def finish_round(self, claim: Claim, number: int, record: Mapping[str, Any]) -> None:
        ledger = LedgerStore(self._engine, claim.job_id, claim.fencing_token)
        ledger.finish_round(number, record, None)

    def wished(self, claim: Claim) -> JobState:
        return self._attempts.renew(claim, 600).state

    def succeed(self, claim: Claim, files: Mapping[str, bytes]) -> None:
        rows = [self._store(claim, name, content) for name, content in files.items()]
        lineage = {
            "base": {"source": "model", "gguf_file": None, "revision": None, "sha256": "b" * 64},
            "job": {"id": str(claim.job_id), "name": claim.request.name, "attempt": claim.attempt},
            "code": {"bonsai-pruning": "0.1.0"},
            "manifest_sha256": "a" * 64,
        }
        self._attempts.succeed(claim, {"sparsity": 0.3, "lineage": lineage}, rows)

    def fail(self, claim: Claim) -> None:
        error = {"code": "broken_numerics", "detail": "model: a value is not finite"}
        self._attempts.fail(claim, error)

    def release(self, claim: Claim, reason: str) -> None:
        self._attempts.release(claim, reason)

    def _store(self, claim: Claim, name: str, content: bytes) -> Artifact:
        self._scratch.mkdir(exist_ok=True)
        source = self._scratch / name
        source.write_bytes(content)
        stored = self._artifacts.put(f"jobs/{claim.job_id}/{claim.fencing_token}/{name}", source)
        assert stored.sha256 == hashlib.sha256(content).hexdigest()
        return Artifact(
            job_id=claim.job_id,
            name=name,
            key=stored.key,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
            content_type="application/json"
            if name.endswith(".json")
            else "application/octet-stream",
        )
