"""What the benchmarks said, as a table, as JSON and as a picture."""

from __future__ import annotations

import html
import json
import math
import re
from pathlib import Path
from typing import Any

from tests.bench.measure import Row

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
ROW, LEFT, WIDE = 19, 520, 920
GOOD, BAD, PLAIN = "#2f7d4f", "#b3442f", "#8a8a8a"
AIMS = {
    1: "whole path beside the bare run of the stock file: processor time, one thread",
    2: "frames a second beside a default loop",
    3: "video file to acknowledged events beside Ultralytics",
    4: "start and memory",
    5: "installed size",
    6: "two models at once beside two default sessions",
    7: "text",
    8: "instructions before and behind the network",
    9: "latency, newest frame wins",
}


def show(value: float, unit: str) -> str:
    """A ratio with two digits, anything else with its unit."""
    return f"{value:.2f}" if not unit else f"{value:,.1f} {unit}"


def aim(row: Row) -> str:
    """≤ 0.96, or – where there is none."""
    if row.target is None:
        return "–"
    sign = {"<=": "≤", ">=": "≥", "<": "<"}[row.better]
    return f"{sign} {row.target:g}{' ' + row.unit if row.unit else ''}"


def line(row: Row) -> str:
    """One row of the table, Markdown."""
    mark = {True: "yes", False: "**no**", None: ""}[row.reached]
    cells = [str(row.aim), row.what, aim(row), show(row.value, row.unit), mark, row.ours, row.theirs, row.note]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| aim | what | to reach | found | reached | ours | theirs | |",
    "|---|---|---|---|---|---|---|---|",
)


def table(rows: list[Row], machine: dict[str, Any]) -> list[str]:
    """The table and what it was measured on, Markdown."""
    told = [
        f"{machine['cpu']}, {machine['cores']} cores, {machine['at']}, load {machine['load'][0]:.1f} at the start "
        f"and {machine['load'][1]:.1f} at the end"
        f"{'; quick: few rounds, so figures move by some per cent' if machine['quick'] else ''}.",
        "",
        *HEAD,
        *(line(row) for row in rows),
    ]
    asked = [row for row in rows if row.reached is not None]
    return [*told, "", f"{sum(bool(row.reached) for row in asked)} of {len(asked)} figures reach their aim."]


def refresh(document: Path, rows: list[Row], machine: dict[str, Any]) -> None:
    """Put the table between the markers of `document`."""
    text = document.read_text(encoding="utf-8")
    body = "\n".join([BEGIN, "", *table(rows, machine), "", END])
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    document.write_text(pattern.sub(lambda _: body, text), encoding="utf-8")


def dumped(rows: list[Row], machine: dict[str, Any]) -> str:
    """JSON."""
    return json.dumps({"machine": machine, "rows": [row.plain() for row in rows]}, indent=1, ensure_ascii=False) + "\n"


def undumped(text: str) -> list[Row]:
    """The rows of `dumped`."""
    return [Row(**{k: v for k, v in row.items() if k != "reached"}) for row in json.loads(text)["rows"]]


def svg(rows: list[Row]) -> str:
    """How far each figure is from its aim, as bars: to the right it is better, the line in the middle is the aim."""
    asked = [row for row in rows if row.target is not None]
    middle, half = (LEFT + WIDE) / 2, (WIDE - LEFT) / 2 - 84
    parts: list[str] = []
    y, told = 34, 0
    for row in sorted(asked, key=lambda row: row.aim):
        if row.aim != told:
            parts.append(f'<text x="8" y="{y + 10}" font-weight="bold">{row.aim}  {html.escape(AIMS[row.aim])}</text>')
            y, told = y + ROW, row.aim
        # twice as good is the whole way to the right, half as good the whole way to the left
        end = middle + half * max(-1.0, min(1.0, math.log2(margin(row))))
        left, wide = min(middle, end), max(1.0, abs(end - middle))
        beside, anchor = (4, "start") if end >= middle else (-4, "end")
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 10}" text-anchor="end">{html.escape(row.what)}</text>',
            f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="12" fill="{GOOD if row.reached else BAD}"/>',
            f'<text x="{end + beside:.1f}" y="{y + 10}" text-anchor="{anchor}">{show(row.value, row.unit)}'
            f'<tspan fill="{PLAIN}"> {html.escape(aim(row))}</tspan></text>',
        ]
        y += ROW
    high = y + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDE}" height="{high}" viewBox="0 0 {WIDE} {high}" '
            'font-family="sans-serif" font-size="10.5" fill="#222">',
            f'<rect width="{WIDE}" height="{high}" fill="#fff"/>',
            f'<text x="{middle}" y="12" text-anchor="middle">the aim</text>',
            f'<text x="{middle + half}" y="24" text-anchor="end" fill="{PLAIN}">twice as good →</text>',
            f'<text x="{middle - half}" y="24" fill="{PLAIN}">← half as good</text>',
            *parts,
            f'<line x1="{middle}" y1="28" x2="{middle}" y2="{high - 8}" stroke="#222"/>',
            "</svg>\n",
        ]
    )


def margin(row: Row) -> float:
    """How many times better than its aim a figure is; below 1 where it misses it."""
    assert row.target is not None
    value = max(row.value, 1e-6)
    return max(1e-6, value / row.target if row.better == ">=" else row.target / value)
