"""What waits to be sent, on disk: a file each, in a folder for its owner alone."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from pathlib import Path

import msgspec

from edge_agent.events import JSON, KNOWN_TIME, UNREADABLE, Event
from edge_agent.files import PRIVATE, folder, read_regular, sync, write_private

log = logging.getLogger("edge_agent")

MOST, MOST_BYTES = 1000, 8_000_000
"""files, and bytes in them; of more the oldest go"""
MOST_FILE = 1_000_000
"""bytes of one"""


class Waiting(msgspec.Struct, frozen=True):
    """An event that waits."""

    at: float
    """when it came, seconds since 1970"""
    event: Event
    picture: str = ""
    """name of its snapshot"""


class _OnDisk(msgspec.Struct, frozen=True):
    at: float
    event: msgspec.Raw
    picture: str = ""


def since(at: float) -> float:
    """A time of the wall's clock on the monotonic one; now, where it cannot be right."""
    return time.monotonic() - max(0.0, time.time() - at if at > KNOWN_TIME else 0.0)


class Spool:
    """A queue on disk. `add` and `settle` are for any thread, the rest for one.

    An event is added before it is kept, so that no kill comes between, and settled once it is. What a kill left
    unsettled is sent as it is: it lacks its number, and may not have been kept.
    """

    def __init__(self, place: Path) -> None:
        """Raises OSError where there can be no such folder."""
        self.place, self.clock = folder(place, PRIVATE), time.time
        self._lock = threading.Lock()
        self._sizes: dict[int, int] = {}
        """number -> bytes, the oldest first"""
        self._born: dict[int, float] = {}
        """number -> when it came, monotonic: a clock that is set makes nothing older"""
        self._fresh: set[int] = set()
        """settled, and not confirmed by the disk yet"""
        self._refused: dict[int, bytes] = {}
        """those of them that the disk did not take"""
        self._unsettled: set[int] = set()
        self.dropped = 0
        """that are not sent any more, since the last message that said so"""
        for path in place.glob("*.part"):  # of a kill
            path.unlink(missing_ok=True)
        for path in sorted(place.glob("[0-9]*.json")):
            with contextlib.suppress(ValueError, OSError):
                at = path.stat()
                self._sizes[int(path.stem)], self._born[int(path.stem)] = at.st_size, since(at.st_mtime)
        self._numbers = itertools.count(max(self._sizes, default=0) + 1)

    def _path(self, number: int) -> Path:
        return self.place / f"{number:012}.json"

    def add(self, event: Event) -> int:
        """Note an event that is about to be kept; its number here."""
        number, raw = next(self._numbers), msgspec.json.encode(Waiting(self.clock(), event))
        try:
            write_private(self._path(number), raw)
        except OSError as error:
            log.warning("%s: %s; what is to be sent waits in memory", self.place, error.strerror)
        with self._lock:
            self._sizes[number], self._born[number] = len(raw), time.monotonic()
            self._unsettled.add(number)
        self.drop(self._excess())  # here, as the other thread may wait for a server
        return number

    def _excess(self) -> list[int]:
        """The oldest, of more than may wait."""
        with self._lock:
            gone, size = list[int](), sum(self._sizes.values())
            for number, own in self._sizes.items():
                if size <= MOST_BYTES and len(self._sizes) - len(gone) <= MOST:
                    break
                gone.append(number)
                size -= own
        return gone

    def settle(self, number: int, event: Event, picture: str) -> None:
        """It was kept, as this event."""
        raw = msgspec.json.encode(Waiting(self.clock(), event, picture))
        with self._lock:
            self._unsettled.discard(number)
            if number in self._sizes:  # it may have had to go already
                self._write(number, raw)
                self._fresh.add(number)

    def _write(self, number: int, raw: bytes) -> None:
        """Put it in the place of what was noted, or keep it in memory where the disk refuses."""
        part = self._path(number).with_suffix(".part")
        try:
            write_private(part, raw)
            part.replace(self._path(number))
            self._refused.pop(number, None)
        except OSError:
            self._refused[number] = raw

    def confirm(self) -> None:
        """Have the disk confirm what was settled; where it refuses, that waits in memory."""
        with self._lock:
            fresh, self._fresh = self._fresh, set(self._refused)
            for number, raw in list(self._refused.items()):
                self._write(number, raw)
        for number in fresh:
            with contextlib.suppress(OSError):  # it may have gone meanwhile
                sync(self._path(number))
        if fresh:
            self._sync()

    def waiting(self, hours: float) -> list[int]:
        """The numbers of those that can be sent, the oldest first; those that are older, or too many, go."""
        old = time.monotonic() - hours * 3600
        with self._lock:
            late = [number for number, born in self._born.items() if born < old and number not in self._unsettled]
        self.drop(late)
        self.drop(self._excess())
        with self._lock:
            return [number for number in self._sizes if number not in self._unsettled]

    def read(self, number: int) -> Waiting | None:
        """What waits under a number; None where it cannot be read, and then it is gone."""
        raw = self._refused.get(number)
        try:
            raw = raw or read_regular(self._path(number), MOST_FILE)
            found = msgspec.json.decode(raw, type=_OnDisk)
            return Waiting(found.at, JSON.decode(bytes(found.event)), found.picture)
        except (OSError, *UNREADABLE) as error:
            log.warning("%s: %s cannot be read (%s)", self.place, self._path(number).name, type(error).__name__)
            self.drop([number])
            return None

    def done(self, numbers: list[int]) -> None:
        """They were sent: strike them off, also for the time after a power cut."""
        self._strike(numbers)
        self._sync()

    def drop(self, numbers: list[int]) -> None:
        """They are not sent any more."""
        self.dropped += len(numbers)
        self._strike(numbers)

    def _strike(self, numbers: list[int]) -> None:
        for number in numbers:
            with self._lock:
                for known in (self._sizes, self._born, self._refused):
                    known.pop(number, None)
                for some in (self._unsettled, self._fresh):
                    some.discard(number)
                with contextlib.suppress(OSError):
                    self._path(number).unlink(missing_ok=True)

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            sync(self.place)
