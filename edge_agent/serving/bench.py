"""``bench MODEL``: what each variant costs on this device, beside a bare session of the original."""

from __future__ import annotations

from typing import Any

from edge_agent.errors import RefusedError
from edge_agent.gate.admit import seen
from edge_agent.gate.verdicts import remembered
from edge_agent.registry import catalogue
from edge_agent.registry.files import parts_of
from edge_agent.serving.forms import derived_notes, with_derived
from edge_agent.serving.models import try_all
from edge_agent.serving.order import race


def bench(name: str, threads: int = 0, seconds: float = 10.0) -> dict[str, Any]:
    """Try and race every variant that is here, and remember which won. Raises ModelError when none may serve.

    ``variants``: milliseconds a sample end to end, the one that serves first, memory, and agreement with the parent;
    ``path_over_bare``: processor time of the winner's whole path over that of the original's bare default session;
    ``one_thread_over_bare``: the same of the cheapest path on one thread over the original's bare session of one
    thread, taken in turns; ``abreast``: samples a second one at a time, and several at once; ``notes``: how the faster
    forms of the files were made, or why not, and why the first one is not the fastest.
    """
    located = catalogue.locate(name, read=seen)
    tried = try_all(located, threads)
    parts = parts_of(located)
    located = with_derived(located, parts, threads)
    result = race(located, parts, threads, seconds=seconds, bare=True).result
    made = [note for row in located.manifest.networks() for note in derived_notes(located, row, parts)]
    if not result.passed:
        raise RefusedError(f"{located.manifest.name}: {result.reason}")
    figures = result.figures
    laps, bare = [_with_verdicts(lap) for lap in figures["rows"]], figures["bare"]
    least = min((lap["cpu_ms"] for lap in laps if lap["threads"] == 1), default=0.0)
    return {
        "model": located.manifest.name,
        "version": located.manifest.version,
        "variants": laps,
        "refused": [one.refused for one in tried if one.refused],
        "bare": bare,
        "path_over_bare": _over(laps[0]["cpu_ms"], bare),
        "one_thread_over_bare": _over(least, figures["one_thread"]),
        "abreast": figures.get("abreast"),
        "notes": made + result.notes,
        "providers": figures["providers"],
    }


def _over(cpu_ms: float, bare: dict[str, Any] | None) -> float | None:
    """Processor time over that of a bare run; None where there was none."""
    return cpu_ms / bare["cpu_ms"] if bare and bare["cpu_ms"] else None


def _with_verdicts(lap: dict[str, Any]) -> dict[str, Any]:
    """The lap with the memory of its variant, and how far that agrees with its parent where it was compared."""
    lap = {**lap, "peak_rss": _latest(lap["key"], "proofs").get("peak_rss")}
    compared = _latest(lap["key"], "reports")
    return {**lap, "agreement": compared["agreement"]} if "agreement" in compared else lap


def _latest(key: str, folder: str) -> dict[str, Any]:
    found = [verdict.result.figures for verdict in remembered(key, folder) if verdict.sha256[0] == key]
    return next((figures for figures in found if figures), {})


def lines(found: dict[str, Any]) -> list[str]:
    """The table for people."""
    rows = found["variants"]
    slowest = max(row["median_ms"] for row in rows)
    wide = max(26, *(len(row["file"]) + 1 for row in rows))
    told = [f"{'variant':{wide}}{'threads':>8}{'median':>9}{'p95':>9}{'CPU':>9} ms{'RSS MB':>8}{'MB':>7}{'agrees':>8}"]
    told += [_line(row, wide, slowest) for row in rows]
    told += _beside(found, wide)
    told += [f"note     {note}" for note in found["notes"]]
    told += [f"refused  {why}" for why in found["refused"]]
    told += [f"{name:{wide}}{why or 'works'}" for name, why in found["providers"].items()]
    return told


def _beside(found: dict[str, Any], wide: int) -> list[str]:
    """What the variants were held against, line by line."""
    told = []
    if bare := found["bare"]:
        took = f"{bare['median_ms']:9.2f}{'':9}{bare['cpu_ms']:9.2f}"
        told.append(f"{'bare ' + bare['file']:{wide}}{'':8}{took}   a default session")
    if found["path_over_bare"] is not None:
        path = found["variants"][0]["file"]
        told.append(f"the whole path of {path} takes {found['path_over_bare']:.2f} of its processor time")
    if found["one_thread_over_bare"] is not None:
        told.append(f"on one thread the cheapest path takes {found['one_thread_over_bare']:.2f} of the bare original's")
    if many := found["abreast"]:
        told.append(
            f"{many['workers']} at once, one thread each, on {many['file']}: {many['per_second']:.1f} a second; "
            f"one at a time {many['alone_per_second']:.1f}"
        )
    return told


def _line(row: dict[str, Any], wide: int, slowest: float) -> str:
    agrees = f"{row['agreement']:.3f}" if row.get("agreement") is not None else "-"
    bar = "#" * max(1, round(20 * row["median_ms"] / slowest))
    return (
        f"{row['file']:{wide}}{row['threads']:8}{row['median_ms']:9.2f}{row['p95_ms']:9.2f}{row['cpu_ms']:9.2f}   "
        f"{(row['peak_rss'] or 0) / 1e6:8.0f}{row['bytes'] / 1e6:7.1f}{agrees:>8}  {bar}"
    )
