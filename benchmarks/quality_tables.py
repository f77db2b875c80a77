"""Tables of the quality harness: medians over seeds with their extremes, dense beside them."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.protocol import Protocol
from benchmarks.results import ALL_WINDOWS, STANDARD, Result

DENSE = "dense"
_ENOUGH_SEEDS = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """One number over the seeds."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Iterable[float]) -> "Spread":
        """The spread of at least one value."""
        found = list(values)
        return Spread(statistics.median(found), min(found), max(found))

    def shown(self, form: str) -> str:
        """The median, and the extremes where they differ."""
        if self.least == self.most:
            return number(self.median, form)
        ends = f"{number(self.least, form)} to {number(self.most, form)}"
        return f"{number(self.median, form)} ({ends})"


def number(value: float, form: str) -> str:
    """A number for people; beyond ten thousand only its size matters."""
    return f"{value:.1e}" if abs(value) >= 1e4 and form.endswith("f") else format(value, form)


@dataclass(frozen=True, slots=True)
class Row:
    """A method with its settings: its results by sparsity."""

    method: str
    settings: str
    cells: Mapping[float, Sequence[Result]]

    @property
    def name(self) -> str:
        """For the first column."""
        return f"{self.method} ({self.settings})" if self.settings else self.method


def rows_of(results: Sequence[Result], part: str) -> list[Row]:
    """Methods and their settings in the order of their first measurement, dense left out."""
    found: dict[tuple[str, str], dict[float, list[Result]]] = {}
    for result in results:
        key = result.key
        if key.part == part and key.method != DENSE:
            cells = found.setdefault((key.method, key.settings), {})
            cells.setdefault(key.sparsity, []).append(result)
    return [Row(method, settings, cells) for (method, settings), cells in found.items()]


def dense_of(results: Sequence[Result], part: str) -> Result | None:
    """The dense model's result."""
    return next((r for r in results if r.key.method == DENSE and r.key.part == part), None)


def summary(protocol: Protocol, results: Sequence[Result]) -> dict[str, Any]:
    """Everything in the tables, for machines."""
    dense = dense_of(results, STANDARD)
    return {
        "protocol": protocol,
        "machines": sorted({result.machine for result in results}),
        "dense": {
            part: {"perplexity": found.perplexity, "accuracy": found.accuracy}
            for part in (STANDARD, ALL_WINDOWS)
            if (found := dense_of(results, part)) is not None
        },
        "rows": [
            _summed(row, sparsity, part, cell, dense if part == STANDARD else None)
            for part in (STANDARD, ALL_WINDOWS)
            for row in rows_of(results, part)
            for sparsity, cell in sorted(row.cells.items())
        ],
    }


def _summed(
    row: Row, sparsity: float, part: str, cell: Sequence[Result], dense: Result | None
) -> dict[str, Any]:
    first = cell[0]
    measures: dict[str, Any] = {
        name: _values(getattr(result, name) for result in cell)
        for name in ("sparsity", "forward_tokens", "cpu_seconds", "wall_seconds")
    }
    for name in ("perplexity", "accuracy", "margin"):
        measures[name] = {
            text: _values(getattr(result, name)[text] for result in cell)
            for text in getattr(first, name)
        }
    if dense is not None:
        measures["perplexity_over_dense"] = {
            text: _values(result.perplexity[text] / dense.perplexity[text] for result in cell)
            for text in first.perplexity
        }
    return {
        "method": row.method,
        "settings": row.settings,
        "asked_sparsity": sparsity,
        "part": part,
        "seeds": [result.key.seed for result in cell],
        "added_parameters": first.added_parameters,
        **measures,
    }


def _values(found: Iterable[float]) -> dict[str, float]:
    spread = Spread.of(found)
    return {"median": spread.median, "min": spread.least, "max": spread.most}


def markdown(protocol: Protocol, results: Sequence[Result], words: Mapping[str, str]) -> str:
    """The tables for people, the whole protocol at the top.

    Args:
        protocol: of all the results.
        results: in the order of the rows.
        words: what each method is, by name.
    """
    dense = dense_of(results, STANDARD)
    rows = rows_of(results, STANDARD)
    lines = [f"# Quality: {protocol['model']['name']}", "", *_protocol(protocol, results)]
    lines += ["", "## Methods", "", *_methods(rows, words)]
    if dense is not None and rows:
        for text in dense.perplexity:
            count = protocol["windows"][text]
            title = f"Perplexity, {text}: {count} windows; in brackets over dense"
            lines += _table(title, rows, _over_dense(text, dense), dense.perplexity[text], ".2f")
        for text in dense.accuracy:
            title = f"Questions answered, {text}"
            lines += _table(title, rows, _share(text), dense.accuracy[text], ".1%")
            title = f"Margin of the true choice in nats, {text}"
            lines += _table(title, rows, _margin(text), dense.margin[text], ".2f")
    lines += _all_windows(protocol, results)
    if rows:
        lines += _costs(rows)
    return "\n".join(lines) + "\n"


def _protocol(protocol: Protocol, results: Sequence[Result]) -> list[str]:
    model, calibration, texts = (protocol[name] for name in ("model", "calibration", "texts"))
    rows = [
        ("model", f"{model['name']}, {model['architecture']}"),
        ("its files, SHA-256", model["files_sha256"]),
        ("parameters, non-embedding", f"{model['non_embedding_parameters']:,}"),
        ("sparsity", protocol["sparsity"]),
        ("retraining", "none"),
        ("calibration", ", ".join(f"{key}: {value}" for key, value in calibration.items())),
        ("window", f"{protocol['window']} tokens; {protocol['predictions']}"),
        *((f"text {name}, SHA-256", sha256) for name, sha256 in texts.items()),
        *(
            (f"questions, {name}", f"{found['count']}, SHA-256 {found['sha256']}")
            for name, found in protocol["questions"]["by_text"].items()
        ),
        ("dtype, device", f"{protocol['dtype']}, {protocol['device']}"),
        ("damping of repairs", f"{protocol['damping']} of the mean diagonal (baselines)"),
        ("versions", ", ".join(f"{name} {found}" for name, found in protocol["versions"].items())),
        ("machines", "; ".join(sorted({result.machine for result in results}))),
    ]
    return ["| protocol | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]


def _methods(rows: Sequence[Row], words: Mapping[str, str]) -> list[str]:
    lines = [
        "Cells: median over the seeds (least to most). One value: one seed, or no chance in it.",
        "",
    ]
    for row in rows:
        seeds = {result.key.seed for cell in row.cells.values() for result in cell}
        few = f" (fewer than {_ENOUGH_SEEDS})" if len(seeds) < _ENOUGH_SEEDS else ""
        added = max(result.added_parameters for cell in row.cells.values() for result in cell)
        what = words.get(row.method, "")
        what += f"; adds {added:,} parameters, not counted in the sparsity" if added else ""
        lines.append(f"- **{row.name}**: {what}; {len(seeds)} seeds{few}")
    return lines


Cell = Callable[[Sequence[Result]], str]


def _table(
    title: str, rows: Sequence[Row], cell: Cell, dense: float | None = None, form: str = ""
) -> list[str]:
    columns = sorted({sparsity for row in rows for sparsity in row.cells})
    lines = [
        *("", f"## {title}", ""),
        f"| method | {' | '.join(f'{sparsity:.0%}' for sparsity in columns)} |",
        "| --- |" + " --- |" * len(columns),
    ]
    if dense is not None:
        lines.append(f"| dense | {' | '.join([number(dense, form)] * len(columns))} |")
    for row in rows:
        shown = [cell(row.cells[s]) if s in row.cells else "" for s in columns]
        lines.append(f"| {row.name} | {' | '.join(shown)} |")
    return lines


def _over_dense(text: str, dense: Result) -> Cell:
    def cell(results: Sequence[Result]) -> str:
        spread = Spread.of(result.perplexity[text] for result in results)
        return f"{spread.shown('.2f')} [{number(spread.median / dense.perplexity[text], '.3f')}]"

    return cell


def _share(text: str) -> Cell:
    return lambda results: Spread.of(r.accuracy[text] for r in results).shown(".1%")


def _margin(text: str) -> Cell:
    return lambda results: Spread.of(r.margin[text] for r in results).shown(".2f")


def _all_windows(protocol: Protocol, results: Sequence[Result]) -> list[str]:
    dense, rows = dense_of(results, ALL_WINDOWS), rows_of(results, ALL_WINDOWS)
    if dense is None or not rows:
        return []
    text = next(iter(dense.perplexity))
    title = f"Perplexity, {text}: all {protocol['all_windows']} windows; in brackets over dense"
    return _table(title, rows, _over_dense(text, dense), dense.perplexity[text], ".2f")


def _costs(rows: Sequence[Row]) -> list[str]:
    def cell(name: str, form: str) -> Cell:
        def shown(results: Sequence[Result]) -> str:
            return format(statistics.median(getattr(r, name) for r in results), form)

        return shown

    return [
        *_table("Sparsity reached, counted", rows, cell("sparsity", ".3%")),
        *_table("Forward tokens spent for pruning", rows, cell("forward_tokens", ",.0f")),
        *_table("CPU seconds spent for pruning", rows, cell("cpu_seconds", ",.0f")),
        *_table("Wall seconds spent for pruning", rows, cell("wall_seconds", ",.0f")),
    ]
