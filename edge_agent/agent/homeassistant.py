"""The device shows itself to Home Assistant: its entities are announced, changed and removed, and greeted again.

What was announced is kept on disk, so that a restart repeats nothing and knows what there is to remove. An entity is
removed by a message that names nothing but its platform, and one that leaves it out. Who was not there to hear the
first of them keeps it for ever: where it is not known that Home Assistant listens, it is shown and removed once more
when that comes.
"""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent import __version__
from edge_agent.agent.line import Line
from edge_agent.agent.shown import MOST_LABELS, facts_of
from edge_agent.config import Config, photographed
from edge_agent.events import UNREADABLE, DetectionsEvent, Event
from edge_agent.files import read_regular, write_private
from edge_agent.homeassistant import discovery
from edge_agent.homeassistant.discovery import Components
from edge_agent.homeassistant.facts import Device, Topics
from edge_agent.homeassistant.said import said_by
from edge_agent.link import topics

if TYPE_CHECKING:
    from edge_agent.link.link import Link

log = logging.getLogger("edge_agent")

FILE, MOST_BYTES = "homeassistant.json", 1_000_000
"""in the store's folder"""
GAP_S = 5.0
"""seconds between two messages on entities: while it makes some it passes over the rest of the next message"""
GREET_S, AGAIN_S = (1.0, 4.0), 30.0
"""seconds after it came in which it is greeted, by chance, as every device does so; and between two greetings"""
LAST_S = 1.0
"""seconds at least between two last texts and labels of a pipeline"""


class _Kept(msgspec.Struct):
    """What the file holds."""

    topic: str = ""
    payload: str = ""
    """what was announced last there"""
    sent: bool = False
    """and the broker has it"""
    gone: Components = {}
    """what was removed while nobody may have listened"""
    labels: dict[str, list[str]] = {}
    """pipeline -> labels that it has seen, the first ones"""


class HomeAssistant:
    """Of one agent. `keep` may be called from any thread, all else from the agent's."""

    def __init__(
        self, config: Config, link: Link, lines: Sequence[Line], store: Path, wake: Callable[[], object]
    ) -> None:
        """`store`: the folder in which it keeps what was announced; `wake` is called when there is something to do."""
        assert config.homeassistant is not None
        self._config, self._link, self._lines, self._wake = config, link, lines, wake
        self._tail = topics.discovery(config)
        self._topics = _topics(link.base)
        self._file = store / FILE
        self._kept = self._read()
        if self._kept.topic != self._tail:  # what stands under another one is cleared with all that is not said now
            self._kept = _Kept(self._tail, labels=self._kept.labels)
        self._device: Device | None = None
        self._steps: deque[bytes] = deque()
        """messages that are still to be sent, each once the one before it is there"""
        self._step_at = 0.0
        self._here: bool | None = None
        """whether Home Assistant listens; None: nobody knows"""
        self._greet_at: float | None = None
        self._greeted_at = -AGAIN_S
        self._seen: dict[str, Counter[str]] = {}
        self._last: dict[str, dict[str, Any]] = {}
        self._told: dict[str, tuple[dict[str, Any], float]] = {}
        """what was said last of a pipeline, and when (monotonic)"""
        self._to_clear: set[str] = set()
        for status in topics.homeassistant_status(config):
            link.subscribe(status, self._on_status, retained=False)
        self.look()

    # ── what it is shown ─────────────────────────────────────────────────────────────────────────────────

    def keep(self, event: Event) -> None:
        """An event was kept."""
        if isinstance(event, DetectionsEvent):
            self._seen[event.pipeline] = Counter(box.label for box in event.detections)
        elif said := said_by(event):
            self._last[event.pipeline] = {**self._last.get(event.pipeline, {"v": 1}), **said}

    def counts(self, line: Line) -> dict[str, Any] | None:
        """What a pipeline has in view that detects and does not track; None for any other."""
        if line.follow is not None or not line.config.tasks or not line.config.tasks[-1].startswith("detect"):
            return None
        return {"v": 1, "all": dict(self._seen.get(line.config.name, {})), "zones": {}, "lines": {}}

    def last(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pipelines that have a new text or label, and what it is."""
        now = time.monotonic()
        for name, last in list(self._last.items()):
            before, at = self._told.get(name, ({}, -LAST_S))
            if last is not before and now >= at + LAST_S:
                self._told[name] = last, now
                yield name, last

    def tails(self) -> list[str]:
        """Topics whose last words hold until there are newer ones."""
        return [self._tail, *(topics.last(line.config.name) for line in self._lines)]

    def forget(self, name: str) -> None:
        """There is no pipeline of this name any more."""
        for of in (self._seen, self._last, self._told, self._kept.labels):
            of.pop(name, None)
        self.clear(topics.last(name))

    def clear(self, tail: str) -> None:
        """A topic is to be cleared once its entities are gone, which take an empty text for a broken one."""
        self._to_clear.add(tail)

    def turn_to(self, config: Config) -> None:
        """Another config holds, with other rules and profiles."""
        self._config = config

    # ── announcing ───────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Announce what is new, remove what is gone, and greet what has come; to be called before states are said."""
        now = time.monotonic()
        self._note_labels()
        device = self._facts()
        if device != self._device:
            self._plan(device, before=self._device)
            self._device = device
        if self._greet_at is not None and now >= self._greet_at:
            self._greet(device)
        self._step(now)

    def _facts(self) -> Device:
        config, pictured = self._config, photographed(self._config)
        return Device(
            id=config.device.id,
            node=f"edge-agent_{topics.node(config)}",
            version=__version__,
            pipes=[
                facts_of(line, self._kept.labels.get(line.config.name, ()), line.config.name in pictured)
                for line in self._lines
            ],
            rules=[rule.name for rule in config.rule],
            profiles=[profile.name for profile in config.profile],
            commands=config.mqtt.signers is None,
        )

    def _note_labels(self) -> None:
        """Remember labels that are seen for the first time."""
        fresh = False
        for line in self._lines:
            name = line.config.name
            counts = line.follow.counts if line.follow is not None else self.counts(line) or {}
            known = self._kept.labels.setdefault(name, [])
            new = [label for label in counts.get("all", ()) if label not in known][: MOST_LABELS - len(known)]
            known += new
            fresh |= bool(new)
        if fresh:
            self._write()

    def _plan(self, device: Device, before: Device | None) -> None:
        """Work out the messages that lead from what was announced to what is to be."""
        wanted, left_out = discovery.components(device, self._topics)
        if left_out:
            log.warning("homeassistant: %d entities are not shown: the message would be too large", left_out)
        gone = _without(discovery.read(self._kept.payload), wanted)
        # what was being removed when the agent was stopped has only its platform left
        unheard = {} if self._here else {cid: one for cid, one in gone.items() if len(one) > 1}
        self._kept.gone = _without({**self._kept.gone, **unheard}, wanted)
        last = discovery.message(device, self._topics, wanted)
        if before is None and self._kept.sent and self._kept.payload == last.decode():
            self._link.announce(self._tail, last, known=True)
            return
        self._steps.clear()
        if gone:
            self._steps.append(discovery.message(device, self._topics, {**discovery.removed(gone), **wanted}))
        self._steps.append(last)

    def _step(self, now: float) -> None:
        """Send the next message, once the one before it has arrived and had its time."""
        if not self._kept.sent and self._kept.payload and self._link.stands(self._tail):
            self._kept.sent = True
            self._write()
        if now < self._step_at or (self._step_at and not self._kept.sent):
            return
        if not self._steps:
            self._clear()
            return
        payload = self._steps.popleft()
        self._kept.payload, self._kept.sent, self._step_at = payload.decode(), False, now + GAP_S
        self._write()
        self._link.announce(self._tail, payload)
        log.info("homeassistant: announced on %s, %d bytes", self._tail[1:], len(payload))

    def _clear(self) -> None:
        """Clear what nobody serves any more and no entity listens to."""
        names = [line.config.name for line in self._lines]
        live = {tail(name) for name in names for tail in (topics.state, topics.counts, topics.last)}
        live |= {topics.RULES} if self._config.rule else set()
        live |= {topics.PROFILE} if self._config.profile else set()
        gone, self._to_clear = self._to_clear - live, set()
        for tail in gone:
            self._link.unsay(tail)

    # ── Home Assistant comes and goes ────────────────────────────────────────────────────────────────────

    def _on_status(self, topic: str, payload: bytes) -> None:
        """On the link's thread: it says that it has come, or that it goes."""
        if payload in (b"online", b"offline"):
            self._here = payload == b"online"
        if payload == b"online":
            soon = time.monotonic() + random.uniform(*GREET_S)
            self._greet_at = max(soon, self._greeted_at + AGAIN_S)
            self._wake()

    def _greet(self, device: Device) -> None:
        """Say all again, and remove what may still be there."""
        self._greet_at, self._greeted_at = None, time.monotonic()
        self._link.say_again()
        gone = self._kept.gone
        if gone and not self._steps:
            wanted, _ = discovery.components(device, self._topics)
            some = ({**gone, **wanted}, {**discovery.removed(gone), **wanted}, wanted)
            self._steps.extend(discovery.message(device, self._topics, one) for one in some)
            self._step_at, self._kept.gone = time.monotonic() + GAP_S, {}
            self._write()

    # ── on disk ──────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> _Kept:
        with suppress(OSError, *UNREADABLE):  # then all is announced anew
            return msgspec.json.decode(read_regular(self._file, MOST_BYTES), type=_Kept)
        return _Kept()

    def _write(self) -> None:
        """A disk that refuses is no reason to stop: a restart announces all anew then."""
        fresh = self._file.with_suffix(".new")
        with suppress(OSError):
            write_private(fresh, msgspec.json.encode(self._kept))
            fresh.replace(self._file)


def _without(some: Components, others: Mapping[str, object]) -> Components:
    return {cid: one for cid, one in some.items() if cid not in others}


def _topics(base: str) -> Topics:
    """Where things of a device stand."""

    def of(tail: Callable[[str], str]) -> Callable[[str], str]:
        return lambda name: topics.whole(base, tail(name))

    fixed = (topics.STATUS, topics.HEALTH, topics.PROFILE, topics.RULES)
    status, health, profile, rules = (topics.whole(base, tail) for tail in fixed)
    named = (topics.state, topics.counts, topics.last, topics.snapshot, topics.command)
    return Topics(status, health, profile, rules, *map(of, named))
