"""From claim to end of an attempt: one child process per job, watched until it is gone.

This process never loads torch. It waits in short steps, so a signal is seen at once, and renews the
lease while the child lives.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping

import structlog

from jobs.artifacts import ArtifactStore
from jobs.attempts import AttemptStore, Claim
from jobs.crashes import Crash
from jobs.errors import LeaseLostError, StorageUnavailableError
from jobs.log_lines import LogStore
from jobs.patience import Patience
from jobs.queue import past_deadline
from jobs.records import Artifact
from jobs.schedule import WaitingReason
from jobs.settings import Settings
from jobs.states import JobState
from jobs.traces import Span, Traces, named, traced
from worker import host_memory, scratch
from worker.child_process import ChildProcess
from worker.device import DeviceWatch
from worker.lease import Ending, Lease
from worker.log_keeper import LogKeeper
from worker.outcome import Exit, Outcome, result_prefix
from worker.pulse import PulseWatch

_log = structlog.get_logger(__name__)

_STEP_SECONDS = 0.2


class Supervisor:
    """Claims jobs and runs them one after the other."""

    def __init__(
        self,
        settings: Settings,
        attempts: AttemptStore,
        files: ArtifactStore,
        logs: LogStore,
        worker: str,
        device: DeviceWatch,
        stopping: threading.Event,
        traces: Traces,
    ) -> None:
        self._settings = settings
        self._attempts = attempts
        self._files = files
        self._logs = logs
        self._worker = worker
        self._device = device
        self._stopping = stopping
        self._traces = traces
        self._patiently = Patience(settings.lease_seconds)

    def work(self) -> None:
        """Run jobs until none waits or the worker is told to stop."""
        while not self._stopping.is_set() and self._device.health.recovers():
            claim = self._attempts.claim(
                worker=self._worker,
                device=self._device.look(),
                lease_seconds=self._settings.lease_seconds,
            )
            if claim is None:
                return
            about = {**named(claim.ids), "bonsai.worker": self._worker}
            with self._traces.start("attempt", about, link=claim.traceparent) as span:
                ids = {**claim.ids, **traced(span.traceparent)}
                with structlog.contextvars.bound_contextvars(**ids):
                    self._run(claim, span)

    def _run(self, claim: Claim, span: Span) -> None:
        folder = scratch.begin(self._settings.scratch_dir, claim)
        kills = host_memory.kills()
        _log.info("attempt_started")
        child = ChildProcess(
            claim, folder, self._settings.child_module, self._device.kind, span.traceparent
        )
        log = LogKeeper(self._logs, claim.fencing_token, child.log)
        log.start()
        try:
            lease = Lease(self._attempts, claim, self._settings)
            ending = self._watch(lease, child)
            # Before the attempt has ended for those who follow its log.
            log.end()
            if child.exit_code == Exit.LEASE_LOST:
                raise LeaseLostError(claim.job_id, claim.fencing_token)
            _log.info("attempt_ended", exit_code=child.exit_code, ending=ending)
            if _suspects_device(child, ending) and not self._device.health.ask(lease.wish):
                ending = Ending.DEVICE_FAILED
            crash = _crash(child, ending, host_memory.kills() > kills)
            self._end(
                claim,
                lambda: span.note(
                    {"bonsai.state": self._settle(claim, child, ending, crash, lease)}
                ),
            )
        except LeaseLostError:
            _log.warning("lease_lost")
            span.end("lease_lost")
            # Somebody else has the job; what this attempt stored was never published.
            self._discard_result(claim)
        finally:
            child.clean_up()
            log.end()

    def _watch(self, lease: Lease, child: ChildProcess) -> Ending | None:
        """Wait for the child's end, renewing the lease; why it was ended early, if it was.

        Raises:
            LeaseLostError: the job is no longer ours; the child has been killed.
        """
        ending: Ending | None = None
        kill_at = float("inf")
        pulse = PulseWatch(child.pulse, self._settings.stall_seconds)
        while child.is_running(_STEP_SECONDS):
            try:
                wish = lease.wish()
            except LeaseLostError:
                child.kill()
                raise
            wish = wish or (Ending.DRAINED if self._stopping.is_set() else None)
            if ending is None and wish is None and (silent := pulse.stalled()):
                _log.error("attempt_stalled", seconds=round(silent))
                child.dump_stacks()
                child.kill()
                return Ending.STALLED
            if wish and ending is None:
                ending = wish
                child.stop()
                kill_at = time.monotonic() + self._settings.stop_grace_seconds
            if time.monotonic() > kill_at:
                child.kill()
        return ending

    def _end(self, claim: Claim, settle: Callable[[], None]) -> None:
        """Write how the attempt ended, also when the database is away for a moment.

        Raises:
            LeaseLostError: the job is no longer ours, and nothing was written.
        """
        try:
            self._patiently(settle)
        except LeaseLostError:
            if self._patiently(lambda: self._attempts.outcome(claim)) in (None, "lease_expired"):
                raise
            # It was written at the first try, and only the answer was lost.

    def _settle(
        self, claim: Claim, child: ChildProcess, ending: Ending | None, crash: Crash, lease: Lease
    ) -> JobState:
        """Write how the attempt ended; the state the job came to."""
        outcome = child.outcome()
        code = child.exit_code
        if code == Exit.SUCCEEDED and outcome.result is not None:
            state = self._attempts.succeed(claim, outcome.result, _artifacts(claim, outcome))
            if state is not JobState.SUCCEEDED:
                self._discard_result(claim)
            return state
        if code == Exit.FAILED and outcome.error is not None:
            return self._attempts.fail(claim, outcome.error)
        if code in _HOLDS:
            return self._attempts.hold(claim, _HOLDS[code], self._settings.hold_seconds)
        if ending is Ending.DEADLINE_PASSED:
            return self._attempts.fail(claim, past_deadline(lease.missed))
        if ending not in (None, Ending.STALLED):
            return self._attempts.release(claim, str(ending))
        detail = {"exit_code": code, "log_tail": child.log_tail()}
        state = self._attempts.crashed(claim, detail, self._settings.crash_limits, crash)
        _log.error("attempt_crashed", crash=crash, **detail)
        return state

    def _discard_result(self, claim: Claim) -> None:
        """Remove what an attempt has stored and nobody will see; what stays goes with the job's
        other files."""
        try:
            self._files.delete(result_prefix(claim))
        except StorageUnavailableError as error:
            _log.warning("result_left", error=str(error))


_HOLDS: Mapping[int | None, WaitingReason] = {
    Exit.DISK_FULL: WaitingReason.DISK_FULL,
    Exit.STORAGE_UNAVAILABLE: WaitingReason.STORAGE_UNAVAILABLE,
}
"""Exits for want of something that comes back, and what the job waits for then."""


def _suspects_device(child: ChildProcess, ending: Ending | None) -> bool:
    """Whether a child ended as one does whose device has failed; it may have other reasons."""
    return ending in (None, Ending.STALLED) and child.exit_code not in list(Exit)


def _crash(child: ChildProcess, ending: Ending | None, killed: bool) -> Crash:
    """What it was, if it was a crash; `killed`: the kernel has killed something for its memory."""
    if ending is Ending.STALLED:
        return Crash.STALLED
    if killed and child.exit_code == -signal.SIGKILL:
        return Crash.HOST_OUT_OF_MEMORY
    return Crash.CRASHED


def _artifacts(claim: Claim, outcome: Outcome) -> list[Artifact]:
    return [
        Artifact(
            job_id=claim.job_id,
            name=file.name,
            key=file.stored.key,
            size_bytes=file.stored.size_bytes,
            sha256=file.stored.sha256,
            content_type=file.content_type,
        )
        for file in outcome.files
    ]
