"""A measurement on disk: JSON for machines, Markdown for people, with date, hardware, versions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.protocol import machine
from bonsai_core.versions import versions

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a title; numbers are shown with four digits."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, how, and what it says.

    Attributes:
        name: of the files.
        title: of the Markdown file.
        words: how it was measured, in paragraphs.
        values: all numbers, for JSON.
        tables: for people.
    """

    name: str
    title: str
    words: Sequence[str]
    values: Mapping[str, Any]
    tables: Sequence[Table] = field(default_factory=list)

    def write(self, folder: Path, device: torch.device) -> Path:
        """Both files; the Markdown file is given back and printed."""
        stamp = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": machine(device),
            "versions": versions(),
        }
        folder.mkdir(parents=True, exist_ok=True)
        values = json.dumps({**stamp, **self.values}, indent=2)
        (folder / f"{self.name}.json").write_text(values + "\n")
        found = ", ".join(f"{name} {value}" for name, value in versions().items())
        lines = [f"# {self.title}", ""]
        for paragraph in [*self.words, f"{stamp['date']}; {stamp['machine']}; {found}."]:
            lines += [paragraph, ""]
        for table in self.tables:
            lines += _lines(table)
        path = folder / f"{self.name}.md"
        path.write_text("\n".join(lines))
        print(path.read_text())
        return path


def _lines(table: Table) -> list[str]:
    rows = [table.heads, ["---"] * len(table.heads), *table.rows]
    shown = [f"| {' | '.join(map(_shown, row))} |" for row in rows]
    return [f"## {table.title}", "", *shown, ""]


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
