"""A ledger in a folder: JSON lines for trials, safetensors for arrays, one folder per round."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

from bonsai_core.ledger import RoundRecord, Tensors, require_same_inputs


class FileLedger:
    """Survives the process. One run at a time uses a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a run has left a ledger in this folder."""
        return (folder / "fingerprint").is_file()

    def open(self, fingerprint: str) -> None:
        """See `Ledger.open`."""
        path = self._folder / "fingerprint"
        if path.is_file():
            require_same_inputs(str(self._folder), path.read_text().strip(), fingerprint)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(path, fingerprint + "\n")

    def finished_rounds(self) -> Sequence[RoundRecord]:
        """See `Ledger.finished_rounds`."""
        paths = self._folder.glob("round-*/record.json")
        records = [RoundRecord.model_validate_json(path.read_text()) for path in paths]
        return sorted(records, key=lambda record: record.number)

    def weights(self, number: int) -> Tensors:
        """See `Ledger.weights`."""
        return load_file(self._round(number) / "weights.safetensors")

    def prior(self, number: int) -> Tensors | None:
        """See `Ledger.prior`."""
        path = self._round(number) / "prior.safetensors"
        return load_file(path) if path.is_file() else None

    def begin_round(self, number: int, prior: Tensors) -> None:
        """See `Ledger.begin_round`."""
        folder = self._round(number)
        folder.mkdir(exist_ok=True)
        _save(folder / "prior.safetensors", prior)

    def utilities(self, number: int) -> Mapping[int, float]:
        """See `Ledger.utilities`; a line that a crash cut off is left out."""
        path = self._round(number) / "trials.jsonl"
        if not path.is_file():
            return {}
        found: dict[int, float] = {}
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                trial = json.loads(line)
                found[trial["trial"]] = trial["utility"]
        return found

    def record(self, number: int, trial: int, utility: float, seconds: float) -> None:
        """See `Ledger.record`."""
        line = json.dumps({"trial": trial, "utility": utility, "seconds": round(seconds, 6)})
        path = self._round(number) / "trials.jsonl"
        _end_last_line(path)
        with path.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish_round(self, record: RoundRecord, weights: Tensors) -> None:
        """See `Ledger.finish_round`; the record comes last, so it stands for the whole."""
        folder = self._round(record.number)
        _save(folder / "weights.safetensors", weights)
        _write(folder / "record.json", record.model_dump_json(indent=2) + "\n")

    def _round(self, number: int) -> Path:
        return self._folder / f"round-{number:03d}"


def _end_last_line(path: Path) -> None:
    """Remove what a crash left of a line, so that the next line starts at a line's start."""
    if not path.is_file():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _save(path: Path, tensors: Tensors) -> None:
    temporary = path.with_suffix(".partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary)
    _publish(temporary, path)


def _write(path: Path, content: str) -> None:
    temporary = path.with_suffix(".partial")
    temporary.write_text(content)
    _publish(temporary, path)


def _publish(temporary: Path, path: Path) -> None:
    """Flush a whole file and give it its name: readers see all of it or nothing."""
    for flushed in (temporary, temporary.parent):
        descriptor = os.open(flushed, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        if flushed is temporary:
            temporary.replace(path)
