"""The seconds around an alert as a film. Each pipeline's last seconds are held in memory, as JPEGs."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_agent.errors import EdgeAgentError
from edge_agent.events.objects import clock_of
from edge_agent.pictures.draw import jpeg
from edge_agent.pictures.read import cv2
from edge_agent.recorder.film import film
from edge_agent.recorder.pictures import Pictures
from edge_agent.types import Frame, Pixels, Sample
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.pipeline import Show

SIDE, QUALITY = 1280, 80
"""pixels of the longer side of a clip, and the quality of the JPEGs in between"""
MOST_BYTES = 24_000_000
"""of the JPEGs of one pipeline, and of one clip: earlier frames go, and a clip ends"""
LONGEST_S = 60.0
"""seconds that a clip may grow behind its alert by further ones"""
LATE_S = 5.0
"""seconds that are waited for a frame behind a clip's end: its source may have stopped"""
WAITING = 8
"""frames that wait to be packed; a machine that is too slow drops some"""
FILMS = 4
"""clips that wait to be written; what comes then is lost, and said to be"""
STOP_S, TICK_S = 8.0, 0.25
"""seconds that a stop gives to the clips that are under way, and between two looks whether it is one"""

log = logging.getLogger("edge_agent")

Packed = tuple[float, bytes]


@dataclass(slots=True)
class _Clip:
    """One that is under way."""

    name: str
    first: float
    """the clock of its alert"""
    until: float
    """of its end"""
    frames: list[Packed]
    size: int = 0
    """bytes"""
    ends_at: float = 0.0
    """monotonic: no frame comes any more"""


@dataclass(slots=True)
class _Ring:
    """The last seconds of one pipeline."""

    show: Show
    clock: float = 0.0
    """of its last frame"""
    shape: tuple[int, ...] = ()
    frames: deque[Packed] = field(default_factory=deque)
    size: int = 0
    """bytes"""
    clip: _Clip | None = None


class Clips:
    """Of one agent. `watch` is for the pipelines' threads, `begin` for any; two threads of its own do the work."""

    def __init__(self, pictures: Pictures, before: float, after: float) -> None:
        self._pictures, self._before, self._after = pictures, before, after
        self._rings: dict[str, _Ring] = {}
        self._lock, self._stopping = threading.Lock(), threading.Event()
        self._packing: queue.Queue[tuple[str, float, Pixels]] = queue.Queue(WAITING)
        self._films: queue.Queue[_Clip | None] = queue.Queue(FILMS)  # None: no more of them come
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for work, name in ((self._pack, "clips"), (self._write, "films"))
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def add(self, pipeline: str, show: Show) -> None:
        """Hold the last seconds of a pipeline from now on. `show`: a frame as it may be shown."""
        with self._lock:
            self._rings[pipeline] = _Ring(show)

    def watch(self, pipeline: str, sample: Sample, found: Sequence[SampleOrFinding]) -> None:
        """A frame of it. Returns at once: what cannot be packed in time is left out."""
        if not isinstance(sample, Frame):
            return
        ring = self._rings[pipeline]
        ring.clock = clock_of(sample)
        image = ring.show(sample, found) if not self._packing.full() else None
        if image is not None:
            try:
                self._packing.put_nowait((pipeline, ring.clock, image))
            except queue.Full:
                return

    def begin(self, pipeline: str) -> str:
        """The name of the clip that shows what is now; "" where the pipeline has no pictures. It is on disk once its
        last second is over, if the disk takes it.
        """
        with self._lock:
            ring = self._rings.get(pipeline)
            if ring is None or (not ring.shape and not ring.clock):
                return ""
            now = ring.clock
            if ring.clip is None:
                since = [frame for frame in ring.frames if frame[0] >= now - self._before]
                size = sum(len(data) for _, data in since)
                ring.clip = _Clip(self._pictures.name("mp4"), now, now + self._after, since, size)
            clip = ring.clip
            clip.until = max(clip.until, min(now + self._after, clip.first + LONGEST_S))
            clip.ends_at = time.monotonic() + self._after + LATE_S
            return clip.name

    def stop(self) -> None:
        """No more frames come: what is under way is to be written, with the frames that still wait to be packed.
        Returns at once.
        """
        self._stopping.set()

    def close(self) -> None:
        """Wait for that, but not for long."""
        by = time.monotonic() + STOP_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, by - time.monotonic()))
                if thread.is_alive():
                    log.warning("clips: some are not written, as the agent stops")

    # ── its threads ──────────────────────────────────────────────────────────────────────────────────────

    def _pack(self) -> None:
        """Frames become JPEGs, in their rings and clips; clips that are over go to be written."""
        while True:
            try:
                pipeline, clock, image = self._packing.get(timeout=TICK_S)
            except queue.Empty:
                if self._stopping.is_set():
                    break
                self._end_late()
                continue
            try:
                data, shape = _packed(image)
                with self._lock:
                    self._add(self._rings[pipeline], clock, data, shape)
                self._end_late()
            except Exception:
                log.exception("clips: a frame could not be packed; it goes on")
            finally:
                self._packing.task_done()
        with self._lock:
            for ring in self._rings.values():
                self._finish(ring)
        self._films.put(None)

    def _add(self, ring: _Ring, clock: float, data: bytes, shape: tuple[int, ...]) -> None:
        """The lock is held."""
        if ring.frames and (ring.shape != shape or clock < ring.frames[-1][0]):  # another size, a film begins anew
            self._finish(ring)
            ring.frames.clear()
            ring.size = 0
        ring.shape = shape
        ring.frames.append((clock, data))
        ring.size += len(data)
        while ring.frames[0][0] < clock - self._before or ring.size > MOST_BYTES:
            ring.size -= len(ring.frames.popleft()[1])
        clip = ring.clip
        if clip is None:
            return
        if clock <= clip.until:
            clip.frames.append((clock, data))
            clip.size += len(data)
        if clock >= clip.until or clip.size > MOST_BYTES:
            self._finish(ring)

    def _end_late(self) -> None:
        """Clips whose frames do not come any more."""
        with self._lock:
            for ring in self._rings.values():
                if ring.clip is not None and time.monotonic() > ring.clip.ends_at:
                    self._finish(ring)

    def _finish(self, ring: _Ring) -> None:
        """The lock is held."""
        clip, ring.clip = ring.clip, None
        if clip is None:
            return
        if not clip.frames:
            log.warning("clips: %s is not made: it has no frame that may be shown", clip.name)
            return
        try:
            self._films.put_nowait(clip)
        except queue.Full:
            log.warning("clips: %s is lost: too many at once", clip.name)

    def _write(self) -> None:
        """Clips that are over become films on disk."""
        while (clip := self._films.get()) is not None:
            try:
                self._pictures.keep(clip.name, film(clip.frames))
            except EdgeAgentError as error:
                log.warning("clips: %s is lost: %s", clip.name, error)
            except Exception:
                log.exception("clips: %s is lost; it goes on", clip.name)


def _packed(image: Pixels) -> tuple[bytes, tuple[int, ...]]:
    """A frame as a JPEG, SIDE pixels at most, and its size."""
    height, width = image.shape[:2]
    if (scale := SIDE / max(height, width)) < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return jpeg(image, QUALITY), image.shape
