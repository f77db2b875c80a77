"""The child process as its supervisor sees it: start, stop, kill with its group, outcome."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from jobs.attempts import Claim
from jobs.devices import DeviceKind
from jobs.traces import TRACEPARENT
from worker.outcome import Outcome
from worker.scratch import LOG, PULSE, clear

_LOG_TAIL_BYTES = 4000
_KILL_WAIT_SECONDS = 30
_DUMP_SECONDS = 1


class ChildProcess:
    """A fresh interpreter that runs one attempt, in a session of its own.

    Its folder holds what it says (`log`), its outcome, and its result until that is stored.
    """

    def __init__(
        self,
        claim: Claim,
        folder: Path,
        module: str,
        device: DeviceKind,
        traceparent: str | None = None,
    ) -> None:
        self._folder = folder
        self._log = folder / LOG
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(folder), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # What this worker has said that it has, whatever a child would find by itself.
                env=os.environ
                | {"BONSAI_DEVICE": str(device)}
                | ({TRACEPARENT: traceparent} if traceparent else {}),
                start_new_session=True,
            )
        assert self._process.stdin is not None
        # One that has died already does not read; its exit code says so.
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(TypeAdapter(Claim).dump_json(claim))

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.returncode

    def is_running(self, wait_seconds: float) -> bool:
        """Whether it still runs after waiting so long for its end."""
        try:
            self._process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def stop(self) -> None:
        """Ask it to stop after the forward pass in flight."""
        self._process.terminate()

    def dump_stacks(self) -> None:
        """Have it write to its log where each of its threads is."""
        self._process.send_signal(signal.SIGUSR1)
        self.is_running(_DUMP_SECONDS)

    def kill(self) -> None:
        """End it and everything it started, and wait until it is gone."""
        # Its process id is its group's, and stays ours until we have waited for it.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_KILL_WAIT_SECONDS)

    @property
    def log(self) -> Path:
        """What it says."""
        return self._log

    @property
    def pulse(self) -> Path:
        """What tells that its work goes on."""
        return self._folder / PULSE

    def outcome(self) -> Outcome:
        """What it left; empty when it left nothing."""
        return Outcome.read(self._folder / "outcome.json")

    def log_tail(self) -> str:
        """The end of what it said."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def clean_up(self) -> None:
        """Make sure that it is gone, with its result's scratch files; the log stays."""
        self.kill()
        clear(self._folder)
