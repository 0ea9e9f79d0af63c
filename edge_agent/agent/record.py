"""What the agent keeps of pictures: wired to its pipelines, its events and its connection."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.config import Config, Samples
from edge_agent.config.times import seconds
from edge_agent.events import (
    AnomalyEvent,
    CrossingEvent,
    DetectionsEvent,
    Event,
    ObjectEvent,
    Pictured,
    RuleEvent,
)
from edge_agent.files import read_regular
from edge_agent.link import topics
from edge_agent.types import Frame, Sample, Text
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Watcher
from edge_agent.walk.recording import place

if TYPE_CHECKING:
    from edge_agent.link.link import Link
    from edge_agent.recorder.album import Album
    from edge_agent.recorder.clips import Clips
    from edge_agent.recorder.collect import Collect
    from edge_agent.recorder.pictures import Pictures

SAY_S, METERED_S = 1.0, 60.0
"""seconds at least between two snapshots that are sent of a pipeline; on a metered link"""
FOLDER = "pictures"
"""in the store"""
MOST_BYTES = 64_000
"""of a snapshot that is sent"""
KNOWN = 1000
"""events whose pictures are remembered, for those of rules; objects whose clips are"""

Known = TypeVar("Known")

log = logging.getLogger("edge_agent")


def _collect_of(samples: Samples) -> Collect | None:
    """What keeps samples to be corrected, where the config asks for some."""
    if not samples.collect:
        return None
    from edge_agent.recorder.collect import Collect

    every = seconds(samples.collect_every)
    return Collect(samples.collect, every, samples.collect_most, samples.days, samples.consent or "")


class Recorder:
    """Of one agent, and a part beside its pipelines. `pictures`: None where neither snapshots nor clips are kept."""

    def __init__(self, config: Config, keep: Keep, link: Link | None) -> None:
        samples, outbox = config.samples, keep.outbox
        self._samples, self._link = samples, link
        self.pictures: Pictures | None = None
        self._clips: Clips | None = None
        self._albums: dict[str, Album] = {}
        """pipeline -> its best pictures"""
        self._clips_of: dict[str, frozenset[str]] = {}
        """pipeline -> its alerts that have clips"""
        self._to_say: dict[str, str] = {}
        """pipeline -> name of its newest snapshot, which the broker does not have"""
        self._said_at: dict[str, float] = {}
        self._known: dict[str, Pictured] = {}
        """id of an event -> the event"""
        self._object_clips: dict[str, str] = {}
        """object -> its newest clip"""
        if samples.pictures:
            from edge_agent.recorder.pictures import Pictures

            sent = (lambda: outbox.empty) if link is not None else (lambda: True)
            self.pictures = Pictures(outbox.path / FOLDER, samples.max_bytes, samples.days, sent)
            if link is not None:
                outbox.on_done = self.pictures.arrived
            keep.fillers.append(self._fill)
            keep.listeners.append(self._kept)
        if samples.clips and self.pictures is not None:
            from edge_agent.recorder.clips import Clips

            self._clips = Clips(self.pictures, seconds(samples.before), seconds(samples.after))
        self._collect = _collect_of(samples)
        self._works = [part for part in (self._clips, self._collect) if part is not None]

    @property
    def differing(self) -> Collect | None:
        """Keeps what another model says something else of, where the config asks for it."""
        return self._collect if "disagreed" in self._samples.collect else None

    def attach(self, line: Line) -> None:
        """Have a pipeline's frames looked at, where they are pictures, and its objects' pictures named."""
        if line.opened.yields is not Frame:
            self._attach_texts(line)
            return
        from edge_agent.recorder.shown import Shown

        name, shown = line.config.name, Shown(line.config.blur or ())
        line.show = shown
        if shown.labels:
            line.watchers.append(_guarded(shown.watch, name))
        if self._samples.snapshots and self.pictures is not None:
            from edge_agent.recorder.album import Album

            album = self._albums[name] = Album(self.pictures, shown, self._samples.whole)
            line.watchers.append(_guarded(album.watch, name))
            if line.follow is not None:
                line.follow.picture = album.of
        if self._clips is not None:
            self._clips_of[name] = self._samples.clips_of(any(not zone.mask for zone in line.zones))
            self._clips.add(name, shown)
            line.watchers.append(_guarded(partial(self._clips.watch, name), name))
        if self._collect is not None:
            self._collect.add(name, shown, line.guard.words)
            line.watchers.append(_guarded(partial(self._collect.watch, name), name))

    def _attach_texts(self, line: Line) -> None:
        """Have a pipeline's texts looked at, where they are to be corrected."""
        if self._collect is not None and line.opened.yields is Text:
            name = line.config.name
            self._collect.add(name, lambda frame, found: None, line.guard.words)
            line.watchers.append(_guarded(partial(self._collect.watch, name), name))

    # ── a part of the agent ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin; returns at once."""
        for work in self._works:
            work.start()

    def stop(self, seconds: float) -> None:
        """Begin to end; returns at once."""
        for work in self._works:
            work.stop()

    def close(self) -> None:
        """Wait for the end, but not for long."""
        for work in self._works:
            work.close()

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, event: Event, kind: str) -> Event:
        """The event with the names of its pictures."""
        if not isinstance(event, Pictured) or kind != "alert":
            return event
        about = [self._known[name] for name in getattr(event, "because", ()) if name in self._known]
        snapshot, clip = event.snapshot or self._snapshot(event, about), self._clip(event, about)
        return msgspec.structs.replace(event, snapshot=snapshot, clip=clip) if snapshot or clip else event

    def _snapshot(self, event: Pictured, about: Sequence[Pictured]) -> str:
        """The name of a picture of its frame, or of the newest event that it is `about`; "" where there is none."""
        album = self._albums.get(event.pipeline)
        named = (one.snapshot for one in reversed(about) if one.snapshot)
        return next(named, album.of_frame(event) if album is not None else "")

    def _clip(self, event: Pictured, about: Sequence[Pictured]) -> str:
        """The name of the clip that shows what it is about; "" where there is none."""
        if self._clips is None:
            return ""
        pipelines = [event.pipeline, *(one.pipeline for one in reversed(about))]
        what = {name for name, true in _ALERTS.get(type(event), lambda event: {})(event).items() if true}
        due = [name for name in dict.fromkeys(pipelines) if what & self._clips_of.get(name, frozenset())]
        names = [self._clips.begin(name) for name in due]
        name = next(filter(None, names), "")
        if not isinstance(event, ObjectEvent):
            return name
        if name:
            _remember(self._object_clips, event.object, name)
        return self._object_clips.get(event.object, "")

    def _kept(self, event: Event) -> None:
        """An event was kept."""
        if self.pictures is None or not isinstance(event, Pictured):
            return
        _remember(self._known, event.id, event)
        names = [name for name in (event.snapshot, event.clip) if name]
        if names and self._link is not None:
            self.pictures.named(event.seq, *names)
        if event.snapshot and event.pipeline in self._albums:
            self._to_say[event.pipeline] = event.snapshot

    # ── the broker ───────────────────────────────────────────────────────────────────────────────────────

    def tails(self) -> list[str]:
        """Topics whose last words hold until there is a newer snapshot."""
        if not (self._samples.snapshots and self._samples.retain):
            return []
        return [topics.snapshot(name) for name in self._albums]

    def forget(self, name: str, for_good: bool) -> None:
        """A pipeline has ended; `for_good`: there is none of its name any more."""
        if for_good and self._albums.pop(name, None) is not None and self._link is not None:
            self._to_say.pop(name, None)
            self._link.unsay(topics.snapshot(name))

    def say_due(self) -> None:
        """Send the newest snapshot of each pipeline, if there is one, and delete what is too old."""
        if self.pictures is None:
            return
        self.pictures.tidy()
        link, now = self._link, time.monotonic()
        if link is None or not link.connected:
            return
        apart = SAY_S if link.budget.per_day is None else METERED_S
        for name in list(self._to_say):
            if now - self._said_at.get(name, -METERED_S) >= apart and self._say(link, name):
                del self._to_say[name]
                self._said_at[name] = now

    def _say(self, link: Link, name: str) -> bool:
        """Send the newest snapshot of a pipeline, if it is there still; False where the day's bytes do not allow it."""
        path, data = self.pictures.path(self._to_say[name]) if self.pictures else None, b""
        with contextlib.suppress(OSError):
            data = read_regular(path, MOST_BYTES) if path is not None else b""
        if not link.budget.spares(len(data)):
            return False
        if data:
            (link.announce if self._samples.retain else link.tell)(topics.snapshot(name), data)
        return True


def about_pictures(config: Config) -> list[str]:
    """What is kept of pictures by this config, for people; a line each."""
    samples, said = config.samples, list[str]()
    if samples.pictures:
        from edge_agent.recorder.film import said as how

        what = ["snapshots"] * samples.snapshots + [f"clips as {how()}"] * bool(samples.clips)
        said.append(f"pictures: {', '.join(what)}; at most {samples.max_bytes // 10**6} MB, {samples.days:g} days")
    if samples.collect:
        said.append(f"samples: {' and '.join(samples.collect)} frames are kept below HOME/samples for you to correct")
    if samples.record:
        whose = "of all pipelines" if samples.record is True else f"of {', '.join(samples.record)}"
        said.append(
            f"recording: pictures, sound and texts {whose} as they come, below {place()} (mode 0600), at most "
            f"{samples.record_bytes // 10**6} MB, {samples.days:g} days"
        )
    hidden = {pipe.name: pipe.blur for pipe in config.pipeline if pipe.blur}
    said += [f"{name}: {', '.join(labels)} hidden in pictures, where it is found" for name, labels in hidden.items()]
    return said


_ALERTS: dict[type[Event], Callable[[Any], dict[str, object]]] = {
    ObjectEvent: lambda event: {
        "new": event.phase == "new",
        "zone": event.entered,
        "loiters": event.loiters and event.phase != "end",
    },
    CrossingEvent: lambda event: {"crossing": True},
    DetectionsEvent: lambda event: {"detections": event.detections and event.detections[0].object is msgspec.UNSET},
    AnomalyEvent: lambda event: {"anomaly": event.unusual},
    RuleEvent: lambda event: {"rule": event.phase == "on"},
}
"""kind of event -> what it is of all that may have a clip; see config.samples.ClipOf"""


def _remember(what: dict[str, Known], key: str, value: Known) -> None:
    """The newest KNOWN."""
    what.pop(key, None)
    what[key] = value
    while len(what) > KNOWN:
        with contextlib.suppress(StopIteration, KeyError, RuntimeError):  # another thread may do the same
            what.pop(next(iter(what)))


def _guarded(watch: Watcher, name: str) -> Watcher:
    """The watcher, which never raises: a picture that cannot be made costs no event."""
    failed = False

    def guarded(sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        nonlocal failed
        try:
            watch(sample, found)
        except Exception:
            if not failed:
                log.exception("%s: a picture could not be made; it goes on without", name)
            failed = True

    return guarded
