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
    """A number for people; of a loss beyond ten thousand only its size matters."""
    counted = "," in form or not form.endswith("f")
    return format(value, form) if counted or abs(value) < 1e4 else f"{value:.1e}"


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
        results: of the protocol.
        words: what each method is, by name, in the order of the rows.
    """
    dense = dense_of(results, STANDARD)
    rows = _ordered(rows_of(results, STANDARD), words)
    lines = [f"# Quality: {protocol['model']['name']}", "", *_protocol(protocol, results)]
    lines += ["", "## Methods", "", *_methods(rows, words)]
    if dense is not None and rows:
        text = next(iter(dense.perplexity))
        title = f"Perplexity, {text}: {protocol['windows'][text]} windows; in brackets over dense"
        lines += _by_sparsity(title, rows, _over_dense(text, dense), dense.perplexity[text])
        for sparsity in sorted({found for row in rows for found in row.cells}):
            lines += _whole(f"All that was measured at {sparsity:.0%}", rows, sparsity, dense)
    return "\n".join([*lines, *_all_windows(protocol, results, words)]) + "\n"


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
        "*ppl*: perplexity. *right*: share of the questions answered. *margin*: log-likelihood of",
        "the true choice over the best wrong one, in nats. *forward tokens* and *CPU s*: spent for",
        "pruning, from the dense model in memory to the pruned one; a pass through part of the",
        "layers counts as that part. Seconds compare only where the machine is the same, tokens",
        "always. *sparsity*: reached, counted.",
        "",
    ]
    for row in rows:
        results = [result for cell in row.cells.values() for result in cell]
        seeds = {result.key.seed for result in results}
        count = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
        count += f" (fewer than {_ENOUGH_SEEDS})" if len(seeds) < _ENOUGH_SEEDS else ""
        added = max(result.added_parameters for result in results)
        days = sorted({result.date for result in results})
        measured = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
        machines = " and ".join(sorted({result.machine for result in results}))
        what = words.get(row.method, "")
        what += f"; adds {added:,} parameters, not counted in the sparsity" if added else ""
        lines.append(f"- **{row.name}**: {what}; {count}; {measured}, {machines}")
    return lines


Cell = Callable[[Sequence[Result]], str]


def _ordered(rows: Sequence[Row], words: Mapping[str, str]) -> list[Row]:
    names = list(words)
    return sorted(rows, key=lambda row: names.index(row.method))


def _by_sparsity(title: str, rows: Sequence[Row], cell: Cell, dense: float) -> list[str]:
    """One measure: a column for each sparsity."""
    columns = sorted({sparsity for row in rows for sparsity in row.cells})
    found = [["dense", *[number(dense, ".2f")] * len(columns)]]
    found += [[row.name, *(cell(row.cells.get(s, [])) for s in columns)] for row in rows]
    return _table(title, ["method", *(f"{sparsity:.0%}" for sparsity in columns)], found)


def _whole(title: str, rows: Sequence[Row], sparsity: float, dense: Result) -> list[str]:
    """One sparsity: a column for each measure."""
    columns = _columns(dense)
    present = [row for row in rows if sparsity in row.cells]
    found = [["dense", *(shown([dense]) for shown in columns.values())]]
    found += [
        [row.name, *(shown(row.cells[sparsity]) for shown in columns.values())] for row in present
    ]
    return _table(title, ["method", *columns], found)


def _columns(dense: Result) -> dict[str, Cell]:
    """What is shown of a method at one sparsity, by heading."""
    texts, asked = dense.perplexity, dense.accuracy
    columns = {f"ppl, {text}": _spread(f"perplexity/{text}", ".2f") for text in texts}
    columns |= {f"right, {text}": _spread(f"accuracy/{text}", ".0%") for text in asked}
    columns |= {f"margin, {text}": _spread(f"margin/{text}", ".1f") for text in asked}
    return columns | {
        "forward tokens": _spread("forward_tokens", ",.0f"),
        "CPU s": _spread("cpu_seconds", ",.0f"),
        "sparsity": _spread("sparsity", ".3%"),
    }


def _spread(path: str, form: str) -> Cell:
    """Of a number of the results: an attribute, or an entry of one, after a slash."""
    name, _, entry = path.partition("/")

    def cell(results: Sequence[Result]) -> str:
        found = [getattr(result, name) for result in results]
        return Spread.of(value[entry] if entry else value for value in found).shown(form)

    return cell


def _over_dense(text: str, dense: Result) -> Cell:
    def cell(results: Sequence[Result]) -> str:
        if not results:
            return ""
        spread = Spread.of(result.perplexity[text] for result in results)
        return f"{spread.shown('.2f')} [{number(spread.median / dense.perplexity[text], '.3f')}]"

    return cell


def _all_windows(
    protocol: Protocol, results: Sequence[Result], words: Mapping[str, str]
) -> list[str]:
    dense = dense_of(results, ALL_WINDOWS)
    rows = _ordered(rows_of(results, ALL_WINDOWS), words)
    if dense is None or not rows:
        return []
    text = next(iter(dense.perplexity))
    title = f"Perplexity, {text}: all {protocol['all_windows']} windows; in brackets over dense"
    return _by_sparsity(title, rows, _over_dense(text, dense), dense.perplexity[text])


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return ["", f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines)]
