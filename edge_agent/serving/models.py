"""A model's name becomes a model that answers: found, admitted, loaded, warm.

The registry finds it, the gate admits it (a child process proves it, once), a backend loads it, a lane takes turns on
the processor.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import paths
from edge_agent.backends import ONE_WAY, WITH_PARTS, open_net
from edge_agent.backends.quiet import quiet
from edge_agent.config import Policy
from edge_agent.errors import ModelError, RefusedError
from edge_agent.fleet import policy
from edge_agent.gate.admit import Admitted, admit, head_of, seen, try_heads
from edge_agent.gate.opened import as_read, input_of, others_of, warm
from edge_agent.held import held
from edge_agent.manifest import File, Manifest, Served
from edge_agent.registry import catalogue, files
from edge_agent.registry.files import Located, Say, parts_of
from edge_agent.serving.forms import derived_notes, with_derived
from edge_agent.serving.order import SLOWLY, Pace, Way, budget, in_order, race, raced
from edge_agent.types import ModelRef, Net, Tensors
from edge_agent.walk.lane import Lane


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
        only: Mapping[str, str] | None = None,
    ) -> None:
        """`threads` a run, 0: all of this process's cores; `pull`: fetch what is missing, telling `say` of bytes.

        `race`: where a model has several variants and nobody knows which one is the fastest here, find out.
        `once`: for a few samples, whose first one may as well be the first run, as what is opened has proved itself.
        `only`: name, as it is asked for -> SHA-256 of the file of it that may serve.
        `soon`: of variants that nobody raced the most precise one first: as it is held against none, it is tried once.
        """
        self.threads, self.lane = threads, lane or Lane(budget(threads))
        self.pull, self.say = pull, say
        self.race, self.once, self.soon = race, once, soon
        self.policy = Policy()
        """what may serve at all"""
        self._served: dict[tuple[str, Pace], Served] = {}
        self._marks: dict[str, str] = {}
        self._only = only or {}
        self._kept: dict[str, str] = {}

    def serve(self, name: str, pace: Pace = SLOWLY) -> Served:
        """The model of that name, alias, folder or file, ready to run samples that come at this pace.

        Of its variants the fastest one (the first, where nobody knows) that can be had, has proved itself
        and agrees with its parent (gate/admit.py), and loads serves; `why` says which and what was wrong with
        those before it. Raises ModelError, one line.
        """
        if (name, pace) not in self._served:
            self._served[name, pace] = self.open(name, pace)
        return self._served[name, pace]

    def open_now(self) -> dict[str, Served]:
        """Name, as it was asked for -> the model that serves under it, of all that are open."""
        return {name: served for (name, _), served in reversed(list(self._served.items()))}

    def changed(self) -> list[str]:
        """Names under which another model lies than the one that was last opened (or tried)."""
        return [name for name, mark in self._marks.items() if catalogue.fingerprint(name) not in ("", mark)]

    def improve(self, name: str) -> bool:
        """Make the faster forms of its files and race them all, where nobody has; whether anything is known anew.

        Takes seconds, most of them in child processes; what serves goes on. Raises ModelError.
        """
        located = catalogue.locate(name, read=seen)
        if all(row.format in ONE_WAY for row in located.manifest.networks()):
            return False
        parts = parts_of(located)
        located = with_derived(located, parts, self.threads, make=True)
        if raced(located, parts, self.threads) is not None:
            return False
        return race(located, parts, self.threads).result.passed

    def adopt(self, name: str, served: Served, pace: Pace = SLOWLY) -> None:
        """From now on `serve` gives this one."""
        self._served[name, pace] = served

    def keep_to(self, name: str, sha256: str) -> None:
        """From the next `open` on, no other file of a model than this one serves under that name, as long as the model
        that lies there has it; "": any may serve again.
        """
        self._kept = {**self._kept, name: sha256}

    def open(self, name: str, pace: Pace = SLOWLY) -> Served:
        """As `serve`, but the model as it lies there now, whether or not one serves already."""
        # marked before it is read: what changes meanwhile is noticed afterwards
        self._marks[name] = catalogue.fingerprint(name)
        located = catalogue.locate(name, pull=self.pull, say=self.say, read=seen)
        policy.check(self.policy, located, paths.home())
        manifest, parts = located.manifest, parts_of(located, pull=self.pull, say=self.say)
        located = self._with_forms(located, parts, only := self._alone(name, manifest))
        ways, known = in_order(located, parts, self.threads, pace, find_out=self.race, soon=self.soon)
        if only is not None and not (ways := [way for way in ways if way.row.sha256 == only]):
            raise RefusedError(f"{name}: {manifest.name} {manifest.version} has no file of SHA-256 {only[:16]}… here")
        passed_over: list[str] = []
        for way in ways:
            try:
                admitted = admit(located, way.row, parts, self.threads, pull=self.pull, say=self.say)
                net = self._loaded(manifest, way, admitted, parts)
                others = others_of(manifest, parts, way.threads)
            except ModelError as error:
                passed_over.append(str(error))
                continue
            runs = f"{way.row.title()} ({way.row.precision}) on {net.engine}"
            meant = located.why if name in catalogue.ALIASES else ""
            return Served(
                manifest=as_read(manifest, way.row),
                ref=ModelRef(manifest.name, manifest.version, way.row.sha256, meant),
                net=net,
                parts=parts,
                input=input_of(manifest, way.row),
                why="; ".join(filter(None, [located.why, runs, admitted.note, *known, *passed_over])),
                others={role: self._on_lane(other, way, role) for role, other in others.items()},
                workers=way.workers,
                ms=way.ms,
                cpu_ms=way.cpu_ms,
                head=partial(self._head, located, way, parts),
            )
        raise self._refusal(located, passed_over)

    def _refusal(self, located: Located, passed_over: list[str]) -> RefusedError:
        """Why none of its files may serve; raises it in one line where none is here."""
        if not self.pull:
            _networks_here(located)
        named = f"{located.manifest.name}: " * (len(passed_over) > 1)
        return RefusedError(named + "; ".join(passed_over))

    def _alone(self, name: str, manifest: Manifest) -> str | None:
        """SHA-256 of the file that may serve alone, where there is one."""
        kept = next((row.sha256 for row in manifest.networks() if row.sha256 == self._kept.get(name)), None)
        return self._only.get(name, kept)

    def _with_forms(self, located: Located, parts: Mapping[str, Path], only: str | None) -> Located:
        """The model with its faster forms: those that are here, or all where one that is not here is asked for."""
        found = with_derived(located, parts, self.threads, make=self.race)
        if only is None or any(row.sha256 == only for row in found.manifest.networks()):
            return found
        return with_derived(located, parts, self.threads, make=True)

    def _head(self, located: Located, way: Way, parts: Mapping[str, Path], role: str) -> Net:
        """The head of a role beside the network that serves; its runs take their turn, too.

        ManifestError where there is none, FetchError or RefusedError where it may not serve.
        """
        with quiet():
            path, row = head_of(located, way.row, parts, role)
            net = open_net(path, row.format, way.threads, row.sha256)
        return self._on_lane(net, way, role)

    def _loaded(self, manifest: Manifest, way: Way, admitted: Admitted, parts: Mapping[str, Path]) -> Net:
        """The network, warm; its runs take their turn on the lane."""
        with quiet(), ExitStack() as stack:
            beside = {
                row.role: stack.enter_context(held(parts[row.role], row.sha256)).path
                for row in manifest.file
                if row.role in parts and way.row.format in WITH_PARTS
            }
            net = open_net(admitted.path, way.row.format, way.threads, way.row.sha256, beside)
            net = self._on_lane(net, way)
            if not self.once:
                # by a turn of its own, so that the lane knows how long one takes
                warm(net, input_of(manifest, way.row))
        return net

    def _on_lane(self, net: Net, way: Way, role: str = "") -> Net:
        """The network, each run of which takes its turn."""
        run, kind = net.run, way.row.sha256 + role

        def turn(tensors: Tensors) -> dict[str, Any]:
            with self.lane.turn(way.threads, f"{kind} {' '.join(sorted(tensors))}"):
                return run(tensors)

        return msgspec.structs.replace(net, run=turn)


class Tried(msgspec.Struct, frozen=True):
    """What became of one variant when it was tried."""

    name: str
    refused: str
    """why, one line; empty when it may serve"""
    notes: list[str]


def try_all(located: Located, threads: int = 0, *, again: bool = False) -> list[Tried]:
    """Try every variant that is here: it proves itself, and is held against its parent.

    Raises RefusedError when none may serve.
    """
    parts = parts_of(located)
    located = with_derived(located, parts, threads, make=True)
    tried = [_tried(located, row, parts, threads, again=again) for row in _networks_here(located)]
    if all(one.refused for one in tried):
        raise RefusedError("; ".join(one.refused for one in tried))
    sound = {one.name for one in tried if not one.refused}
    return [*tried, *(Tried(*row) for row in try_heads(located, sound, parts, again=again))]


def _networks_here(located: Located) -> list[File]:
    """The networks of a model that are here. RefusedError where none is."""
    name, rows = located.manifest.name, located.manifest.networks()
    here = [row for row in rows if not row.sources or files.is_here(located, row)]
    if not here:
        raise RefusedError(f"{name}: it is not here yet; run `edge-agent models pull {name}`")
    return here


def _tried(located: Located, row: File, parts: Mapping[str, Path], threads: int, *, again: bool) -> Tried:
    try:
        admitted = admit(located, row, parts, threads, again=again)
    except ModelError as error:
        return Tried(row.title(), str(error), [])
    proof = admitted.proof
    proved = f"proved in {proof.seconds:.1f} s on {proof.result.figures['engine']}"
    notes = [proved, *proof.result.notes, *derived_notes(located, row, parts), admitted.note]
    return Tried(row.title(), "", list(filter(None, notes)))
