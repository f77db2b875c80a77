"""Figures put numbers where they belong."""

from itertools import pairwise

import pytest

from bonsai_core.report.figures import Point, chart, heat_map, ticks


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.001, 0.0013), (-7.2, 3.9), (12, 13.5), (1e6, 3.2e7), (-1e-9, 0)]
)
@pytest.mark.parametrize("most", [5, 8])
def test_ticks_are_few_round_and_inside(low: float, high: float, most: int) -> None:
    found = ticks(low, high, most)
    assert 2 <= len(found) <= most + 1
    margin = 1e-9 * (high - low)
    assert low - margin <= found[0] < found[-1] <= high + margin
    steps = {round((b - a) / (high - low), 6) for a, b in pairwise(found)}
    assert len(steps) == 1


def test_rounds_are_whole() -> None:
    assert ticks(1, 3, 8, whole=True) == [1, 2, 3]
    assert ticks(4, 4, 8, whole=True) == [4]


def test_a_chart_holds_its_points_in_order() -> None:
    points = [Point(0, 10, "a"), Point(1, 30, "b"), Point(2, 20, "c", "knee")]
    found = chart("title", {"one": points}, x_name="x", y_name="y")
    assert found is not None
    [line] = found.lines
    xs, ys = [dot.x for dot in line.dots], [dot.y for dot in line.dots]
    assert found.left < xs[0] < xs[1] < xs[2] < found.right
    assert found.bottom > ys[0] > ys[2] > ys[1] > found.top  # higher is further up
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.02)
    assert line.dots[2].label == "knee"
    ten = next(tick for tick in found.y_ticks if tick.label == "10")
    assert ten.at == ys[0]


def test_equal_numbers_have_a_place_too() -> None:
    found = chart("title", {"one": [Point(1, 5, "a")]}, x_name="x", y_name="y", square=False)
    assert found is not None
    [dot] = found.lines[0].dots
    assert found.left < dot.x < found.right
    assert found.top < dot.y < found.bottom


def test_what_has_no_points_is_not_drawn() -> None:
    assert chart("title", {"one": []}, x_name="x", y_name="y") is None


def test_the_diagonal_is_where_both_axes_say_the_same() -> None:
    points = [Point(1, 3, "a"), Point(4, 2, "b")]
    found = chart("title", {"one": points}, x_name="x", y_name="y", joined=False, square=True)
    assert found is not None
    assert found.diagonal is not None
    x0, y0, x1, y1 = found.diagonal
    for across, up in zip(found.x_ticks, found.y_ticks, strict=False):
        if across.label == up.label:
            assert (up.at - y0) / (y1 - y0) == pytest.approx((across.at - x0) / (x1 - x0), abs=1e-3)
    assert found.lines[0].path == ""


def test_a_heat_map_has_a_cell_for_each_kind_of_each_layer() -> None:
    full, half = {"kept": 8, "before": 8}, {"kept": 4, "before": 8}
    layers = [{"attention groups": full, "MLP channels": half}, {"MLP channels": full}]
    found = heat_map(layers)
    assert [cell.share for cell in found.cells] == [1, 0.5, 1]
    assert "layer 0: 4 of 8 MLP channels (50%)" in [cell.title for cell in found.cells]
    assert all(cell.x + cell.width <= found.width for cell in found.cells)
    assert found.cells[1].y == found.cells[2].y > found.cells[0].y
