"""Plots as inline SVG: colors come from the page's style sheet, so they follow light, dark and print.

Coordinates are in a box of ``_WIDTH`` units that scales with the page; y grows downward.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 360, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 42, 12, 12, 36
_MOST_POINTS = 160


def line_chart(series: Mapping[str, Points], *, title: str, x_label: str, y_label: str) -> str:
    """Return a line per series, whose name is also its CSS class; a series of one point becomes a dot.

    Long series are averaged in bins, so that a noisy curve stays readable and the file small.
    """
    shown = {
        name: _binned([p for p in points if all(map(math.isfinite, p))]) for name, points in series.items()
    }
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return ""
    xs, ys = zip(*(point for points in shown.values() for point in points), strict=True)
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))
    x_range, y_range = (
        (min(*xs, x_ticks[0]), max(*xs, x_ticks[-1])),
        (min(*ys, y_ticks[0]), max(*ys, y_ticks[-1])),
    )
    parts = _axes(x_ticks, y_ticks, x_range, y_range, x_label, y_label)
    for name, points in shown.items():
        places = [(_x(x, x_range), _y(y, y_range)) for x, y in points]
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(places))
        parts.append(f'<path class="line {escape(name)}" d="{path}"/>')
        if len(places) <= 12:
            parts += [
                f'<circle class="dot {escape(name)}" cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>' for x, y in places
            ]
    return _svg(title, parts)


def histogram(series: Mapping[str, Sequence[float]], *, title: str, x_label: str, num_bins: int = 16) -> str:
    """Return bars side by side that count how many values of each series fall into each bin."""
    values = [value for numbers in series.values() for value in numbers]
    if not values:
        return ""
    ticks = _ticks(0, max(*values, 1.0))
    top = max(ticks[-1], *values)
    width = top / num_bins
    counts = {
        name: [
            sum(min(int(value / width), num_bins - 1) == bin_ for value in numbers)
            for bin_ in range(num_bins)
        ]
        for name, numbers in series.items()
    }
    highest = max(max(row) for row in counts.values())
    y_ticks = _ticks(0, highest)
    x_range, y_range = (0.0, top), (0.0, max(y_ticks[-1], float(highest)))
    parts = _axes(ticks, y_ticks, x_range, y_range, x_label, "replies")
    bar = (_x(width, x_range) - _x(0, x_range)) * 0.84 / len(counts)
    for place, (name, row) in enumerate(counts.items()):
        for bin_, count in enumerate(row):
            if count:
                x, y = _x((bin_ + 0.08) * width, x_range) + place * bar, _y(count, y_range)
                height = _y(0, y_range) - y
                box = f'x="{x:.1f}" y="{y:.1f}" width="{bar:.1f}" height="{height:.1f}"'
                parts.append(f'<rect class="bar {escape(name)}" {box}/>')
    return _svg(title, parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return f"{head}<title>{escape(title)}</title>{''.join(parts)}</svg>"


def _x(value: float, bounds: tuple[float, float]) -> float:
    span = bounds[1] - bounds[0] or 1.0
    return _LEFT + (value - bounds[0]) / span * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, bounds: tuple[float, float]) -> float:
    span = bounds[1] - bounds[0] or 1.0
    return _HEIGHT - _BOTTOM - (value - bounds[0]) / span * (_HEIGHT - _TOP - _BOTTOM)


def _axes(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str,
    y_label: str,
) -> list[str]:
    floor, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = []
    for tick in y_ticks:
        y = _y(tick, y_range)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text class="y" x="{_LEFT - 6}" y="{y + 3.5:.1f}">{_number(tick)}</text>')
    for tick in x_ticks:
        parts.append(f'<text class="x" x="{_x(tick, x_range):.1f}" y="{floor + 14}">{_number(tick)}</text>')
    parts.append(
        f'<text class="x label" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 5}">{escape(x_label)}</text>'
    )
    middle = (_TOP + floor) / 2
    parts.append(
        f'<text class="x label" transform="translate(10 {middle}) rotate(-90)">{escape(y_label)}</text>'
    )
    return parts


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most ``most + 1`` round numbers that lie from about ``low`` to about ``high``."""
    if high <= low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)] or [low]


def _number(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}" if abs(value) >= 1e-9 else "0"


def _binned(points: Points) -> Points:
    if len(points) <= _MOST_POINTS:
        return points
    size = math.ceil(len(points) / _MOST_POINTS)
    bins = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in bins]
