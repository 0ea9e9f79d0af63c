"""``bench MODEL``: what each variant costs on this device, beside a bare session of the original."""

from __future__ import annotations

import contextlib
from typing import Any

from edge_agent import registry
from edge_agent.errors import RefusedError
from edge_agent.prove import remembered
from edge_agent.reading import seen
from edge_agent.serving import parts_of, race, try_all, with_derived


def bench(name: str, threads: int = 0, seconds: float = 10.0) -> dict[str, Any]:
    """Try and race every variant that is here, and remember who won. Raises ModelError when none may serve.

    ``variants``: milliseconds a sample end to end, the fastest first, memory, and agreement with the parent;
    ``path_over_bare``: processor time of the winner's whole path over that of the original's bare default session.
    """
    located = registry.locate(name, read=seen)
    tried = try_all(located, threads)
    parts = parts_of(located)
    located = with_derived(located, parts, threads)
    result = race(located, parts, threads, seconds=seconds, bare=True).result
    if not result.passed:
        raise RefusedError(f"{located.manifest.name}: {result.reason}")
    figures = result.figures
    for row in figures["rows"]:
        row["peak_rss"] = _latest(row["sha256"], "proofs").get("peak_rss")
        with contextlib.suppress(KeyError):
            row["agreement"] = _latest(row["sha256"], "reports")["agreement"]
    bare = figures["bare"]
    return {
        "model": located.manifest.name,
        "version": located.manifest.version,
        "variants": figures["rows"],
        "refused": [one.refused for one in tried if one.refused],
        "bare": bare,
        "path_over_bare": figures["rows"][0]["cpu_ms"] / bare["cpu_ms"] if bare and bare["cpu_ms"] else None,
        "providers": figures["providers"],
    }


def _latest(sha256: str, folder: str) -> dict[str, Any]:
    found = [verdict.result.figures for verdict in remembered(sha256, folder) if verdict.sha256[0] == sha256]
    return next((figures for figures in found if figures), {})


def lines(found: dict[str, Any]) -> list[str]:
    """The table for people."""
    rows = found["variants"]
    slowest = max(row["median_ms"] for row in rows)
    told = [f"{'variant':26}{'median':>9}{'p95':>9}{'CPU':>9} ms{'RSS MB':>8}{'MB':>7}{'agrees':>8}"]
    for row in rows:
        agrees = f"{row['agreement']:.3f}" if row.get("agreement") is not None else "-"
        bar = "#" * max(1, round(20 * row["median_ms"] / slowest))
        told.append(
            f"{row['file']:26}{row['median_ms']:9.2f}{row['p95_ms']:9.2f}{row['cpu_ms']:9.2f}   "
            f"{(row['peak_rss'] or 0) / 1e6:8.0f}{row['bytes'] / 1e6:7.1f}{agrees:>8}  {bar}"
        )
    if found["bare"]:
        bare = found["bare"]
        told.append(
            f"{'bare ' + bare['file']:26}{bare['median_ms']:9.2f}{'':9}{bare['cpu_ms']:9.2f}   a default session"
        )
    if found["path_over_bare"] is not None:
        told.append(f"the whole path of {rows[0]['file']} takes {found['path_over_bare']:.2f} of its processor time")
    told += [f"refused  {why}" for why in found["refused"]]
    told += [f"{name:26}{why or 'works'}" for name, why in found["providers"].items()]
    return told
