"""The child process: one attempt at one job, in a fresh interpreter. The only one with torch.

`python -m worker.child FOLDER PARENT_PID`, the claim as JSON on standard input. Started by
`worker.child_process`; how it ends is in `worker.outcome`.
"""

import ctypes
import faulthandler
import mimetypes
import os
import signal
import sys
from functools import partial
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from bonsai_core.config import PruneRequest
from bonsai_core.errors import PruneError, Stopped
from bonsai_core.pruner import PruneResult, prune
from jobs.artifacts import ArtifactStore, LocalArtifactStore
from jobs.attempts import AttemptStore, Claim
from jobs.connections import connect
from jobs.errors import LeaseLostError
from jobs.ledger import LedgerStore
from jobs.logs import configure_logs
from jobs.settings import Settings
from worker.ledger import PostgresLedger
from worker.outcome import Exit, Outcome, ResultFile, result_prefix
from worker.reporter import Reporter

_log = structlog.get_logger(__name__)

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_CORE_FIELDS = set(PruneRequest.model_fields)


class StopRequest:
    """Becomes true with SIGTERM; the core asks it between two forward passes."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def __call__(self) -> bool:
        """See `bonsai_core.events.Stop`."""
        return self._asked

    def _ask(self, _number: int, _frame: object) -> None:
        self._asked = True


def main(folder: Path, parent: int) -> Exit:
    """Run the attempt; what its end means is in `Exit`."""
    die_with(parent)
    faulthandler.enable()
    stop = StopRequest()
    settings = Settings()
    claim = TypeAdapter(Claim).validate_json(sys.stdin.read())
    configure_logs(settings, "child")
    structlog.contextvars.bind_contextvars(
        job_id=str(claim.job_id), fencing_token=claim.fencing_token
    )
    engine = connect(settings, connections=2)
    attempts = AttemptStore(engine)
    files = LocalArtifactStore(settings.artifacts_dir)
    store = LedgerStore(engine, claim.job_id, claim.fencing_token)
    try:
        result = prune(
            PruneRequest.model_validate(claim.request.model_dump(include=_CORE_FIELDS)),
            folder / "result",
            ledger=PostgresLedger(store, files, claim, folder, partial(attempts.report, claim)),
            device=settings.device,
            listener=Reporter(attempts, store, claim),
            stop=stop,
            # Goes with the attempt's folder, also after a kill.
            scratch=folder,
        )
        outcome = Outcome(result=_summary(result), files=_store(result.folder, files, claim))
    except PruneError as error:
        _log.warning("prune_failed", code=error.code, error=str(error))
        outcome = Outcome(error=_problem(error))
    except Stopped:
        return Exit.STOPPED
    except LeaseLostError:
        return Exit.LEASE_LOST
    outcome.write(folder / "outcome.json")
    return Exit.SUCCEEDED if outcome.error is None else Exit.FAILED


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however that happens (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(Exit.LEASE_LOST)


def _store(folder: Path, files: ArtifactStore, claim: Claim) -> list[ResultFile]:
    """Copy the result into the attempt's own prefix; nothing is visible before it is published."""
    return [
        ResultFile(
            name=path.name,
            stored=files.put(f"{result_prefix(claim)}/{path.name}", path),
            content_type=mimetypes.guess_type(path.name)[0] or "application/octet-stream",
        )
        for path in sorted(folder.iterdir())
    ]


def _summary(result: PruneResult) -> dict[str, object]:
    return {
        "sparsity": result.sparsity,
        "parameters_before": result.parameters_before,
        "parameters": result.parameters,
        "non_embedding_parameters_before": result.non_embedding_parameters_before,
        "non_embedding_parameters": result.non_embedding_parameters,
        "calibration_perplexity_before": result.perplexity_before,
        "calibration_perplexity": result.perplexity,
        "utilities_before": result.utilities_before,
        "utilities": result.utilities,
        "rounds": result.rounds,
    }


def _problem(error: PruneError) -> dict[str, object]:
    return {
        "code": error.code,
        "detail": str(error),
        "field": error.field,
        "value": repr(error.value),
        "allowed": error.allowed,
        "cure": error.cure,
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
