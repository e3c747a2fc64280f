"""Numbers out of lines, and the picture of them."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farkernel.launcher.board_kernel import chart, numbers


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("1", {"1": 1.0}),
        ("1 2.5 -3e2", {"1": 1.0, "2": 2.5, "3": -300.0}),
        ("(1, 2, .5)", {"1": 1.0, "2": 2.0, "3": 0.5}),
        ("light: 3, sound=4.5", {"light": 3.0, "sound": 4.5}),
        ("temperature: 21.5 °C", {"temperature": 21.5}),
        ("t: 0.10, height: 1.9, speed: -0.5", {"t": 0.1, "height": 1.9, "speed": -0.5}),
        ("hello", None),
        ("", None),
        ("version: 1.2.3", None),
        ("3 apples", None),
        ("at 12:30", None),
    ],
)
def test_lines(line: str, values: dict[str, float] | None) -> None:
    assert numbers.read(line) == values


@given(st.text(max_size=1200))
def test_any_line_is_read(line: str) -> None:
    values = numbers.read(line)
    assert values is None or (values and all(isinstance(value, float) for value in values.values()))


def test_a_table_of_series() -> None:
    table = numbers.Table(["light"], window=2, x="t")
    for step in range(4):
        table.add({"t": step * 10.0, "1": float(step), "other": 1.0})
    assert table.series["light"].points == [(20.0, 2.0), (30.0, 3.0)]
    assert table.series["other"].total == 4
    assert table.lines == 4


def test_long_series_keep_their_shape() -> None:
    series = numbers.Series("a", most=100)
    for step in range(10_000):
        series.add(step, step)
    assert len(series.points) <= 100
    assert series.points[0] == (0, 0)
    assert series.points[-1][0] > 9000
    assert series.last == 9999


finite = st.floats(allow_nan=True, allow_infinity=True)


@given(st.lists(st.tuples(finite, finite), max_size=30), st.text())
def test_any_numbers_make_a_picture(points: list[tuple[float, float]], name: str) -> None:
    root = ElementTree.fromstring(chart.draw([numbers.Series(name, points=points)], title="<&>"))
    assert root.tag.endswith("svg")
    assert "nan" not in " ".join(line.get("points", "") for line in root.iter())


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_are_round_and_reach_around(low: float, size: float) -> None:
    high = low + size
    found = chart.ticks(low, high, 6)
    assert 2 <= len(found) <= 14
    slack = (found[1] - found[0]) * 1e-6 + abs(low) * 1e-9
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert all(math.isfinite(each) for each in found)


def test_labels() -> None:
    assert chart.label(0.5, [0.0, 0.5]) == "0.5"
    assert chart.label(-0.0, [0.0, 1.0]) == "0"
    assert chart.label(2.25, [2.0, 2.25]) == "2.25"
    assert chart.label(3e6, [0, 1e6]) == "3e+06"
    assert chart.label(1500, [0, 500]) == "1,500"


def test_many_points_are_thinned() -> None:
    places = [(x / 100, math.sin(x)) for x in range(10_000)]
    found = chart.thinned(places)
    assert len(found) <= 400
    assert max(y for _, y in found) == max(y for _, y in places)


def test_one_line_of_text() -> None:
    assert chart.spark(numbers.Series("a", points=[(0, 0), (1, 1), (2, 0.5)])) == "▁█▄"
    assert chart.spark(numbers.Series("a")) == ""
