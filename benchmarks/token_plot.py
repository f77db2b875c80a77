"""Perplexity against forward tokens spent: ours and the paper's recipe, in one picture.

`python -m benchmarks.token_plot`: from the results of `benchmarks.quality`, whatever calibration
and budget they had, as long as the model and the evaluation are the same. Writes an SVG, and beside
it a table with the ratio of the tokens that both spend for the same perplexity.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality import OURS, PAPER, RESULTS, SPARSITIES
from benchmarks.results import STANDARD, Results

SHOWN = {OURS: "o", PAPER: "s", "obs-mlp-refit": "^", "wanda-mlp-refit": "v"}
"""The methods in the picture, with their marks."""
TEXT = "evaluation"


@dataclass(frozen=True, slots=True)
class Point:
    """What one method reached with one budget: medians over the seeds."""

    method: str
    budget: str
    sparsity: float
    tokens: float
    perplexity: float
    seeds: int


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument(
        "--protocol", help="digest of one of the protocols; the first one if absent"
    )
    parser.add_argument("--sparsities", default="0.2,0.5", help="a picture for each")
    wish = parser.parse_args(arguments)
    protocols = protocols_of(wish.results)
    if not protocols:
        raise SystemExit(f"there are no results in {wish.results}; run benchmarks.quality first")
    chosen = wish.protocol or next(iter(protocols))
    points = points_of(Results(wish.results), alike(protocols, chosen))
    dense = dense_perplexity(Results(wish.results), chosen)
    sparsities = [float(part) for part in wish.sparsities.split(",")]
    name = wish.results / f"tokens-{chosen}"
    draw(points, sparsities, dense, name.with_suffix(".svg"))
    name.with_suffix(".md").write_text(table(points, protocols[chosen], dense))
    print(name.with_suffix(".svg"))


def protocols_of(folder: Path) -> dict[str, Mapping[str, Any]]:
    """All protocols of a folder by digest, the oldest first."""
    paths = sorted((folder / "protocols").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return {path.stem: json.loads(path.read_text()) for path in paths}


def alike(protocols: Mapping[str, Mapping[str, Any]], chosen: str) -> dict[str, str]:
    """Protocols of the same model and evaluation, by digest: the words for their calibration."""

    def exam(protocol: Mapping[str, Any]) -> list[Any]:
        kept = ("model", "dtype", "device", "window", "windows", "predictions", "sparsity")
        return [protocol["texts"][TEXT], *(protocol[name] for name in kept)]

    return {
        digest: ", ".join(f"{name} {value}" for name, value in protocol["calibration"].items())
        for digest, protocol in protocols.items()
        if exam(protocol) == exam(protocols[chosen])
    }


def points_of(results: Results, calibrations: Mapping[str, str]) -> list[Point]:
    """Medians over the seeds of all results under these protocols, cheapest first."""
    found = defaultdict(list)
    for digest, calibration in calibrations.items():
        for result in results.of(digest):
            key = result.key
            if key.method in SHOWN and key.part == STANDARD and key.sparsity in SPARSITIES:
                # The paper's recipe says its own calibration in its settings.
                words = [] if key.method == PAPER else [calibration]
                budget = ", ".join([*words, *([key.settings] if key.settings else [])])
                found[key.method, budget, key.sparsity].append(result)
    points = [
        Point(
            *key,
            tokens=statistics.median(result.forward_tokens for result in group),
            perplexity=statistics.median(result.perplexity[TEXT] for result in group),
            seeds=len(group),
        )
        for key, group in found.items()
    ]
    return sorted(points, key=lambda point: point.tokens)


def dense_perplexity(results: Results, digest: str) -> float:
    """Of the dense model on the evaluation text."""
    return next(r.perplexity[TEXT] for r in results.of(digest) if r.key.method == "dense")


def draw(points: Sequence[Point], sparsities: Sequence[float], dense: float, path: Path) -> None:
    """One picture for each sparsity, side by side; both axes are logarithmic.

    All points are drawn, and those of a method joined that none of its cheaper ones equals.
    """
    try:
        from matplotlib import rc_context  # noqa: PLC0415 - only who draws needs it
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.ticker import LogLocator  # noqa: PLC0415
    except ImportError:
        raise SystemExit(
            "matplotlib is needed: pip install -c constraints.txt -e '.[bench]'"
        ) from None
    figure = Figure(figsize=(5.2 * len(sparsities), 4.4), layout="constrained")
    pictures = figure.subplots(1, len(sparsities), squeeze=False)[0]
    for axes, sparsity in zip(pictures, sparsities, strict=True):
        _picture(axes, [point for point in points if point.sparsity == sparsity], dense)
        axes.set_title(f"{sparsity:.0%} of the parameters removed")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lines = {line.get_label(): line for axes in pictures for line in axes.lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines))
    # Without the date and with the same names of its parts, the same results give the same file.
    with rc_context({"svg.hashsalt": "bonsai"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _picture(axes: Any, points: Sequence[Point], dense: float) -> None:
    for number, (method, mark) in enumerate(SHOWN.items()):
        drawn = [point for point in points if point.method == method]
        if drawn:
            colour, joined = f"C{number}", frontier(drawn)
            axes.scatter([p.tokens for p in drawn], [p.perplexity for p in drawn], 12, colour)
            tokens, perplexities = [p.tokens for p in joined], [p.perplexity for p in joined]
            axes.plot(tokens, perplexities, color=colour, marker=mark, label=method)
    axes.axhline(dense, color="grey", linestyle=":", label="dense")
    axes.set(xscale="log", yscale="log", xlabel="forward tokens spent", ylabel="perplexity")
    axes.xaxis.set_major_formatter(_tokens)
    axes.xaxis.set_minor_formatter("")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("{x:.0f}")
    axes.grid(which="both", alpha=0.25)


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those that no cheaper one equals, cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.tokens, point.perplexity)):
        if not found or point.perplexity < found[-1].perplexity:
            found.append(point)
    return found


def _tokens(count: float, _place: object) -> str:
    return f"{count / 1e6:g} M" if count >= 1e6 else f"{count / 1e3:g} k"


def table(points: Sequence[Point], protocol: Mapping[str, Any], dense: float) -> str:
    """All points, and what ours spends where the paper's recipe reaches the same."""
    ordered = sorted(points, key=lambda point: (point.sparsity, point.method, point.tokens))
    lines = [
        f"# Perplexity against forward tokens: {protocol['model']['name']}",
        "",
        f"Evaluation as in the tables of quality; dense {dense:.2f}. Medians over the seeds.",
        "",
        "| sparsity | method | budget | seeds | forward tokens | perplexity |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {p.sparsity:.0%} | {p.method} | {p.budget} | {p.seeds} {_cost(p)}" for p in ordered),
        *("", "## The same perplexity or a better one", ""),
        "For each point of the paper's recipe, the cheapest of ours that is not worse.",
        "",
        "| sparsity | the paper's | tokens | perplexity | ours | tokens | perplexity | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_equal(point, ordered) for point in ordered if point.method == PAPER),
    ]
    return "\n".join(lines) + "\n"


def _equal(paper: Point, points: Iterable[Point]) -> str:
    start = f"| {paper.sparsity:.0%} | {paper.budget} {_cost(paper)}"
    as_good = [
        point
        for point in points
        if point.method == OURS
        and point.sparsity == paper.sparsity
        and point.perplexity <= paper.perplexity
    ]
    if not as_good:
        return f"{start} none | | | |"
    ours = min(as_good, key=lambda point: point.tokens)
    return f"{start} {ours.budget} {_cost(ours)} {ours.tokens / paper.tokens:.3f} |"


def _cost(point: Point) -> str:
    return f"| {point.tokens:,.0f} | {point.perplexity:.2f} |"


if __name__ == "__main__":
    main()
