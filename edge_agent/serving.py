"""A model's name becomes a model that answers: found, verified, loaded, warm.

The one place that joins the rooms: the registry finds it, a child process proves it (once), a backend loads it, a
lane takes turns on the processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import registry
from edge_agent.backends import open_net
from edge_agent.errors import FetchError, ManifestError, ModelError, RefusedError
from edge_agent.lane import Lane
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.prove import LIMITS, Trial, Variant, Verdict, agree, ask, open_tried, prove, recall
from edge_agent.registry.inspect import Look
from edge_agent.types import ModelRef, Net, Tensors

Say = Callable[[int, int], None]


class Models:
    """Opens each model once; the nets share one lane."""

    def __init__(
        self,
        *,
        threads: int = 0,
        lane: Lane | None = None,
        pull: bool = False,
        say: Say | None = None,
        race: bool = False,
    ) -> None:
        """`threads` a run, 0: all of this process's cores; `pull`: fetch what is missing, telling `say` of bytes.

        `race`: where a model has several variants and nobody knows which one is the fastest here, find out.
        """
        self.threads, self.lane, self.pull, self.say, self.race = threads, lane or Lane(), pull, say, race
        self._served: dict[str, Served] = {}
        self._marks: dict[str, str] = {}

    def serve(self, name: str) -> Served:
        """The model of that name, alias, folder or file, ready to run.

        Of its variants the fastest one (the first, where nobody knows) that can be had, has proved itself (prove.py),
        agrees with its parent (agree.py) and loads serves; `why` says which and what was wrong with those before it.
        Raises ModelError, one line.
        """
        if name not in self._served:
            self._served[name] = self.open(name)
        return self._served[name]

    def changed(self) -> list[str]:
        """Names under which another model lies than the one that was last opened (or tried)."""
        return [name for name, mark in self._marks.items() if registry.mark(name) not in ("", mark)]

    def adopt(self, name: str, served: Served) -> None:
        """From now on `serve` gives this one."""
        self._served[name] = served

    def open(self, name: str) -> Served:
        """As `serve`, but the model as it lies there now, whether or not one serves already."""
        # marked before it is read: what changes meanwhile is noticed afterwards
        self._marks[name] = registry.mark(name)
        located = registry.locate(name, pull=self.pull, say=self.say, open_net=open_tried, look=_look(name))
        manifest = located.manifest
        parts = parts_of(located, pull=self.pull, say=self.say)
        passed_over: list[str] = []
        rows, raced = self._in_order(located, parts)
        for row in rows:
            try:
                path = registry.file_path(located, row, pull=self.pull, say=self.say)
                prove(manifest, row, path, parts, self.threads)
                agreed = hold_against_parent(located, row, path, parts, self.threads)
                net = open_net(path, row.format, self.threads)
                warm(net, input_of(manifest, row))
            except ModelError as error:
                passed_over.append(str(error))
                continue
            agrees = [agreed] if agreed else []
            return Served(
                manifest=manifest,
                ref=ModelRef(
                    manifest.name, manifest.version, row.sha256, located.why if name in registry.ALIASES else ""
                ),
                net=replace(net, run=self._taking_turns(net.run)),
                parts=parts,
                input=input_of(manifest, row),
                why="; ".join(
                    [located.why, f"{row.name} ({row.precision}) on {net.engine}", *agrees, *raced, *passed_over]
                ),
            )
        raise RefusedError(passed_over[0] if len(passed_over) == 1 else f"{manifest.name}: " + "; ".join(passed_over))

    def _in_order(self, located: registry.Located, parts: Mapping[str, Path]) -> tuple[list[File], list[str]]:
        """The variants, the fastest on this device first where that is known (or raced for now), and what is known."""
        rows = located.manifest.networks()
        here = [row for row in rows if registry.is_here(located, row)]
        if len(here) < 2:
            return rows, []
        verdict = recall("races", _race(located, here, parts, self.threads))
        if verdict is None and self.race:
            verdict = race(located, parts, self.threads)
        if verdict is None or not verdict.result.passed:
            return rows, []
        times = {row["sha256"]: row["median_ms"] for row in verdict.result.figures["rows"]}
        ordered = sorted(rows, key=lambda row: times.get(row.sha256, float("inf")))
        told = ", ".join(f"{row.name} {times[row.sha256]:.1f} ms" for row in ordered if row.sha256 in times)
        return ordered, [f"raced: {told}"]

    def _taking_turns(self, run: Callable[[Tensors], dict[str, Any]]) -> Callable[[Tensors], dict[str, Any]]:
        def turn(tensors: Tensors) -> dict[str, Any]:
            with self.lane.turn():
                return run(tensors)

        return turn


def _look(name: str) -> Look | None:
    """What a bare file leaves open is tried on pictures; models of the registry leave nothing open."""
    if Path(name).suffix.lower() not in registry.SUFFIXES:
        return None
    from edge_agent.trial import looker  # it loads cv2, which a device that reads text alone does not need

    return looker()


def input_of(manifest: Manifest, row: File) -> Input | None:
    """[input] with the layout of the file that serves."""
    given = manifest.input
    return msgspec.structs.replace(given, layout=row.layout) if given is not None and row.layout else given


def warm(net: Net, picture: Input | None) -> None:
    """Run once on zeros, so that the first sample does not pay for it and a file that cannot run is found out.

    Dynamic axes of a picture are as `picture` says, those of a text one sentence of 8 tokens.
    Raises RefusedError when the run fails.
    """
    tensors = {}
    for spec in net.inputs:
        usual = (1, 8, 8, 8)
        if picture is not None and len(spec.shape) == 4:
            high, wide = picture.height, picture.width
            usual = (1, 3, high, wide) if picture.layout == "NCHW" else (1, high, wide, 3)
        shape = [given or usual[min(axis, 3)] for axis, given in enumerate(spec.shape)]
        fill = 1 if spec.dtype.startswith("int") and "mask" in spec.name else 0
        tensors[spec.name] = np.full(shape, fill, spec.dtype)
    net.run(tensors)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one variant when it was tried."""

    name: str
    refused: str
    """why, one line; empty when it may serve"""
    notes: list[str]


def try_all(located: registry.Located, threads: int = 0, *, again: bool = False) -> list[Tried]:
    """Try every variant that is here: it proves itself, and is held against its parent.

    Raises RefusedError when none may serve.
    """
    manifest = located.manifest
    parts = parts_of(located)
    tried: list[Tried] = []
    for row in manifest.networks():
        if row.sources and not registry.is_here(located, row):
            continue
        try:
            path = registry.file_path(located, row)
            verdict = prove(manifest, row, path, parts, threads, again=again)
            against = hold_against_parent(located, row, path, parts, threads, again=again)
        except ModelError as error:
            tried.append(Tried(row.name, str(error), []))
            continue
        proved = f"proved in {verdict.seconds:.1f} s on {verdict.result.figures['engine']}"
        tried.append(Tried(row.name, "", [proved, *verdict.result.notes, *filter(None, [against])]))
    if not tried:
        raise RefusedError(f"{manifest.name}: no network of it is here; run `edge-agent models pull {manifest.name}`")
    if all(one.refused for one in tried):
        raise RefusedError("; ".join(one.refused for one in tried))
    return tried


def race(
    located: registry.Located, parts: Mapping[str, Path], threads: int = 0, *, seconds: float = 3.0, bare: bool = False
) -> Verdict:
    """Time the variants that are here and may serve against each other, and remember it (see race.py)."""
    manifest = located.manifest
    here = [row for row in manifest.networks() if registry.is_here(located, row)]
    skip, variants = [], []
    for row in here:
        path = located.folder / row.name
        try:
            path = registry.file_path(located, row)
            prove(manifest, row, path, parts, threads)
            hold_against_parent(located, row, path, parts, threads)
        except ModelError:
            skip.append(row.sha256)
        variants.append(Variant(row, str(path.absolute())))
    trial = _race(located, here, parts, threads)
    trial = msgspec.structs.replace(trial, variants=variants, skip=skip, seconds=seconds, bare=bare)
    return ask("races", trial, again=True)


def _race(located: registry.Located, rows: list[File], parts: Mapping[str, Path], threads: int) -> Trial:
    """The race of these variants as it is remembered; it does not say where they lie."""
    given = {role: str(part.absolute()) for role, part in parts.items()}
    return Trial("race", [Variant(row, "") for row in rows], threads, LIMITS, located.manifest, given)


def parts_of(located: registry.Located, **how: Any) -> dict[str, Path]:
    """role -> verified file, of the parts that are no network."""
    return {r.role: registry.file_path(located, r, **how) for r in located.manifest.file if r.format == "text"}


def hold_against_parent(
    located: registry.Located,
    row: File,
    path: Path,
    parts: Mapping[str, Path],
    threads: int = 0,
    *,
    again: bool = False,
) -> str:
    """How far a variant agrees with what it was made from, one line; empty for what is no variant.

    Raises RefusedError when that is not enough. A parent that is not here, or makes no sense, holds nobody up.
    """
    manifest, parent = located.manifest, located
    try:
        if manifest.parent is not None:
            # what the workshop made may come from a bare file
            parent = registry.locate(manifest.parent, open_net=open_tried, look=_look(manifest.parent))
        origin = parent.manifest.original()
        if origin.sha256 == row.sha256:
            return ""
        theirs = parent.manifest, origin, registry.file_path(parent, origin), parts_of(parent)
        prove(*theirs, threads)
    except (FetchError, ManifestError, RefusedError) as error:
        return f"{row.name} is not held against its parent: {error}"
    result = agree(manifest, row, path, parts, theirs, threads, again=again).result
    return f"{row.name}: {result.notes[0]}"
