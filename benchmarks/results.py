"""Results on disk: one JSON line each, written as soon as it is measured, and never twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

STANDARD, ALL_WINDOWS = "standard", "all windows"


@dataclass(frozen=True, slots=True)
class Key:
    """What makes a result another one.

    Attributes:
        protocol: digest of the protocol.
        method: its name; `dense` is one.
        settings: of the method, where it has any; short and readable.
        sparsity: asked for; 0 for dense.
        seed: of the calibration batch and of the method.
        part: STANDARD, or ALL_WINDOWS of the evaluation text.
    """

    protocol: str
    method: str
    settings: str
    sparsity: float
    seed: int
    part: str = STANDARD


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured under a key.

    Attributes:
        key: under which.
        perplexity: by text.
        accuracy: of the questions, by text.
        margin: of the questions, in nats, by text.
        sparsity: reached: removed parameters / non-embedding parameters, counted.
        removed_parameters: how many went.
        added_parameters: new ones, such as FLAP's biases; not in `sparsity`.
        forward_tokens: spent for pruning; see `benchmarks.spending`, as for the next two.
        cpu_seconds: spent for pruning.
        wall_seconds: spent for pruning.
        machine: processor and threads.
        date: of the measurement.
    """

    key: Key
    perplexity: Mapping[str, float]
    sparsity: float
    removed_parameters: int
    added_parameters: int
    forward_tokens: float
    cpu_seconds: float
    wall_seconds: float
    machine: str
    date: str
    accuracy: Mapping[str, float] = field(default_factory=dict)
    margin: Mapping[str, float] = field(default_factory=dict)


class Results:
    """The results of a folder, of all protocols; protocols lie beside them by digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "results.jsonl"
        self._found: dict[Key, Result] = {}
        for line in self._path.read_text().splitlines() if self._path.is_file() else []:
            result = _parsed(line)
            if result is not None:
                self._found[result.key] = result

    def __contains__(self, key: Key) -> bool:
        return key in self._found

    def of(self, protocol: str) -> Sequence[Result]:
        """All results of a protocol, in the order of their measurement."""
        return [result for key, result in self._found.items() if key.protocol == protocol]

    def add(self, result: Result) -> None:
        """Keep a result; it is on disk when the call returns."""
        self._folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(result))
        with self._path.open("a") as file:
            # A run that was ended while it wrote leaves half a line, which stays alone.
            file.write(line + "\n" if self._ends_well() else "\n" + line + "\n")
        self._found[result.key] = result

    def keep_protocol(self, digest: str, protocol: Mapping[str, Any]) -> None:
        """Keep the words of a protocol beside its results."""
        folder = self._folder / "protocols"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{digest}.json").write_text(json.dumps(protocol, indent=2) + "\n")

    def _ends_well(self) -> bool:
        if not self._path.is_file() or not self._path.stat().st_size:
            return True
        return self._path.read_bytes().endswith(b"\n")


def _parsed(line: str) -> Result | None:
    """A line's result; None for half a line."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return Result(**{**values, "key": Key(**values["key"])})
