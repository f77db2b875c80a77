"""The core's ledger in Postgres: numbers as rows, arrays as files of the artifact store."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from bonsai_core.ledger import RoundRecord, Tensors, require_same_inputs
from jobs.artifacts import ArtifactStore, StoredFile, sha256_of
from jobs.attempts import Claim
from jobs.ledger import LedgerStore
from jobs.records import Round


class PostgresLedger:
    """The ledger of a claimed job. `scratch` is a folder for files on their way."""

    def __init__(
        self, store: LedgerStore, files: ArtifactStore, claim: Claim, scratch: Path
    ) -> None:
        self._store = store
        self._files = files
        self._claim = claim
        self._scratch = scratch

    def open(self, fingerprint: str) -> None:
        """See `bonsai_core.ledger.Ledger.open`."""
        require_same_inputs("the database", self._store.bind(fingerprint), fingerprint)

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """See `bonsai_core.ledger.Ledger.finished_rounds`."""
        records = (entry.record for entry in self._store.rounds())
        return [RoundRecord.model_validate(record) for record in records if record is not None]

    def weights(self, number: int) -> Tensors:
        """See `bonsai_core.ledger.Ledger.weights`."""
        found = self._round(number)
        return self._read(found.weights) if found and found.weights else {}

    def prior(self, number: int) -> Tensors | None:
        """See `bonsai_core.ledger.Ledger.prior`."""
        found = self._round(number)
        return self._read(found.prior) if found else None

    def begin_round(self, number: int, prior: Tensors) -> None:
        """See `bonsai_core.ledger.Ledger.begin_round`."""
        self._store.begin_round(number, self._write(number, "prior", prior))

    def utilities(self, number: int) -> Mapping[int, float]:
        """See `bonsai_core.ledger.Ledger.utilities`."""
        return self._store.evaluations(number)

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """See `bonsai_core.ledger.Ledger.record`."""
        self._store.record(number, trial, utility, seconds)

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """See `bonsai_core.ledger.Ledger.finish_round`."""
        stored = self._write(record.number, "weights", weights) if weights else None
        self._store.finish_round(record.number, record.model_dump(mode="json"), stored)

    def _round(self, number: int) -> Round | None:
        return next((entry for entry in self._store.rounds() if entry.number == number), None)

    def _write(self, number: int, name: str, tensors: Tensors) -> StoredFile:
        """Store arrays under this attempt's own prefix; another attempt never touches them."""
        path = self._scratch / f"{name}.safetensors"
        save_file({key: value.contiguous().cpu() for key, value in tensors.items()}, path)
        prefix = f"jobs/{self._claim.job_id}/attempts/{self._claim.fencing_token}"
        stored = self._files.put(f"{prefix}/round-{number:03d}/{name}.safetensors", path)
        path.unlink()
        return stored

    def _read(self, place: dict[str, Any]) -> Tensors:
        """Arrays of the store; a file that is not what was stored is never used.

        Raises:
            RuntimeError: the file's digest differs from the row's.
        """
        stored = StoredFile(**place)
        path = self._files.path(stored.key)
        found = sha256_of(path)
        if found != stored.sha256:
            raise RuntimeError(
                f"checkpoint {stored.key} is corrupt: its SHA-256 is {found}, "
                f"stored was {stored.sha256}"
            )
        return load_file(path)
