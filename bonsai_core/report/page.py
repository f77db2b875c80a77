"""A report as one page that needs nothing else: no scripts, no fonts, no requests."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bonsai_core.report.figures import Chart, Point, chart, heat_map

Contents = Mapping[str, Any]

_WORDS = {
    "calibration": "calibration text",
    "own": "the dense model's own text",
    "given": "given text",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of models.

    Attributes:
        cells: a number for each model, the dense one first, written out; "" where there is none.
        changes: of each result, relative to the dense model; "" where that says nothing.
    """

    name: str
    cells: Sequence[str]
    changes: Sequence[str]


def page(report: Contents) -> str:
    """The page of a report, from what `contents` gives."""
    environment = Environment(
        loader=PackageLoader("bonsai_core.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        report=report,
        models=[report["dense"], *report["results"]],
        rows=list(rows(report)),
        heat_maps=[(result["name"], heat_map(result["layers"])) for result in report["results"]],
        rounds=list(rounds(report)),
        fits=list(fits(report)),
        expectations=list(expectations(report)),
        trade=list(trade(report)),
        words=_WORDS,
        request=json.dumps(report["request"], indent=1),
    )


def rows(report: Contents) -> Iterator[Row]:
    """The table of models."""
    models = [report["dense"], *report["results"]]
    found = [model["measurement"] for model in models]
    yield from _sizes(report, found)
    texts: list[str] = next((list(one["perplexity"]) for one in found if one), [])
    for text in texts:
        values = [one and one["perplexity"][text] for one in found]
        yield _row(f"perplexity, {_WORDS[text]}", values, ".2f")
    on_trials = [model["perplexity"] for model in models]
    yield _row("perplexity, sequences of the trials", on_trials, ".2f")
    for title in report["dense"]["utilities"]:
        values = [model["utilities"].get(title) for model in models]
        yield _row(f"utility {title}", values, ".4f", relative=False)
    if not any(found):
        return
    yield _row(
        "questions answered right", [_of(one, "accuracy") for one in found], ".1%", relative=False
    )
    yield _row("lead of the right answer, nats", [_of(one, "margin") for one in found], ".2f")
    for name, key in (("reading", "prefill"), ("writing", "decode")):
        values = [_of(one, f"{key}_tokens_per_second") for one in found]
        yield _row(f"{name}, tokens per second", values, ",.1f")


def _sizes(report: Contents, found: Sequence[Any]) -> Iterator[Row]:
    """What is smaller; counted by the manifest where a model was not measured."""
    for name, key in (
        ("parameters", "parameters"),
        ("parameters outside the embeddings", "non_embedding_parameters"),
    ):
        values = [
            _of(one, key) or model.get(key)
            for one, model in zip(found, [report["dense"], *report["results"]], strict=True)
        ]
        yield _row(name, values, ",.0f")
    for name, key in (
        ("files, MB", "file_bytes"),
        ("weights in memory, MB", "weight_bytes"),
        ("memory of the device in use, at most, MB", "peak_memory_bytes"),
    ):
        values = [value and value / 1e6 for value in (_of(one, key) for one in found)]
        if any(values):
            yield _row(name, values, ",.1f")


def _of(measurement: Any, key: str) -> Any:
    return measurement and measurement[key]


def _row(name: str, values: Sequence[Any], form: str, relative: bool = True) -> Row:
    dense = values[0]
    changes = [
        f"\N{MULTIPLICATION SIGN} {value / dense:.3f}"
        if relative and dense and value is not None
        else ""
        for value in values[1:]
    ]
    return Row(name, ["" if value is None else format(value, form) for value in values], changes)


def rounds(report: Contents) -> Iterator[Chart]:
    """Perplexity and utility over the rounds, a line for each result."""
    perplexities: dict[str, list[Point]] = {}
    for result in report["results"]:
        dense = Point(0, report["dense"]["perplexity"], "dense")
        perplexities[result["name"]] = [
            dense,
            *(
                Point(
                    record["number"],
                    record["perplexity"],
                    f"round {record['number']}: {record['perplexity']:.2f} at a sparsity of "
                    f"{record['sparsity']:.1%}",
                )
                for record in result["rounds"]
            ),
        ]
    found = chart(
        "Perplexity after each round, on the sequences of the trials",
        perplexities,
        x_name="round",
        y_name="perplexity",
        whole_x=True,
    )
    if found:
        yield found
    yield from _utilities(report)


def _utilities(report: Contents) -> Iterator[Chart]:
    for result in report["results"]:
        tried = [record for record in result["rounds"] if record["utilities"]]
        lines = {
            name: [
                Point(
                    record["number"],
                    record["utilities"][place],
                    f"round {record['number']}: {name} of {record['trials']} trials "
                    f"{record['utilities'][place]:.4g}",
                )
                for record in tried
            ]
            for place, name in ((2, "greatest"), (1, "median"), (0, "least"))
        }
        title = f"Utility of the trials of each round, {result['name']}"
        found = chart(title, lines, x_name="round", y_name="utility", whole_x=True)
        if found:
            yield found


def fits(report: Contents) -> Iterator[tuple[str, Chart]]:
    """How well each round's fit tells the utility of a mask from all others, with how much of it
    that explains."""
    for result in report["results"]:
        for record in result["rounds"]:
            points = [
                Point(predicted, measured, f"predicted {predicted:.4g}, measured {measured:.4g}")
                for predicted, measured in record["predictions"]
            ]
            title = f"Round {record['number']}, {result['name']}"
            drawn = chart(
                title,
                {"masks": points},
                x_name="utility predicted from the other masks",
                y_name="utility measured",
                joined=False,
                square=True,
            )
            if drawn:
                explained = record["notes"].get("explained")
                yield ("" if explained is None else f"{explained:.1%}"), drawn


@dataclass(frozen=True, slots=True)
class Expectation:
    """What was expected of a plan, and what it was found to be worth in the next round."""

    result: str
    round: int
    before: float | None
    expected: float
    found: float


def expectations(report: Contents) -> Iterator[Expectation]:
    """Of each plan that a measurement followed."""
    for result in report["results"]:
        for record, after in zip(result["rounds"], result["rounds"][1:], strict=False):
            expected = record["notes"].get("expected_utility")
            found = after["notes"].get("plan_utility")
            if expected is not None and found is not None:
                before = record["notes"].get("plan_utility")
                yield Expectation(result["name"], record["number"], before, expected, found)


def trade(report: Contents) -> Iterator[Chart]:
    """What smaller models cost, where there are several: perplexity and speed over size."""
    models = [report["dense"], *report["results"]]
    measured = [(model["name"], model["measurement"]) for model in models]
    if len(report["results"]) == 1 or not all(one for _, one in measured):
        return
    texts: dict[str, list[Point]] = {}
    for text in measured[0][1]["perplexity"]:
        texts[_WORDS[text]] = [
            _sized(report, name, one, one["perplexity"][text]) for name, one in measured
        ]
    speeds = {
        word: [_sized(report, name, one, one[f"{key}_tokens_per_second"]) for name, one in measured]
        for word, key in (("reading", "prefill"), ("writing", "decode"))
    }
    drawn = [
        chart("Perplexity over size", texts, x_name="million parameters", y_name="perplexity"),
        *(
            chart(
                f"Speed of {word} over size",
                {word: points},
                x_name="million parameters",
                y_name="tokens per second",
            )
            for word, points in speeds.items()
        ),
    ]
    yield from (one for one in drawn if one)


def _sized(report: Contents, name: str, found: Mapping[str, Any], value: float) -> Point:
    label = "dense" if name == "dense" else "knee" if name == report["knee"] else ""
    return Point(found["parameters"] / 1e6, value, f"{name}: {value:,.2f}", label)
