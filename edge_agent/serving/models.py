"""A model's name becomes a model that answers: found, verified, loaded, warm.

The one place that joins the rooms: the registry finds it, a child process proves it (once), a backend loads it, a
lane takes turns on the processor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.backends import open_net
from edge_agent.backends.quiet import quiet
from edge_agent.errors import ModelError, RefusedError
from edge_agent.gate.ask import ask, prove, recall, remember, try_heads
from edge_agent.gate.opened import as_read, input_of, warm
from edge_agent.gate.trial import LIMITS, Trial, Variant, Verdict
from edge_agent.manifest import File, Served
from edge_agent.registry import catalogue, files
from edge_agent.serving.forms import derived_notes, drop_slower, hold_against_parent, parts_of, seen, with_derived
from edge_agent.types import Backend, ModelRef, Tensors
from edge_agent.walk.lane import Lane

Say = Callable[[int, int], None]

MORE = 0.95
"""how much of what one at a time does is enough from samples answered at once; beside other work they do more"""


class Way(NamedTuple):
    """How a model may be run."""

    row: File
    threads: int
    workers: int = 1
    """samples that are answered at once on one net"""


class Pace(NamedTuple):
    """How fast samples will come, and what is to be done about it."""

    per_second: float = 0.0
    """0: slowly"""
    workers: int = 0
    """samples that are to be answered at once; 0: as many as was measured to be best"""


SLOWLY = Pace()


class Models:
    """Opens each model once for each pace; the nets share one lane."""

    def __init__(
        self,
        *,
        threads: int = 0,
        lane: Lane | None = None,
        pull: bool = False,
        say: Say | None = None,
        race: bool = False,
        once: bool = False,
        soon: bool = False,
    ) -> None:
        """`threads` a run, 0: all of this process's cores; `pull`: fetch what is missing, telling `say` of bytes.

        `race`: where a model has several variants and nobody knows which one is the fastest here, find out.
        `once`: for a few samples, whose first one may as well be the first run, as what is opened has proved itself.
        `soon`: of variants that nobody raced the most precise one first: as it is held against none, it is tried once.
        """
        self.threads, self.lane, self.pull, self.say, self.race = (
            threads,
            lane or Lane(budget(threads)),
            pull,
            say,
            race,
        )
        self.once, self.soon = once, soon
        self._served: dict[tuple[str, Pace], Served] = {}
        self._marks: dict[str, str] = {}

    def serve(self, name: str, pace: Pace = SLOWLY) -> Served:
        """The model of that name, alias, folder or file, ready to run samples that come at this pace.

        Of its variants the fastest one (the first, where nobody knows) that can be had, has proved itself
        (gate/ask.py), agrees with its parent (gate/agree.py) and loads serves; `why` says which and what was wrong with
        those before it. Raises ModelError, one line.
        """
        if (name, pace) not in self._served:
            self._served[name, pace] = self.open(name, pace)
        return self._served[name, pace]

    def changed(self) -> list[str]:
        """Names under which another model lies than the one that was last opened (or tried)."""
        return [name for name, mark in self._marks.items() if catalogue.fingerprint(name) not in ("", mark)]

    def improve(self, name: str) -> bool:
        """Make the faster forms of its files and race them all, where nobody has; whether anything is known anew.

        Takes seconds, most of them in child processes; what serves goes on. Raises ModelError.
        """
        located = catalogue.locate(name, read=seen)
        parts = parts_of(located)
        located = with_derived(located, parts, self.threads, make=True)
        here = [row for row in located.manifest.networks() if files.is_here(located, row)]
        if recall("races", _race(located, here, parts, self.threads)) is not None:
            return False
        return race(located, parts, self.threads).result.passed

    def adopt(self, name: str, served: Served, pace: Pace = SLOWLY) -> None:
        """From now on `serve` gives this one."""
        self._served[name, pace] = served

    def open(self, name: str, pace: Pace = SLOWLY) -> Served:
        """As `serve`, but the model as it lies there now, whether or not one serves already."""
        # marked before it is read: what changes meanwhile is noticed afterwards
        self._marks[name] = catalogue.fingerprint(name)
        located = catalogue.locate(name, pull=self.pull, say=self.say, read=seen)
        manifest = located.manifest
        parts = parts_of(located, pull=self.pull, say=self.say)
        passed_over: list[str] = []
        located = with_derived(located, parts, self.threads, make=self.race)
        ways, raced = self._in_order(located, parts, pace)
        for way in ways:
            row = way.row
            try:
                path = files.file_path(located, row, pull=self.pull, say=self.say)
                prove(manifest, row, path, parts, self.threads)
                agreed = hold_against_parent(located, row, path, parts, self.threads)
                with quiet():
                    net = open_net(path, row.format, way.threads, row.sha256)
                    if not self.once:
                        warm(net, input_of(manifest, row))
            except ModelError as error:
                passed_over.append(str(error))
                continue
            agrees = [agreed] if agreed else []
            return Served(
                manifest=as_read(manifest, row),
                ref=ModelRef(
                    manifest.name, manifest.version, row.sha256, located.why if name in catalogue.ALIASES else ""
                ),
                net=msgspec.structs.replace(net, run=self._taking_turns(net.run, way.threads)),
                parts=parts,
                input=input_of(manifest, row),
                why="; ".join(
                    [located.why, f"{row.title()} ({row.precision}) on {net.engine}", *agrees, *raced, *passed_over]
                ),
                workers=way.workers,
            )
        raise RefusedError(passed_over[0] if len(passed_over) == 1 else f"{manifest.name}: " + "; ".join(passed_over))

    def _in_order(self, located: files.Located, parts: Mapping[str, Path], pace: Pace) -> tuple[list[Way], list[str]]:
        """The variants, the fastest on this device first where that is known (or raced for now), and what is known."""
        rows = located.manifest.networks()
        here = [row for row in rows if files.is_here(located, row)]
        cores = budget(self.threads)
        if self.soon and (original := located.manifest.original()) in here:
            rows.sort(key=lambda row: row is not original)
        unknown = [Way(row, max(1, cores // (pace.workers or 1)), pace.workers or 1) for row in rows]
        if len(here) < 2 and cores == 1:
            return unknown, []
        verdict = recall("races", _race(located, here, parts, self.threads))
        if verdict is None and self.race:
            verdict = race(located, parts, self.threads)
        if verdict is None or not verdict.result.passed:
            return unknown, []
        figures = verdict.result.figures
        by_key = {row.key(): row for row in rows}
        # a child wrote them that a model may have taken over
        sound = [one for one in figures["rows"] if one["key"] in by_key and one["threads"] <= cores]
        ways = [Way(by_key[one["key"]], one["threads"]) for one in sound]
        told = [f"raced: {', '.join(_told(one) for one in _first_of_each(sound))}"]
        many = figures.get("abreast")
        if many and (many["key"] not in by_key or many["workers"] > cores):
            many = None
        if pace.workers > 1:
            ways = [way._replace(workers=pace.workers) for way in ways if way.threads <= max(1, cores // pace.workers)]
        elif pace.workers == 0 and many and _pays(many, pace):
            ways.insert(0, Way(by_key[many["key"]], 1, many["workers"]))
            told.append(f"{many['workers']} at once: {many['per_second']:.1f}/s, not {many['alone_per_second']:.1f}/s")
        ways += [way for way in unknown if way.row.key() not in {way.row.key() for way in ways}]
        return ways, told

    def _taking_turns(self, run: Backend, threads: int) -> Backend:
        def turn(tensors: Tensors) -> dict[str, Any]:
            with self.lane.turn(threads):
                return run(tensors)

        return turn


def _pays(many: Mapping[str, Any], pace: Pace) -> bool:
    """Whether to answer samples at once: they come faster than one at a time can be answered, and it does more."""
    return bool(pace.per_second > many["alone_per_second"] and many["per_second"] > MORE * many["alone_per_second"])


def _first_of_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each variant its fastest row; they come sorted."""
    return list({row["key"]: row for row in reversed(rows)}.values())[::-1]


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['file']} {row['median_ms']:.1f} ms"


class Tried(msgspec.Struct, frozen=True):
    """What became of one variant when it was tried."""

    name: str
    refused: str
    """why, one line; empty when it may serve"""
    notes: list[str]


def try_all(located: files.Located, threads: int = 0, *, again: bool = False) -> list[Tried]:
    """Try every variant that is here: it proves itself, and is held against its parent.

    Raises RefusedError when none may serve.
    """
    parts = parts_of(located)
    located = with_derived(located, parts, threads, make=True)
    manifest = located.manifest
    tried: list[Tried] = []
    for row in manifest.networks():
        if row.sources and not files.is_here(located, row):
            continue
        try:
            path = files.file_path(located, row)
            verdict = prove(manifest, row, path, parts, threads, again=again)
            against = hold_against_parent(located, row, path, parts, threads, again=again)
        except ModelError as error:
            tried.append(Tried(row.title(), str(error), []))
            continue
        proved = f"proved in {verdict.seconds:.1f} s on {verdict.result.figures['engine']}"
        notes = [proved, *verdict.result.notes, *derived_notes(located, row, parts), *filter(None, [against])]
        tried.append(Tried(row.title(), "", notes))
    if not tried:
        raise RefusedError(f"{manifest.name}: no network of it is here; run `edge-agent models pull {manifest.name}`")
    if all(one.refused for one in tried):
        raise RefusedError("; ".join(one.refused for one in tried))
    sound = {one.name for one in tried if not one.refused}
    return [*tried, *(Tried(*row) for row in try_heads(located, sound, parts, again=again))]


def race(
    located: files.Located, parts: Mapping[str, Path], threads: int = 0, *, seconds: float = 3.0, bare: bool = False
) -> Verdict:
    """Time the variants that are here and may serve against each other, and remember it (see gate/race.py)."""
    manifest = located.manifest
    here = [row for row in manifest.networks() if files.is_here(located, row)]
    skip, variants = [], []
    for row in here:
        path = located.folder / row.name
        try:
            path = files.file_path(located, row)
            prove(manifest, row, path, parts, threads)
            hold_against_parent(located, row, path, parts, threads)
        except ModelError:
            skip.append(row.key())
        variants.append(Variant(row, str(path.absolute())))
    trial = _race(located, here, parts, threads)
    trial = msgspec.structs.replace(trial, variants=variants, skip=skip, seconds=seconds, bare=bare)
    verdict = ask("races", trial, again=True)
    figures = verdict.result.figures if verdict.result.passed else {}
    rows, many = figures.get("rows", []), figures.get("abreast")
    if gone := {form.key(): row for form, row in drop_slower(located, parts, rows)}:
        # so that nobody races again what is left
        rest = [row for row in here if row.key() not in gone]
        if many and (instead := gone.get(many["key"])):
            # which does about as much
            many = {**many, "file": instead.title(), "key": instead.key(), "sha256": instead.sha256}
        figures = {**figures, "rows": [row for row in rows if row["key"] not in gone], "abreast": many}
        result = msgspec.structs.replace(verdict.result, figures=figures)
        remember("races", _race(located, rest, parts, threads), msgspec.structs.replace(verdict, result=result))
    return verdict


def _race(located: files.Located, rows: list[File], parts: Mapping[str, Path], threads: int) -> Trial:
    """The race of these variants as it is remembered; it does not say where they lie."""
    given = {role: str(part.absolute()) for role, part in parts.items()}
    return Trial("race", [Variant(row, "") for row in rows], budget(threads), LIMITS, located.manifest, given)


def budget(threads: int) -> int:
    """Cores that may be used: as many as said, 0: as this process may run on."""
    return threads or len(os.sched_getaffinity(0))
