"""A child that prunes nothing: the protocol of `worker.child` without torch, and faults at will.

Three rounds of twenty masks, whose utilities are digests of the job's seed, round and trial; the
result holds them all, so that one mask lost, doubled or mixed up shows. What it evaluates it also
writes to a journal of its own. Labels of the job ask for faults: `hang`, `crash` or `eat` (all the
memory there is) at `ROUND.TRIAL`, in as many attempts as `times` says (1); with `stubborn` it goes
on in spite of SIGTERM; `bytes` is what the result takes at least.
"""

import faulthandler
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from pydantic import TypeAdapter

from jobs.artifacts import StoredFile
from jobs.attempts import AttemptStore, Claim
from jobs.connections import connect
from jobs.errors import DATABASE_UNREACHABLE, LeaseLostError, StorageUnavailableError
from jobs.ledger import LedgerStore
from jobs.patience import Patience
from jobs.settings import Settings
from jobs.storage import artifact_store
from worker.outcome import Exit, Outcome, ResultFile, result_prefix
from worker.parent import die_with
from worker.pulse import Pulse
from worker.room import no_room
from worker.scratch import PULSE
from worker.stop_request import StopRequest

ROUNDS, MASKS = 3, 20
SECONDS_PER_MASK = 0.02
CHECKPOINT = bytes(200_000)
JOURNAL = "journal"


def utility(claim: Claim, number: int, trial: int) -> float:
    """What a mask is worth: the same for the same request, always."""
    seed = claim.request.pruning.seed
    digest = hashlib.sha256(f"{seed} {number} {trial}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class Engine:
    """One attempt."""

    def __init__(self, claim: Claim, folder: Path, settings: Settings) -> None:
        engine = connect(settings, connections=1)
        self._claim = claim
        self._folder = folder
        self._labels = claim.request.labels
        self._data = settings.data_dir
        self._patiently = Patience(settings.lease_seconds)
        self._store = LedgerStore(engine, claim.job_id, claim.fencing_token)
        self._attempts = AttemptStore(engine)
        pulse = Pulse(folder / PULSE)
        self._files = artifact_store(
            settings, patience_seconds=settings.artifacts_patience_seconds, on_piece=pulse.beat
        )
        self._stop = StopRequest(pulse)

    def run(self) -> Exit:
        """All that is missing, and the result."""
        self._store.bind("engine")
        begun = {found.number: found.record for found in self._store.rounds()}
        for number in range(1, ROUNDS + 1):
            if number not in begun:
                self._store.begin_round(number, self._put(f"round-{number}", CHECKPOINT))
            known = self._store.evaluations(number)
            for trial in range(MASKS):
                if trial in known:
                    continue
                if self._stop() and "stubborn" not in self._labels:
                    return Exit.STOPPED
                self._evaluate(number, trial)
            if begun.get(number) is None:
                self._store.finish_round(number, {"number": number}, None)
        return self._succeed()

    def _evaluate(self, number: int, trial: int) -> None:
        self._misbehave(f"{number}.{trial}")
        time.sleep(SECONDS_PER_MASK)
        value = utility(self._claim, number, trial)
        self._patiently(lambda: self._store.record(number, trial, value, SECONDS_PER_MASK))
        line = {"token": self._claim.fencing_token, "round": number, "trial": trial}
        with (self._data / f"{JOURNAL}-{self._claim.job_id}").open("a") as journal:
            journal.write(json.dumps(line) + "\n")

    def _succeed(self) -> Exit:
        values = [
            [trial, value]
            for number in range(1, ROUNDS + 1)
            for trial, value in sorted(self._store.evaluations(number).items())
        ]
        size = int(self._labels.get("bytes", "0"))
        stored = self._put("model", json.dumps(values).encode().ljust(size))
        file = ResultFile(name="model", stored=stored, content_type="application/json")
        Outcome(result={"masks": len(values)}, files=[file]).write(self._folder / "outcome.json")
        return Exit.SUCCEEDED

    def _put(self, name: str, content: bytes) -> StoredFile:
        path = self._folder / name
        path.write_bytes(content)
        return self._files.put(f"{result_prefix(self._claim)}/{name}", path)

    def _misbehave(self, place: str) -> None:
        for fault in ("hang", "crash", "eat"):
            if self._labels.get(fault) == place and self._is_due(fault):
                getattr(self, f"_{fault}")()

    def _is_due(self, fault: str) -> bool:
        """Whether it shall happen once more; each time leaves a mark."""
        marks = list(self._data.glob(f"{fault}-{self._claim.job_id}-*"))
        if len(marks) >= int(self._labels.get("times", "1")):
            return False
        (self._data / f"{fault}-{self._claim.job_id}-{len(marks)}").touch()
        return True

    def _hang(self) -> None:
        while True:
            time.sleep(1)

    def _eat(self) -> None:
        eaten = []
        while True:
            eaten.append(bytearray(10_000_000))

    def _crash(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


def main(folder: Path, parent: int) -> Exit:
    """As `worker.child.main`."""
    die_with(parent)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    claim = TypeAdapter(Claim).validate_json(sys.stdin.read())
    try:
        return Engine(claim, folder, Settings()).run()
    except (LeaseLostError, *DATABASE_UNREACHABLE):
        return Exit.LEASE_LOST
    except StorageUnavailableError:
        return Exit.STORAGE_UNAVAILABLE
    except Exception as error:
        if not no_room(error):
            raise
        return Exit.DISK_FULL


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
