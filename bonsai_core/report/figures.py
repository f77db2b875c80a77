"""Figures as numbers: where things stand in a drawing. The page's template draws them as SVG."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 460
"""Of every figure, in units of its own; the page scales it."""

_HEIGHT = 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 20, 16, 44
_ROW, _GAP, _LABELS = 28, 4, 116
_MARGIN = 0.04
"""Of an axis, beyond what it holds, so that no point lies on its end."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A point, what it says when it is pointed at, and what is written beside it."""

    x: float
    y: float
    title: str
    label: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Points of one kind; `path` joins them where they have an order."""

    name: str
    dots: Sequence[Dot]
    path: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes.

    Attributes:
        diagonal: the ends of the line on which both axes say the same; None: there is none.
    """

    title: str
    x_name: str
    y_name: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    lines: Sequence[Line]
    diagonal: tuple[float, float, float, float] | None = None
    width: float = WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = _HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Point:
    """What a chart shows of one thing: its two numbers, and words."""

    x: float
    y: float
    title: str
    label: str = ""


def chart(
    title: str,
    lines: Mapping[str, Sequence[Point]],
    *,
    x_name: str,
    y_name: str,
    joined: bool = True,
    square: bool = False,
    whole_x: bool = False,
) -> Chart | None:
    """Lines by name, over axes that hold all of them; None where there is nothing to show.

    Args:
        title: what the figure shows.
        lines: points by the name of their line.
        x_name: what the horizontal axis says, with its unit.
        y_name: what the vertical axis says, with its unit.
        joined: whether the points of a line have an order.
        square: both axes are of one kind, so they have one range and a diagonal.
        whole_x: there is nothing between whole numbers.
    """
    points = [point for line in lines.values() for point in line]
    if not points:
        return None
    xs, ys = [point.x for point in points], [point.y for point in points]
    if square:
        xs = ys = [*xs, *ys]
    x_ticks, y_ticks = ticks(min(xs), max(xs), 6, whole=whole_x), ticks(min(ys), max(ys), 5)
    across = _Scale(x_ticks, xs, _LEFT, WIDTH - _RIGHT)
    up = _Scale(y_ticks, ys, _HEIGHT - _BOTTOM, _TOP)
    ends = (across.low, across.high)
    return Chart(
        title=title,
        x_name=x_name,
        y_name=y_name,
        x_ticks=[Tick(across(value), _plain(value)) for value in x_ticks],
        y_ticks=[Tick(up(value), _plain(value)) for value in y_ticks],
        lines=[_line(name, line, across, up, joined) for name, line in lines.items() if line],
        diagonal=(across(ends[0]), up(ends[0]), across(ends[1]), up(ends[1])) if square else None,
    )


class _Scale:
    """From values to places: those of the ticks and all values have room."""

    def __init__(
        self, marks: Sequence[float], values: Iterable[float], start: float, end: float
    ) -> None:
        held = [*marks, *values]
        self.low, self.high = min(held), max(held)
        margin = _MARGIN * (self.high - self.low) or 1.0
        self.low, self.high = self.low - margin, self.high + margin
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 2)


def _line(name: str, points: Sequence[Point], across: _Scale, up: _Scale, joined: bool) -> Line:
    dots = [Dot(across(p.x), up(p.y), p.title, p.label) for p in points]
    path = " ".join(f"{dot.x},{dot.y}" for dot in dots) if joined else ""
    return Line(name, dots, path)


def ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[float]:
    """At most so many round numbers that lie in a range; at least two that hold it otherwise."""
    if low == high:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    step = max(1.0, step) if whole else step
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    found = [round(number * step, 12) for number in range(first, last + 1)]
    return found if len(found) > 1 else [low, high]


def _plain(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Cell:
    """How much of one part of a layer is left.

    Attributes:
        share: from 0 to 1.
        title: the same in words.
    """

    x: float
    y: float
    width: float
    height: float
    share: float
    title: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A column for each layer, a row for each kind of unit."""

    cells: Sequence[Cell]
    rows: Sequence[Tick]
    layers: Sequence[Tick]
    width: float
    height: float


def heat_map(layers: Sequence[Mapping[str, Mapping[str, Any]]]) -> HeatMap:
    """What is left of each kind of unit in each layer; `layers` as a report has them."""
    kinds = list(dict.fromkeys(kind for layer in layers for kind in layer))
    step = (WIDTH - _LABELS) / max(1, len(layers))
    cells = []
    for number, layer in enumerate(layers):
        for row, kind in enumerate(kinds):
            if kind in layer:
                kept, before = layer[kind]["kept"], layer[kind]["before"]
                share = kept / before
                cells.append(
                    Cell(
                        x=round(_LABELS + number * step, 2),
                        y=row * (_ROW + _GAP),
                        width=round(max(1.0, step - min(2.0, step / 4)), 2),
                        height=_ROW,
                        share=round(share, 4),
                        title=f"layer {number}: {kept:,} of {before:,} {kind} ({share:.0%})",
                    )
                )
    every = max(1, math.ceil(len(layers) / 12))
    return HeatMap(
        cells=cells,
        rows=[Tick(row * (_ROW + _GAP) + _ROW / 2, kind) for row, kind in enumerate(kinds)],
        layers=[
            Tick(round(_LABELS + (number + 0.5) * step, 2), str(number))
            for number in range(0, len(layers), every)
        ],
        width=WIDTH,
        height=len(kinds) * (_ROW + _GAP) + 20,
    )
