"""The plots: well-formed SVG whose marks stand where the numbers are."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picollm.eval.plots import histogram, line_chart

numbers = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=400))
def test_any_curve_stays_inside_its_box(points: list[tuple[float, float]]) -> None:
    svg = line_chart({"base": points}, title="a <b> & c", x_label="x", y_label="y")
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    (path,) = [element for element in root if element.attrib.get("class") == "line base"]
    places = [tuple(map(float, pair)) for pair in re.findall(r"[ML](\S+) (\S+)", path.attrib["d"])]
    assert 1 <= len(places) <= len(points)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_lower_loss_is_drawn_lower_and_later_steps_further_right() -> None:
    svg = line_chart({"sft": [(0, 4.0), (10, 2.0), (20, 1.0)]}, title="t", x_label="x", y_label="y")
    path = re.search(r'class="line sft" d="([^"]+)"', svg)
    assert path is not None
    xs, ys = zip(*(tuple(map(float, pair)) for pair in re.findall(r"[ML](\S+) (\S+)", path[1])), strict=True)
    assert list(xs) == sorted(xs) and list(ys) == sorted(ys)
    assert ys[1] - ys[0] == pytest.approx(2 * (ys[2] - ys[1]), abs=0.2)


def test_histogram_bars_hold_every_value() -> None:
    svg = histogram({"base": [96.0] * 5, "sft": [3.0, 30.0, 31.0]}, title="t", x_label="tokens")
    bars = [e for e in ET.fromstring(svg) if e.attrib.get("class", "").startswith("bar")]
    heights = {
        name: sum(float(b.attrib["height"]) for b in bars if b.attrib["class"] == f"bar {name}")
        for name in ("base", "sft")
    }
    assert heights["base"] / heights["sft"] == pytest.approx(5 / 3, rel=0.01)


def test_nothing_to_draw_is_nothing() -> None:
    assert line_chart({"base": []}, title="t", x_label="x", y_label="y") == ""
    assert line_chart({"base": [(0, math.nan)]}, title="t", x_label="x", y_label="y") == ""
    assert histogram({"base": []}, title="t", x_label="x") == ""
