"""In which order the variants of a model are tried: the fastest first, where a race has told which one that is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.backends import ONE_WAY
from edge_agent.errors import ModelError, RefusedError
from edge_agent.gate.admit import absolute, admit
from edge_agent.gate.ask import ask
from edge_agent.gate.trial import Race, Variant
from edge_agent.gate.verdicts import Verdict, recall, remember
from edge_agent.manifest import File
from edge_agent.registry.files import Located, is_here
from edge_agent.serving.forms import drop_slower

MORE = 0.95
"""how much of what one at a time does is enough from samples answered at once; beside other work they do more"""


class Way(NamedTuple):
    """How a model may be run."""

    row: File
    threads: int
    workers: int = 1
    """samples that are answered at once on one net"""
    ms: float = 0.0
    """that one of them takes; 0 where nobody knows"""
    cpu_ms: float = 0.0


class Pace(NamedTuple):
    """How fast samples will come, and what is to be done about it."""

    per_second: float = 0.0
    """0: slowly"""
    workers: int = 0
    """samples that are to be answered at once; 0: as many as was measured to be best"""


SLOWLY = Pace()


def in_order(
    located: Located, parts: Mapping[str, Path], threads: int, pace: Pace, *, find_out: bool = False, soon: bool = False
) -> tuple[list[Way], list[str]]:
    """The ways to run a model, the fastest on this device first where that is known, and what is known, for people.

    `find_out`: race the variants where nobody has. `soon`: of variants that nobody raced the most precise one first.
    """
    rows = _original_first(located) if soon else located.manifest.networks()
    cores = budget(threads)
    unknown = _unraced(rows, cores, pace)
    if rows and _in_one_way(rows):
        return [Way(row, threads or 1) for row in rows], []
    if len(_here(located)) * cores < 2:  # there is nothing to choose
        return unknown, []
    figures = _known(located, parts, threads, find_out)
    if figures is None:
        return unknown, []
    ways, told = _as_raced(figures, {row.key(): row for row in rows}, cores, pace)
    return _joined(ways, unknown), told


def _known(located: Located, parts: Mapping[str, Path], threads: int, find_out: bool) -> Mapping[str, Any] | None:
    """What a race found; None where there was none, or it failed."""
    verdict = raced(located, parts, threads) or (race(located, parts, threads) if find_out else None)
    return verdict.result.figures if verdict is not None and verdict.result.passed else None


def _here(located: Located) -> list[File]:
    """The variants that are here."""
    return [row for row in located.manifest.networks() if is_here(located, row)]


def _in_one_way(rows: list[File]) -> bool:
    return all(row.format in ONE_WAY for row in rows)


def _joined(ways: list[Way], unknown: list[Way]) -> list[Way]:
    """Those that were raced, and then the variants that were not."""
    known = {way.row.key() for way in ways}
    return [*ways, *(way for way in unknown if way.row.key() not in known)]


def _original_first(located: Located) -> list[File]:
    """The variants, the most precise one first where it is here."""
    rows, original = located.manifest.networks(), located.manifest.original()
    return sorted(rows, key=lambda row: row is not original) if is_here(located, original) else rows


def _unraced(rows: list[File], cores: int, pace: Pace) -> list[Way]:
    """The variants in the order of the manifest, each with all cores, or with its share of them."""
    workers = pace.workers or 1
    return [Way(row, max(1, cores // workers), workers) for row in rows]


def _as_raced(
    figures: Mapping[str, Any], rows: Mapping[str, File], cores: int, pace: Pace
) -> tuple[list[Way], list[str]]:
    """The ways in the order of a race, and its times."""
    laps = _possible(figures["rows"], rows, cores)
    ways = [Way(rows[lap["key"]], lap["threads"], ms=lap["median_ms"], cpu_ms=lap["cpu_ms"]) for lap in laps]
    told = [f"raced: {', '.join(_told(lap) for lap in _first_of_each(laps))}"]
    if pace.workers > 1:
        share = max(1, cores // pace.workers)
        return [way._replace(workers=pace.workers) for way in ways if way.threads <= share], told
    many = figures.get("abreast")
    if many and pace.workers == 0 and _is_possible(many, rows, cores) and pays(many, pace):
        each = 1000 * many["workers"] / many["per_second"]
        ways.insert(0, Way(rows[many["key"]], 1, many["workers"], each, each))
        told.append(f"{many['workers']} at once: {many['per_second']:.1f}/s, not {many['alone_per_second']:.1f}/s")
    return ways, told


def _possible(laps: list[dict[str, Any]], rows: Mapping[str, File], cores: int) -> list[dict[str, Any]]:
    """The laps that count. A child wrote them that a model may have taken over, so that what is not among `rows` or
    needs more than the `cores` does not.
    """
    return [lap for lap in laps if lap["key"] in rows and lap["threads"] <= cores]


def _is_possible(many: Mapping[str, Any], rows: Mapping[str, File], cores: int) -> bool:
    return many["key"] in rows and many["workers"] <= cores


def pays(many: Mapping[str, Any], pace: Pace) -> bool:
    """Whether to answer samples at once: they come faster than one at a time can be answered, and it does more."""
    return bool(pace.per_second > many["alone_per_second"] and many["per_second"] > MORE * many["alone_per_second"])


def _first_of_each(laps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each variant its fastest lap; they come sorted."""
    return list({lap["key"]: lap for lap in reversed(laps)}.values())[::-1]


def _told(lap: Mapping[str, Any]) -> str:
    return f"{lap['file']} {lap['median_ms']:.1f} ms"


def raced(located: Located, parts: Mapping[str, Path], threads: int = 0) -> Verdict | None:
    """The verdict of the race of the variants that are here; None where there was none."""
    return recall(_race(located, [Variant(row, "") for row in _here(located)], parts, threads))


def race(
    located: Located, parts: Mapping[str, Path], threads: int = 0, *, seconds: float = 3.0, bare: bool = False
) -> Verdict:
    """Time the variants that are here and may serve against each other, and remember it (see gate/race.py).

    RefusedError where none is here.
    """
    here = _here(located)
    if not here:
        raise RefusedError(f"{located.manifest.name}: no network of it is here")
    if _in_one_way(here):
        raise RefusedError(f"{located.manifest.name}: nothing to race: {here[0].format} runs it in one way")
    variants = [Variant(row, _admitted(located, row, parts, threads)) for row in here]
    question = _race(located, variants, parts, threads)
    verdict = ask(msgspec.structs.replace(question, seconds=seconds, bare=bare), again=True)
    figures = verdict.result.figures if verdict.result.passed else {}
    if gone := {form.key(): row for form, row in drop_slower(located, parts, figures.get("rows", []))}:
        # so that nobody races again what is left
        rest = [variant for variant in variants if variant.file.key() not in gone]
        result = msgspec.structs.replace(verdict.result, figures=_without(figures, gone))
        remember(_race(located, rest, parts, threads), msgspec.structs.replace(verdict, result=result))
    return verdict


def _admitted(located: Located, row: File, parts: Mapping[str, Path], threads: int) -> str:
    """Where a file lies that may serve; empty for one that may not."""
    try:
        return str(admit(located, row, parts, threads).path.absolute())
    except ModelError:
        return ""


def _without(figures: Mapping[str, Any], gone: Mapping[str, File]) -> dict[str, Any]:
    """The figures of a race without the forms that are gone; `gone`: key of each -> the file that it was made from."""
    many = figures.get("abreast")
    if many and (instead := gone.get(many["key"])):
        # which does about as much
        many = {**many, "file": instead.title(), "key": instead.key(), "sha256": instead.sha256}
    return {**figures, "rows": [lap for lap in figures["rows"] if lap["key"] not in gone], "abreast": many}


def _race(located: Located, variants: list[Variant], parts: Mapping[str, Path], threads: int) -> Race:
    """The race of these variants; where they lie makes no difference to what is remembered."""
    return Race(manifest=located.manifest, variants=variants, threads=budget(threads), parts=absolute(parts))


def budget(threads: int) -> int:
    """Cores that may be used: as many as said, 0: as this process may run on."""
    return threads or len(os.sched_getaffinity(0))
