"""Writes recordings (walk/recording.py) while pipelines work: what they answered, in its order, as it came.

While an agent does its work, no camera waits for the disk: frames that it does not keep up with are left out, and
counted in the row that follows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, TypeAlias

import msgspec

from edge_agent.files import PRIVATE, folder, write_private
from edge_agent.pictures.draw import png
from edge_agent.types import Audio, Frame, Heard, Sample
from edge_agent.walk import recording
from edge_agent.walk.recording import Head, Row, Sampled

log = logging.getLogger("edge_agent")

MOST_WAITING = 48_000_000
"""bytes of samples that wait for the disk"""
LEAST_FREE = 200_000_000
"""bytes that the disk is to have left: events need them more"""
PARTS = 4
"""parts that what may be kept in all is divided into: the oldest goes when the next one begins"""
CLOSE_S = 20.0

Files: TypeAlias = Mapping[str, bytes]
"""name below the recording's folder -> what it holds"""
Item: TypeAlias = "tuple[Head, Files] | tuple[Row, Sample | None] | bytes"


class Tape:
    """Of one agent. All but `start` and `close` may be called from any thread, in the order of what happens."""

    def __init__(self, place: Path, most: int, days: float, whole: Path | None = None) -> None:
        """At most so many bytes and days are kept below `place`, in parts; `whole`: one recording, until it is full."""
        self._place, self._most, self._days, self._whole = place, most, days, whole
        self.full = threading.Event()
        """no more is kept: the bytes are used up, or the disk takes no more"""
        self.samples = self.events = self.bytes = 0
        """kept in this part"""
        self.lost = 0
        self._lost_now = 0
        self._waiting: deque[tuple[Item, int]] = deque()
        self._bytes_waiting, self._changed = 0, threading.Condition()
        self._closed = False
        self._head: Head | None = None
        self._folder = place
        self._rows: BinaryIO | None = None
        self._events: BinaryIO | None = None
        self._thread = threading.Thread(target=self._write, name="recording", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def begin(self, head: Head, files: Files) -> None:
        """A new recording begins here."""
        self._put((head, files), 0)

    def row(self, row: Row, sample: Sample | None = None, wait: bool = False) -> None:
        """Something happened. `wait`: until there is room for it, as one whole recording always does."""
        size = sample.image.nbytes if isinstance(sample, Frame) else 0
        with self._changed:
            while self._bytes_waiting + size > MOST_WAITING and self._bytes_waiting and not self._over:
                if not (wait or self._whole):
                    self.lost += 1
                    self._lost_now += 1
                    return
                self._changed.wait()
            if self._lost_now:
                row, self._lost_now = msgspec.structs.replace(row, lost=self._lost_now), 0
        self._put((row, sample), size)

    def event(self, said: bytes) -> None:
        """An event was kept; its JSON."""
        self._put(said, 0)

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    @property
    def _over(self) -> bool:
        return self._closed or self.full.is_set()

    def _put(self, item: Item, size: int) -> None:
        with self._changed:
            if not self._over:
                self._waiting.append((item, size))
                self._bytes_waiting += size
                self._changed.notify_all()

    # ── its thread ───────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        try:
            while (taken := self._next()) is not None:
                item, size = taken
                self._take(item)
                with self._changed:
                    self._bytes_waiting -= size
                    self._changed.notify_all()
        except OSError as error:
            log.warning("recording: %s: %s; nothing more is recorded", self._folder, error.strerror)
        finally:
            self._shut()
            with self._changed:
                self.full.set()
                self._waiting.clear()
                self._bytes_waiting = 0
                self._changed.notify_all()

    def _next(self) -> tuple[Item, int] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting and not self.full.is_set() else None

    def _take(self, item: Item) -> None:
        """One item onto the disk. OSError."""
        if isinstance(item, bytes):
            self._line(self._events, item)
            self.events += 1
        elif isinstance(item[0], Head):
            self._open(item[0], item[1])
        else:
            self._keep(*item)

    def _keep(self, row: Row, sample: Sample | None) -> None:
        if sample is not None:
            row = msgspec.structs.replace(row, sample=self._sampled(sample))
            self.samples += 1
        self._line(self._rows, msgspec.json.encode(row))
        if self._whole is not None and self.bytes >= self._most:
            self.full.set()
        elif self.bytes >= self._most / PARTS and self._head is not None:
            self._open(msgspec.structs.replace(self._head, fresh=False, at=time.time()), {})

    def _sampled(self, sample: Sample) -> Sampled:
        """A sample's row, once its picture or sound is on the disk."""
        if not isinstance(sample, Frame | Audio):
            got = sample.got
            heard, read = (got, None) if isinstance(got, Heard) else (None, got)
            return Sampled(sample.at, sample.mono, text=sample.text, heard=heard, read=read)
        number, plain = f"{self.samples + 1:06}", Sampled(sample.at, sample.mono, name=sample.name)
        if isinstance(sample, Frame):
            row = msgspec.structs.replace(
                plain, file=f"{number}.png", played=sample.played, cut=sample.cut, decode_ms=sample.decode_ms
            )
            raw = png(sample.image)
        else:
            row = msgspec.structs.replace(plain, file=f"{number}.f32", rate=sample.rate, last=sample.last)
            raw = sample.samples.astype("<f4").tobytes()
        if shutil.disk_usage(self._folder).free < LEAST_FREE + len(raw):
            raise OSError(0, f"less than {LEAST_FREE // 10**6} MB are left on the disk")
        write_private(self._folder / recording.DATA / row.file, raw)
        self.bytes += len(raw)
        return row

    def _line(self, file: BinaryIO | None, line: bytes) -> None:
        if file is not None:
            file.write(line + b"\n")
            self.bytes += len(line) + 1

    def _open(self, head: Head, files: Files) -> None:
        """A new part. OSError."""
        self._shut()
        if self._whole is None:
            self._make_room()
        self._folder = self._whole or _free_name(self._place, head.at)
        for name in (recording.DATA, recording.FILES, recording.STATE):
            folder(self._folder, PRIVATE)
            folder(self._folder / name, PRIVATE)
        for name, raw in files.items():
            folder((self._folder / name).parent, PRIVATE)
            write_private(self._folder / name, raw)
        self.bytes, self.samples, self.events, self._head = sum(map(len, files.values())), 0, 0, head
        write_private(self._folder / recording.HEAD, msgspec.json.encode(head))
        self._rows, self._events = (_appending(self._folder / name) for name in (recording.ROWS, recording.EVENTS))

    def _shut(self) -> None:
        for file in (self._rows, self._events):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()
        self._rows = self._events = None

    def _make_room(self) -> None:
        """Delete what is too old, and the oldest of what would be too much with another part."""
        left, oldest = self._most * (PARTS - 1) / PARTS, time.time() - self._days * 86_400
        for part in sorted(recording.parts(self._place), reverse=True):
            left -= sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
            if left < 0 or part.stat().st_mtime < oldest:
                shutil.rmtree(part, ignore_errors=True)


def _free_name(place: Path, at: float) -> Path:
    stem = time.strftime("%Y%m%d-%H%M%S", time.gmtime(at))
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return place / next(name for name in names if not (place / name).exists())


def _appending(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab", buffering=0)
