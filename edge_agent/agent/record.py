"""What the agent keeps of pictures: wired to its pipelines, its events and its connection."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.config import Config
from edge_agent.events import Event, Pictured
from edge_agent.files import read_regular
from edge_agent.link import topics
from edge_agent.types import Frame, Sample
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Watcher

if TYPE_CHECKING:
    from edge_agent.link.link import Link
    from edge_agent.recorder.album import Album
    from edge_agent.recorder.pictures import Pictures

SAY_S, METERED_S = 1.0, 60.0
"""seconds at least between two snapshots that are sent of a pipeline; on a metered link"""
FOLDER = "pictures"
"""in the store"""
MOST_BYTES = 64_000
"""of a snapshot that is sent"""

log = logging.getLogger("edge_agent")


class Recorder:
    """Of one agent. `pictures` is None where neither snapshots nor clips are asked for."""

    def __init__(self, config: Config, keep: Keep, link: Link | None) -> None:
        outbox = keep.outbox
        self._samples, self._link = config.samples, link
        self.pictures: Pictures | None = None
        self._albums: dict[str, Album] = {}
        """pipeline -> its best pictures"""
        self._to_say: dict[str, str] = {}
        """pipeline -> name of its newest snapshot, which the broker does not have"""
        self._said_at: dict[str, float] = {}
        if config.samples.pictures:
            from edge_agent.recorder.pictures import Pictures

            sent = (lambda: outbox.empty) if link is not None else (lambda: True)
            self.pictures = Pictures(outbox.path / FOLDER, config.samples.max_bytes, config.samples.days, sent)
            if link is not None:
                outbox.on_done = self.pictures.arrived
            keep.fillers.append(self._fill)
            keep.listeners.append(self._kept)

    def attach(self, line: Line) -> None:
        """Have a pipeline's frames looked at, where they are pictures, and its objects' pictures named."""
        if line.opened.yields is not Frame:
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

    # ── events ───────────────────────────────────────────────────────────────────────────────────────────

    def _fill(self, event: Event, kind: str) -> Event:
        """The event with the names of its pictures."""
        album = self._albums.get(event.pipeline)
        return album.fill(event) if album is not None and kind == "alert" else event

    def _kept(self, event: Event) -> None:
        """An event was kept."""
        if self.pictures is None or not isinstance(event, Pictured):
            return
        names = [name for name in (event.snapshot, event.clip) if name]
        if names and self._link is not None:
            self.pictures.named(event.seq, *names)
        if event.snapshot:
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
        metered = link.budget.per_day is not None
        for name in list(self._to_say):
            if now - self._said_at.get(name, -METERED_S) < (METERED_S if metered else SAY_S) or link.budget.saving:
                continue
            path = self.pictures.path(self._to_say.pop(name))
            with contextlib.suppress(OSError):
                if path is not None:
                    self._said_at[name] = now
                    say = link.say if self._samples.retain else link.tell
                    say(topics.snapshot(name), read_regular(path, MOST_BYTES))


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
