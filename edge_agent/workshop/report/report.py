"""What a verb of the workshop ends with: a table for the terminal, report.json, and report.html.

The page stands alone: one file, drawn by `plot` as inline SVG, no script, nothing from elsewhere, light and dark as the
reader's screen is. Whatever a model's file or a path says about itself is shown as text, never as markup or as an
escape sequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import files
from edge_agent.errors import EdgeAgentError
from edge_agent.workshop.report import plot
from edge_agent.workshop.report.plot import Plot, escape, front, text

MOST_BARS = 40
"""layers that are drawn, the costliest; report.json has all"""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One model file that was measured; the parent's comes first."""

    name: str
    bytes: int
    accuracy: float | None
    """what `Report.measure` says; None where it was not measured"""
    median_ms: float | None
    """of a whole sample, end to end"""
    note: str = ""
    chosen: bool = False
    interval: tuple[float, float] | None = None
    """where the accuracy on other samples of this kind lies, in 95 of 100 cases"""
    change: tuple[float, float] | None = None
    """the same of the difference to the first row"""


@dataclass(frozen=True, slots=True)
class LayerRow:
    """What one layer costs when it alone is changed."""

    name: str
    op: str
    error: float
    """accuracy lost, or the error that the note names; the more, the worse"""
    kept: bool
    """left as it was"""
    note: str = ""


@dataclass(frozen=True, slots=True)
class MakingReport:
    """All of it."""

    verb: str
    model: str
    measure: str
    """what `accuracy` is, e.g. "mAP50 against the parent"; more is better"""
    settings: dict[str, Any]
    rows: list[TableRow]
    layers: list[LayerRow] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    """without named points among them, accuracy over time and over size are drawn from the rows"""
    notes: list[str] = field(default_factory=list)
    parent_sha256: str = ""
    data_sha256: str = ""


def lines(report: MakingReport) -> list[str]:
    """The table for a terminal: a row a file, the chosen one marked, then the kept layers' number and the notes."""
    out = _table(report.rows)
    if any(row.accuracy is not None for row in report.rows):
        out.append(f"accuracy: {text(report.measure)}")
    kept = [layer.name for layer in report.layers if layer.kept]
    if report.layers:
        out.append(f"layers: {len(report.layers)}, of which {len(kept)} left as they were")
    return [line.rstrip() for line in [*out, *map(text, report.notes)]]


def _table(rows: Sequence[TableRow]) -> list[str]:
    """Its columns one below the other."""
    names = ["", *(f"{'*' if row.chosen else ' '} {text(row.name)}" for row in rows)]
    table = [("MB", "accuracy", "ms"), *map(_numbers, rows)]
    widths = [max(len(cells[column]) for cells in table) for column in range(3)]
    wide, notes = max(map(len, names)), ["", *(text(row.note) for row in rows)]
    return [
        "  ".join([f"{name:<{wide}}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)), note])
        for name, cells, note in zip(names, table, notes, strict=True)
    ]


def save(report: MakingReport, folder: Path) -> None:
    """Write report.json and report.html into `folder` (made if need be), each by a rename: it is whole or the old one.

    Raises EdgeAgentError when that cannot be, a full disk for one.
    """
    found = {"report.html": page(report).encode("utf-8", "replace").decode(), "report.json": encoded(report).decode()}
    try:
        for name, content in found.items():
            files.write(folder / name, content)
    except OSError as error:
        raise EdgeAgentError(f"{folder}: the report cannot be written there ({error.strerror})") from None


def encoded(report: MakingReport) -> bytes:
    """JSON, indented; NaN and infinity, which it has no word for, are null."""
    try:
        return msgspec.json.format(msgspec.json.encode(report, enc_hook=_plain), indent=2) + b"\n"
    except UnicodeEncodeError as error:
        raise EdgeAgentError(f"{text(error.object)}: the name is no UTF-8 and cannot be reported; rename it") from None


def _plain(value: object) -> object:
    """A setting of a type that JSON does not know: numpy's by its list, a path and all others by their text."""
    listed = getattr(value, "tolist", None)
    return listed() if listed is not None else str(value)


def _numbers(row: TableRow) -> tuple[str, str, str]:
    """Megabytes; the accuracy, and between which it lies on other samples; milliseconds."""
    ends = row.interval if row.interval is not None and all(map(math.isfinite, row.interval)) else None
    between = "" if ends is None else f" ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"{row.bytes / 1e6:.2f}", _number(row.accuracy) + between, _number(row.median_ms, 2)


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────

STYLE = """
:root { color-scheme: light dark; --back: #fff; --ink: #1d232b; --soft: #66707c; --rule: #dde2e8; --mark: #e8f1fd;
  --s0: #2266cc; --s1: #cc4422; --s2: #1c8a50; --s3: #b07a00; --s4: #7a44bb; --s5: #0e8a96; }
@media (prefers-color-scheme: dark) { :root { --back: #14181d; --ink: #e4e8ec; --soft: #98a2ae; --rule: #303842;
  --mark: #1c2c44; --s0: #6aa6ff; --s1: #ff8a66; --s2: #5fcf92; --s3: #e6b84a; --s4: #b994f2; --s5: #55cbd8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 68rem; background: var(--back); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, li, td { overflow-wrap: anywhere; } .soft { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; } td:first-child { min-width: 9rem; }
.wide td:last-child { min-width: 14rem; }
.n { text-align: right; font-variant-numeric: tabular-nums;
  white-space: nowrap; }
.chosen td { background: var(--mark); font-weight: 600; }
code { font: 13px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
.plots { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .25rem; }
svg { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .soft { fill: var(--soft); } svg .rule { stroke: var(--rule); }
svg .halo { paint-order: stroke; stroke: var(--back); stroke-width: 3px; }
@media (max-width: 40rem) { body { padding: 1rem; } .share { display: none; } th, td { padding-right: .6rem; } }
.key { margin: 0; font-size: 12px; } .key span { margin-right: 1rem; } i { display: inline-block; height: .7rem; }
.key i { width: 1rem; height: .25rem; margin-right: .3rem; vertical-align: middle; }
.bars { width: 100%; } .wide .bars td:last-child { width: 50%; min-width: 0; }
.bars i { display: block; margin-top: .4rem; border-radius: 2px; min-width: 1px; } .bar { background: var(--s0); }
.kept { background: var(--s1); }
""".strip()
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: MakingReport) -> str:
    """The HTML document."""
    body = "\n".join(_parts(report))
    title = escape(f"{report.verb} {report.model}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _parts(report: MakingReport) -> Iterator[str]:
    yield f"<h1>{escape(report.verb)} {escape(report.model)}</h1>"
    yield f'<p class="soft">accuracy: {escape(report.measure)}; milliseconds: median of a whole sample, end to end</p>'
    yield from _rows(report.rows)
    yield from _plots([*report.plots, *([] if any(one.named for one in report.plots) else _of_rows(report))])
    if report.layers:
        yield from _layers(report.layers)
    if report.notes:
        yield "<h2>Notes</h2>\n<ul>" + "".join(f"<li>{escape(note)}</li>" for note in report.notes) + "</ul>"
    yield from _how(report)


def _how(report: MakingReport) -> Iterator[str]:
    """The settings, and what it was made from."""
    made = {"parent sha256": report.parent_sha256, "data sha256": report.data_sha256}
    told = {**report.settings, **{key: value for key, value in made.items() if value}}
    if told:
        cells = (f"<tr><th>{escape(key)}</th><td><code>{escape(value)}</code></td></tr>" for key, value in told.items())
        yield f'<h2>How it was made</h2>\n<div class="wide"><table>{"".join(cells)}</table></div>'


def _rows(rows: Sequence[TableRow]) -> Iterator[str]:
    heads = '<th></th><th class="n">MB</th><th class="n share">of the first</th><th class="n">accuracy</th>'
    yield f'<div class="wide"><table><tr>{heads}<th class="n">ms</th><th></th></tr>'
    for row in rows:
        share = f"{row.bytes / rows[0].bytes:.0%}" if rows[0].bytes else "-"
        size, *others = _numbers(row)
        cells = f'<td class="n">{size}</td><td class="n share">{share}</td>'
        cells += "".join(f'<td class="n">{number}</td>' for number in others)
        chosen = ' class="chosen"' if row.chosen else ""
        yield f"<tr{chosen}><td>{escape(row.name)}</td>{cells}<td>{escape(row.note)}</td></tr>"
    yield "</table></div>"


def _plots(plots: Sequence[Plot]) -> Iterator[str]:
    """Those of more than one point: one alone shows nothing that the table does not."""
    plots = [one for one in plots if max([len(one.named), *map(len, one.series.values())]) > 1]
    if plots:
        yield '<h2>Plots</h2>\n<div class="plots">'
        for one in plots:
            yield f"<figure><figcaption>{escape(one.title)}</figcaption>{plot.draw(one)}</figure>"
        yield "</div>"


def _of_rows(report: MakingReport) -> list[Plot]:
    """Accuracy over time and over size, each with the front of those that no other beats in both."""
    rows = [(row, row.accuracy) for row in report.rows if row.accuracy is not None]
    timed = [(row.median_ms, accuracy, row.name) for row, accuracy in rows if row.median_ms is not None]
    sized = [(row.bytes / 1e6, accuracy, row.name) for row, accuracy in rows]
    return [
        Plot(f"Accuracy over {what}", unit, "accuracy", {"best trade": front(points)}, points)
        for what, unit, points in (("time", "milliseconds, median", timed), ("size", "MB", sized))
        if len(points) > 1
    ]


def _layers(layers: Sequence[LayerRow]) -> Iterator[str]:
    shown = sorted(layers, key=lambda layer: -layer.error if math.isfinite(layer.error) else -math.inf)[:MOST_BARS]
    kept = sum(layer.kept for layer in layers)
    most = "" if len(shown) == len(layers) else f", the {len(shown)} costliest are shown"
    told = f"What each costs when it alone is changed; {kept} of {len(layers)} were left as they were{most}."
    yield f"<h2>Layers</h2>\n<p>{told}</p>"
    costs = [abs(layer.error) if math.isfinite(layer.error) else 0.0 for layer in shown]
    yield '<div class="wide"><table class="bars">'
    for layer, cost in zip(shown, costs, strict=True):
        bar = f'<i class="{"kept" if layer.kept else "bar"}" style="width:{100 * (cost / (max(costs) or 1)):.1f}%"></i>'
        cells = (f"{layer.name} ({layer.op})", f"{layer.error:.4g}{' kept' * layer.kept}", layer.note)
        name, error, note = map(escape, cells)
        yield f'<tr title="{note}"><td>{name}</td><td class="n">{error}</td><td>{bar}</td></tr>'
    yield "</table></div>"
