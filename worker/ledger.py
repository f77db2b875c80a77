"""The core's ledger in Postgres: numbers as rows, arrays as files of the artifact store."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from bonsai_core.ledger import RoundRecord, Tensors, require_same_inputs
from jobs.artifacts import ArtifactStore, StoredFile, require_sound
from jobs.attempts import Claim
from jobs.errors import DamagedFileError
from jobs.ledger import LedgerStore
from jobs.patience import Patience
from jobs.records import Round
from worker.outcome import attempt_prefix


class PostgresLedger:
    """The ledger of a claimed job.

    A file that is not what was stored is never used, and its loss is told as an event: what it held
    is computed again, from the trials that the rows have.

    Args:
        store: the rows.
        files: the artifact store.
        claim: the hold on the job.
        scratch: folder for files on their way.
        tell: appends an event to the job's.
        patiently: bears a database that is away.
    """

    def __init__(
        self,
        store: LedgerStore,
        files: ArtifactStore,
        claim: Claim,
        scratch: Path,
        tell: Callable[[str, Mapping[str, Any]], None],
        patiently: Patience,
    ) -> None:
        self._store = store
        self._files = files
        self._claim = claim
        self._scratch = scratch
        self._tell = tell
        self._patiently = patiently

    def open(self, fingerprint: str) -> None:
        """See `bonsai_core.ledger.Ledger.open`."""
        bound = self._patiently(lambda: self._store.bind(fingerprint))
        require_same_inputs("the database", bound, fingerprint)

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """See `bonsai_core.ledger.Ledger.finished_rounds`; those before the first unsound one."""
        records = []
        for entry in self._rounds():
            if entry.record is None or not (entry.weights is None or self._is_sound(entry.weights)):
                break
            records.append(RoundRecord.model_validate(entry.record))
        return records

    def weights(self, number: int) -> Tensors:
        """See `bonsai_core.ledger.Ledger.weights`."""
        found = self._round(number)
        return self._read(found.weights) if found and found.weights else {}

    def prior(self, number: int) -> Tensors | None:
        """See `bonsai_core.ledger.Ledger.prior`."""
        found = self._round(number)
        if found is None:
            return None
        try:
            return self._read(found.prior)
        except DamagedFileError as error:
            self._tell_damaged(error)
            return None

    def begin_round(self, number: int, prior: Tensors) -> None:
        """See `bonsai_core.ledger.Ledger.begin_round`."""
        stored = self._write(number, "prior", prior)
        self._patiently(lambda: self._store.begin_round(number, stored))

    def utilities(self, number: int) -> Mapping[int, float]:
        """See `bonsai_core.ledger.Ledger.utilities`."""
        return self._patiently(lambda: self._store.evaluations(number))

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """See `bonsai_core.ledger.Ledger.record`."""
        self._patiently(lambda: self._store.record(number, trial, utility, seconds))

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """See `bonsai_core.ledger.Ledger.finish_round`."""
        stored = self._write(record.number, "weights", weights) if weights else None
        values = record.model_dump(mode="json")
        self._patiently(lambda: self._store.finish_round(record.number, values, stored))

    def _round(self, number: int) -> Round | None:
        return next((entry for entry in self._rounds() if entry.number == number), None)

    def _rounds(self) -> Sequence[Round]:
        return self._patiently(self._store.rounds)

    def _write(self, number: int, name: str, tensors: Tensors) -> StoredFile:
        """Store arrays under this attempt's own prefix; another attempt never touches them."""
        path = self._scratch / f"{name}.safetensors"
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, path)
        prefix = attempt_prefix(self._claim)
        stored = self._files.put(f"{prefix}/round-{number:03d}/{name}.safetensors", path)
        path.unlink()
        return stored

    def _is_sound(self, place: dict[str, Any]) -> bool:
        """Whether a file is what was stored; it is told if not."""
        try:
            require_sound(self._files, StoredFile(**place))
        except DamagedFileError as error:
            self._tell_damaged(error)
            return False
        return True

    def _tell_damaged(self, error: DamagedFileError) -> None:
        found = {"sha256": error.found, "expected_sha256": error.expected}
        self._tell("checkpoint_corrupt", {"file": error.key, **found})

    def _read(self, place: dict[str, Any]) -> Tensors:
        with self._files.at_hand(StoredFile(**place), self._scratch) as path:
            return load_file(path)
