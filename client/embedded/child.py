"""A process that we start, watch and stop."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from client.embedded.errors import EmbeddedStackError
from client.embedded.identity import Identity
from client.embedded.processes import die_with_parent

LARGEST_LOG = 16 * 2**20


class Child:
    """Ends with us, lives in a session of its own, writes to a log file.

    In its own session a terminal's Ctrl-C does not reach it, only us. Start it from the main
    thread: the kernel's death signal follows the thread that forked, not the process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        identity: Identity | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment) if environment is not None else None
        self._folder = folder
        self._identity = identity or Identity()
        self._death_signal = death_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def start(self) -> None:
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".1.log"))
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            user = self._identity.user
            self._process = subprocess.Popen(
                [*self._identity.prefix, *self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
                preexec_fn=die_with_parent(self._death_signal),
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    @property
    def process_id(self) -> int:
        """Zero before the first start."""
        return self._process.pid if self._process is not None else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before it was started; asking also reaps it."""
        return self._process.poll() if self._process is not None else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def send(self, wanted: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(wanted)

    def wait(self, seconds: float) -> bool:
        """True when it has ended."""
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return False
        return True

    def kill_group(self) -> None:
        """End it and what it started in its own session, at once."""
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process_id, signal.SIGKILL)
            self.wait(10)

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise EmbeddedStackError(self.obituary())
            if time.monotonic() > deadline:
                raise EmbeddedStackError(
                    f"{self.name} is not ready after {seconds:.0f} s. "
                    f"Its log {self.log} ends with:\n{self.log_tail()}"
                )
            time.sleep(0.02)

    def obituary(self) -> str:
        """How it ended, with its last words."""
        return (
            f"{self.name} ended with exit code {self.exit_code}. "
            f"Its log {self.log} ends with:\n{self.log_tail()}"
        )

    def log_tail(self, lines: int = 15) -> str:
        """The last lines since the last start: an earlier start's troubles would mislead."""
        try:
            with self.log.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - 64 * 1024))
                text = log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
