"""The child process: one attempt at one job, in a fresh interpreter. The only one with torch.

`python -m worker.child FOLDER PARENT_PID`, the claim as JSON on standard input. Started by
`worker.child_process`; how it ends is in `worker.outcome`.
"""

import faulthandler
import mimetypes
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from bonsai_core.config import PruneRequest
from bonsai_core.errors import PruneError, Stopped, UnavailableDeviceError
from bonsai_core.events import Event, Listener
from bonsai_core.footprint import WEIGHTS_SHARE
from bonsai_core.lineage import write_lineage
from bonsai_core.models import device_named
from bonsai_core.pruner import PruneResult, prune
from bonsai_core.report.writer import write_report
from jobs.artifacts import ArtifactStore
from jobs.attempts import AttemptStore, Claim
from jobs.connections import connect
from jobs.datasets import text_of
from jobs.errors import DATABASE_UNREACHABLE, LeaseLostError, StorageUnavailableError
from jobs.ledger import LedgerStore
from jobs.logs import configure_logs
from jobs.patience import Patience
from jobs.settings import Settings
from jobs.sources import Sources
from jobs.storage import artifact_store
from jobs.traces import TRACEPARENT, traced, traces_of
from worker.ledger import PostgresLedger
from worker.outcome import Exit, Outcome, ResultFile, result_prefix
from worker.parent import die_with
from worker.pulse import Pulse
from worker.reporter import Reporter
from worker.room import no_room
from worker.scratch import PULSE
from worker.spans import Spans
from worker.stop_request import StopRequest

_log = structlog.get_logger(__name__)

_CORE_FIELDS = set(PruneRequest.model_fields)


def main(folder: Path, parent: int) -> Exit:
    """Run the attempt; what its end means is in `Exit`."""
    die_with(parent)
    faulthandler.enable()
    # The supervisor asks where a child hangs before it kills it.
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    pulse = Pulse(folder / PULSE)
    stop = StopRequest(pulse)
    settings = Settings()
    claim = TypeAdapter(Claim).validate_json(sys.stdin.read())
    configure_logs(settings, "child")
    structlog.contextvars.bind_contextvars(**claim.ids, **traced(os.environ.get(TRACEPARENT)))
    spans = Spans(traces_of("worker"), claim)
    error: str | None = "crashed"
    try:
        end = _prune(folder, settings, claim, stop, pulse, spans)
        error = None if end in (Exit.SUCCEEDED, Exit.STOPPED) else end.name.lower()
        return end
    finally:
        spans.end(error)


def _prune(
    folder: Path,
    settings: Settings,
    claim: Claim,
    stop: StopRequest,
    pulse: Pulse,
    spans: Spans,
) -> Exit:
    """See `main`."""
    engine = connect(settings, connections=2)
    attempts = AttemptStore(engine)
    # After that the job is somebody else's, or the supervisor has ended this process.
    patiently = Patience(settings.lease_seconds)
    # A large file may be on its way for longer than a forward pass takes.
    files = artifact_store(
        settings, patience_seconds=settings.artifacts_patience_seconds, on_piece=pulse.beat
    )
    store = LedgerStore(engine, claim.job_id, claim.fencing_token)
    try:
        # Checked when it was submitted, but a link may have changed since.
        Sources.of(settings).require_allowed(claim.request)
        request = PruneRequest.model_validate(claim.request.model_dump(include=_CORE_FIELDS))
        with text_of(engine, files, claim.request, folder) as text:
            result = prune(
                request,
                folder / "result",
                ledger=PostgresLedger(
                    store, files, claim, folder, partial(attempts.report, claim), patiently
                ),
                device=settings.device,
                device_memory=_weights(settings),
                listener=_both(Reporter(attempts, store, claim, patiently, pulse), spans),
                stop=stop,
                # Goes with the attempt's folder, also after a kill.
                scratch=folder,
                calibration_file=text,
            )
            job = {"id": str(claim.job_id), "name": claim.request.name, "attempt": claim.attempt}
            lineages = {
                one.folder: write_lineage(one.folder, job) for one in (*result.on_the_way, result)
            }
            write_report(
                request,
                folder / "result",
                device=settings.device,
                device_memory=_weights(settings),
                stop=stop,
                calibration_file=text,
            )
        stored = _store(folder / "result", files, claim)
        outcome = Outcome(result=_summary(result, lineages), files=stored)
    except UnavailableDeviceError:
        raise  # a crash, which makes the supervisor ask the device: the job is not at fault
    except PruneError as error:
        _log.warning("prune_failed", code=error.code, error=str(error))
        outcome = Outcome(error=_problem(error))
    except Stopped:
        return Exit.STOPPED
    except (LeaseLostError, *DATABASE_UNREACHABLE):
        # Without the database the lease runs out, and somebody else goes on; no fault of the job.
        return Exit.LEASE_LOST
    except StorageUnavailableError as error:
        _log.warning("storage_unavailable", error=str(error))
        return Exit.STORAGE_UNAVAILABLE
    except Exception as error:
        if not no_room(error):
            raise
        _log.warning("disk_full", error=str(error))
        return Exit.DISK_FULL
    outcome.write(folder / "outcome.json")
    return Exit.SUCCEEDED if outcome.error is None else Exit.FAILED


def _both(reporter: Reporter, spans: Spans) -> Listener:
    def tell(event: Event) -> None:
        spans(event)
        reporter(event)

    return tell


def _weights(settings: Settings) -> int | None:
    """Bytes of a GPU that weights may take, where the operator has set a limit."""
    if settings.device_memory is None or device_named(settings.device).type != "cuda":
        return None
    return int(WEIGHTS_SHARE * settings.device_memory)


def _store(folder: Path, files: ArtifactStore, claim: Claim) -> list[ResultFile]:
    """Copy the result into the attempt's own prefix; nothing is visible before it is published."""
    names = {path: path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))}
    return [
        ResultFile(
            name=name,
            stored=files.put(f"{result_prefix(claim)}/{name}", path),
            content_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        )
        for path, name in names.items()
        if path.is_file()
    ]


def _summary(result: PruneResult, lineages: Mapping[Path, object]) -> dict[str, object]:
    """What came of it; of several results, the smallest model, and each by its folder."""
    if result.on_the_way:
        last = replace(result, on_the_way=())
        sizes = {one.folder.name: _summary(one, lineages) for one in (*result.on_the_way, last)}
        return {**_summary(last, lineages), "sizes": sizes}
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
        "lineage": lineages[result.folder],
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
