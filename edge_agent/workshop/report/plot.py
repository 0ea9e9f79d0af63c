"""Plots as inline SVG: curves and named points. Colours are the page's CSS variables, so they suit its background.

A number that is not finite, or beyond HUGE, is left out; all text is escaped.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Point = tuple[float, float]
Named = tuple[float, float, str]
P = TypeVar("P", Point, Named)

WIDE, HIGH = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 12, 44
"""margins around the area of the curves"""
COLOURS = 6
LETTER = 6.2
"""width of a letter of 11 px, about"""
HUGE, TINY = 1e100, 1e-100


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves, and points with names."""

    title: str
    x: str
    y: str
    series: dict[str, list[Point]]
    named: list[Named] = field(default_factory=list)
    """(x, y, name)"""


def front(points: Iterable[Named]) -> list[Point]:
    """Those that no other beats, less x and more y being better (the Pareto front), from left to right."""
    best: list[Point] = []
    for x, y, _ in sorted(_finite(points), key=lambda point: (point[0], -point[1])):
        if not best or y > best[-1][1]:
            best.append((x, y))
    return best


def draw(plot: Plot) -> str:
    """The SVG element of a plot; one that says so where there is nothing to draw."""
    curves = {name: kept for name, points in plot.series.items() if (kept := _finite(points))}
    named = _finite(plot.named)
    every = [*itertools.chain.from_iterable(curves.values()), *(point[:2] for point in named)]
    if not every:
        nothing = f'<text x="{WIDE / 2}" y="{HIGH / 2}" text-anchor="middle">nothing to show</text>'
        return _svg(plot.title, [nothing])
    area = _Area(*(_ticks(one) for one in zip(*every, strict=True)))
    parts = [*_axes(plot, area)]
    for number, points in enumerate(curves.values()):
        parts += _curve([area.at(*point) for point in points], f"var(--s{number % COLOURS})", bool(named))
    parts += _names([(*area.at(x, y), name) for x, y, name in named])
    return _svg(plot.title, parts) + _legend(plot, curves)


def text(value: str) -> str:
    """A text on one line, without what steers a terminal or is no character of HTML."""
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "�" for letter in value)


def escape(value: object) -> str:
    """A value as text or attribute of SVG and HTML."""
    return html.escape(text(str(value)))


# ── the parts ────────────────────────────────────────────────────────────────────────────────────────────


def _svg(title: str, parts: Iterable[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(title)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Area:
    """Where the curves are; numbers on either axis, from its one end to its other."""

    xs: list[float]
    ys: list[float]

    def at(self, x: float, y: float) -> Point:
        """Where a point is drawn."""
        across = (x - self.xs[0]) / (self.xs[-1] - self.xs[0]) * (WIDE - LEFT - RIGHT)
        up = (y - self.ys[0]) / (self.ys[-1] - self.ys[0]) * (HIGH - TOP - BOTTOM)
        return LEFT + across, HIGH - BOTTOM - up


def _axes(plot: Plot, area: _Area) -> Iterator[str]:
    left, low = area.at(area.xs[0], area.ys[0])
    for value in area.xs:
        x, _ = area.at(value, area.ys[0])
        yield f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{low:.1f}"/>'
        yield f'<text class="soft" x="{x:.1f}" y="{low + 15:.1f}" text-anchor="middle">{_tick(value)}</text>'
    for value in area.ys:
        _, y = area.at(area.xs[0], value)
        yield f'<line class="rule" x1="{left:.1f}" x2="{WIDE - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="soft" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_tick(value)}</text>'
    middle = (LEFT + WIDE - RIGHT) / 2
    yield f'<text x="{middle:.1f}" y="{HIGH - 10}" text-anchor="middle">{escape(_short(plot.x, 70))}</text>'
    turned = (TOP + HIGH - BOTTOM) / 2
    place = f'transform="translate(13 {turned:.1f}) rotate(-90)" text-anchor="middle"'
    yield f"<text {place}>{escape(_short(plot.y, 40))}</text>"


def _curve(points: list[Point], colour: str, thin: bool) -> Iterator[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="4 4"' if thin else ""
    yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{1.2 if thin else 1.8}"{dash}/>'
    if len(points) <= 60 and not thin:
        yield "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in points)


def _names(points: list[Named]) -> Iterator[str]:
    """Dots, and each one's name near it, upon no dot and no other name as long as there is room."""
    taken: list[Box] = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y, _ in points]
    for x, y, name in sorted(points, key=lambda point: (point[1], point[0])):
        said = _short(name, 34)
        length = LETTER * len(said)
        box = next((one for one in _beside(x, y, length) if not any(_overlap(one, other) for other in taken)), None)
        box = box or next(_beside(x, y, length))
        taken.append(box)
        start, height = box[0], box[3] - 3
        if abs(height - 4 - y) > 10:
            yield f'<line class="rule" x1="{x:.1f}" y1="{y:.1f}" x2="{start:.1f}" y2="{height - 4:.1f}"/>'
        yield (
            f'<text class="halo" x="{start:.1f}" y="{height:.1f}"><title>{escape(name)}</title>{escape(said)}</text>'
        )
    for x, y, _ in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="var(--s1)"/>'


Box = tuple[float, float, float, float]
"""left, top, right, bottom"""
DOT = 5.0
"""half the side of the room that a dot takes"""


def _beside(x: float, y: float, length: float) -> Iterator[Box]:
    """Where the name of a dot may stand, the nearest first: right or left of it, higher and lower."""
    starts = [one for one in (x + 7, x - 7 - length) if one >= 2 and one + length <= WIDE] or [max(2, WIDE - length)]
    for step in range(12):
        for down in dict.fromkeys((12 * step, -12 * step)):
            if TOP <= y + down <= HIGH - BOTTOM or not step:
                yield from ((start, y + down - 6, start + length, y + down + 7) for start in starts)


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend(plot: Plot, names: Iterable[str]) -> str:
    """Which colour is which curve, below the plot; nothing for one alone."""
    if len(plot.series) < 2 and not plot.named:
        return ""
    keys = (f'<i style="background:var(--s{at % COLOURS})"></i>{escape(name)}' for at, name in enumerate(names))
    return f'<p class="key">{" ".join(f"<span>{key}</span>" for key in keys)}</p>'


def _ticks(values: Sequence[float]) -> list[float]:
    """3 to 8 round numbers around all of the values, a step of 1, 2 or 5 times a power of ten apart."""
    low, high = min(values), max(values)
    if high - low <= max(abs(low), abs(high), TINY) * 1e-9:
        pad = max(abs(low), abs(high)) * 0.1
        pad = pad if pad > TINY else 1.0
        low, high = low - pad, high + pad
    rough = high / 5 - low / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((power * times for times in (1, 2, 5) if power * times >= rough), power * 10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, last + 1)]


def _tick(value: float) -> str:
    return f"{value:,.0f}" if value and 1000 <= abs(value) < 1e6 else f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _short(name: str, most: int) -> str:
    """The end of a long name is what tells it apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _finite(points: Iterable[P]) -> list[P]:
    return [point for point in points if all(abs(value) < HUGE for value in point[:2])]
