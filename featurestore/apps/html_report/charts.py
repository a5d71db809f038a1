"""Charts as SVG, in plain elements that the style sheet of the page colours: no ``style`` attribute, no script."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 12, 44  # margins
TICKS = 5  # along each axis, about
STEPS = (1, 2, 5)  # times a power of ten: the widths of bins and the distances of ticks


def nice_step(span: float, n: int) -> float:
    """Return the smallest of 1, 2 or 5 times a power of ten of which ``n`` reach over a span above 0."""
    raw = span / n
    power = 10.0 ** math.floor(math.log10(raw))
    return next((step * power for step in STEPS if step * power >= raw * (1 - 1e-9)), 10 * power)


@dataclass(frozen=True)
class _Axes:
    """The place of values in the chart: from ``first`` to ``last`` across, and from 0 to ``top`` up."""

    first: float
    last: float
    top: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def bar_chart(
    bars: Sequence[tuple[float, float, str]],
    *,
    name: str,
    title: str,
    description: str,
    labels: tuple[str, str],
    width: float = 1,
    line: Sequence[float] = (),
) -> str:
    """Return a chart of upright bars over an axis of numbers.

    Args:
        bars: of each its left end, its height, and its text; at least one.
        name: of the chart within the page.
        title: of the chart, for those who don't see it.
        description: the same.
        labels: of the two axes.
        width: of each bar, in the unit of its left end.
        line: heights of a line over the bars, a point in the middle of each; the axis reaches to its highest.
    """
    highest = max(max(height for _, height, _ in bars), max(line, default=0)) or 1
    step = nice_step(highest, TICKS)
    axes = _Axes(bars[0][0], bars[-1][0] + width, math.ceil(highest / step - 1e-9) * step)
    parts = [
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-about" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'xmlns="http://www.w3.org/2000/svg">',
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(description)}</desc>',
        *_scales(axes, step, labels),
    ]
    for left, height, text in bars:
        x, wide = axes.x(left), axes.x(left + width) - axes.x(left)
        gap = min(1.0, wide / 5)
        parts.append(
            f'<rect class="bar" x="{x + gap / 2:.2f}" y="{axes.y(height):.2f}" width="{wide - gap:.2f}" '
            f'height="{axes.y(0) - axes.y(height):.2f}"><title>{escape(text)}</title></rect>'
        )
    if line:
        places = [(axes.x(left + width / 2), axes.y(value)) for (left, _, _), value in zip(bars, line, strict=True)]
        parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    return "".join([*parts, "</svg>"])


def _scales(axes: _Axes, step: float, labels: tuple[str, str]) -> Iterator[str]:
    """Yield the lines of the grid, the ticks and the labels."""
    for value in _ticks(0, axes.top, step):
        y = axes.y(value)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick end" x="{LEFT - 6}" y="{y + 4:.1f}">{_label(value)}</text>'
    for value in _ticks(axes.first, axes.last, nice_step(axes.last - axes.first, TICKS)):
        yield f'<text class="tick middle" x="{axes.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}">{_label(value)}</text>'
    across, up = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    yield f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{axes.y(0):.1f}" y2="{axes.y(0):.1f}"/>'
    yield f'<text class="label middle" x="{across:.0f}" y="{HEIGHT - 8}">{escape(labels[0])}</text>'
    yield (f'<text class="label middle" transform="translate(13 {up:.0f}) rotate(-90)">{escape(labels[1])}</text>')


def meter(value: float, largest: float) -> str:
    """Return a bar beside a number in a table; the number says the same to those who don't see it."""
    width = max(0.0, min(100.0, 100 * value / largest))
    return (
        '<svg class="meter" aria-hidden="true" focusable="false" viewBox="0 0 100 8" preserveAspectRatio="none" '
        f'xmlns="http://www.w3.org/2000/svg"><rect class="bar" width="{width:.1f}" height="8"/></svg>'
    )


def keypoint_circles(keypoints: Sequence[tuple[float, float, float, float]]) -> str:
    """Return keypoints ``(x, y, size, angle)`` as one path: a circle of each size, and a radius at its angle."""
    parts = []
    for x, y, size, angle in keypoints:
        radius = max(size / 2, 0.5)
        right, down = radius * math.cos(math.radians(angle)), radius * math.sin(math.radians(angle))
        r = f"{radius:.3g}"
        parts.append(f"M{x - radius:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * radius:.3g} 0a{r} {r} 0 1 0 {-2 * radius:.3g} 0")
        parts.append(f"M{x:.1f} {y:.1f}l{right:.3g} {down:.3g}")
    return f'<path d="{"".join(parts)}"/>'


def _ticks(first: float, last: float, step: float) -> list[float]:
    begin = math.ceil(first / step - 1e-9)
    return [number * step for number in range(begin, math.floor(last / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"
