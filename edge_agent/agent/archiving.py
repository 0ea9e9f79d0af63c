"""Each event that is kept goes into the archive, too, on a thread of its own: sending waits for nothing here."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.keep import Keep
from edge_agent.config.archive import Archived
from edge_agent.errors import StoreError, tenfold
from edge_agent.events import Event

if TYPE_CHECKING:
    from edge_agent.archive.archive import Archive

log = logging.getLogger("edge_agent")

WAITING = 5000
"""events that wait to be archived; more are not archived"""
AT_ONCE = 500
"""events that are written together at most"""
GATHER_S = 0.5
"""seconds for which events are gathered before they are written"""
PRUNE_S = 600.0
"""seconds between two looks at what is too old or too much"""


def archiver_of(section: Archived | None, store: Path, keep: Keep) -> tuple[Archiver | None, Callable[[], str]]:
    """What archives each event that is kept, and how that fares, for people. Where the archive cannot be opened, that
    is logged, and events are sent all the same.
    """
    if section is None:
        return None, lambda: "off"
    try:
        archiver = Archiver(section, store)
    except StoreError as error:
        why = str(error)
        log.error("archive: %s; events are sent, and are not archived", why)
        return None, lambda: why
    keep.listeners.append(archiver)
    return archiver, lambda: archiver.state


class Archiver:
    """A listener of `Keep`. An event that cannot be archived is sent all the same; that it was not is said."""

    def __init__(self, section: Archived, store: Path) -> None:
        """Open the archive, which lies in the store's folder. StoreError where that cannot be done."""
        from edge_agent.archive.archive import NAME, Archive

        self.archive: Archive = Archive(store / NAME, days=section.days, max_bytes=section.max_bytes)
        self.trouble = ""
        """why events are not archived now, one line"""
        self.missed = 0
        """events that were not archived"""
        self._pipelines = section.pipelines
        self._waiting: queue.Queue[Event | None] = queue.Queue(WAITING)
        self._thread = threading.Thread(target=self._work, name="archive", daemon=True)

    @property
    def state(self) -> str:
        """For people: "ok", or why events are not archived."""
        return self.trouble or "ok"

    def __call__(self, event: Event) -> None:
        """Take an event, if it is one that is archived."""
        if self._pipelines and event.pipeline not in self._pipelines:
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._miss(1, f"the disk is too slow, {WAITING} events wait already")

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self, seconds: float) -> None:
        """Write what waits, for so long at most, and close the archive. That there was no time for some is said."""
        by = time.monotonic() + seconds
        with suppress(queue.Full):
            self._waiting.put(None, timeout=seconds)
        if self._thread.is_alive():
            self._thread.join(max(0.1, by - time.monotonic()))
        if not self._thread.is_alive():
            self.archive.close()
            return
        log.warning(
            "archive: the disk is too slow, the last events may not be in it; they are kept and sent all the same"
        )

    # ── its thread ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        prune_at, over = 0.0, False
        while not over:
            if time.monotonic() >= prune_at:
                self._try(self.archive.prune)
                prune_at = time.monotonic() + PRUNE_S
            events, over = self._gathered(prune_at)
            if events and not self._try(partial(self.archive.add, events)):
                self._miss(len(events), self.trouble)

    def _gathered(self, prune_at: float) -> tuple[list[Event], bool]:
        """The next event and what comes within GATHER_S of it, nothing once it is `prune_at`; and whether no more will
        come.
        """
        events, until = list[Event](), prune_at
        while len(events) < AT_ONCE and (left := until - time.monotonic()) > 0:
            try:
                event = self._waiting.get(timeout=left)
            except queue.Empty:
                break
            if event is None:
                return events, True
            if not events:
                until = time.monotonic() + GATHER_S
            events.append(event)
        return events, False

    def _try(self, write: Callable[[], object]) -> bool:
        """Whether the disk took it; what changed about that is logged."""
        try:
            write()
        except StoreError as error:
            if not self.trouble:
                log.error("archive: %s; events are sent, and are not archived meanwhile", error)
            self.trouble = str(error)
            return False
        if self.trouble:
            log.warning("archive: it is written again; %d events are not in it", self.missed)
        self.trouble = ""
        return True

    def _miss(self, count: int, why: str) -> None:
        for _ in range(count):
            self.missed += 1
            if tenfold(self.missed):
                log.warning("archive: %d events were not archived: %s", self.missed, why)
