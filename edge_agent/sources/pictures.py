"""``files:PATH``: a picture, a folder of pictures, a glob, or a video.

Options: ``fps=N`` plays at N a second and ``pace=own`` a video in its own time: both are live, and their dark and
frozen frames are held back (``dark=off``, ``frozen=off``, ``frozen=SECONDS``; a folder of pictures is never frozen).
Otherwise it goes as fast as the answers come, and every frame is answered. ``loop=true`` begins again at the end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, InputError, SourceError, tenfold
from edge_agent.pictures.read import MOST_PIXELS, Limits, as_jpegs, bgr, cv2, decode, for_cv2, read_picture, shown
from edge_agent.sources import Opened
from edge_agent.sources.judge import Judge, Rules
from edge_agent.sources.listing import PICTURES, VIDEOS, listed
from edge_agent.types import Frame, Pixels, StreamState
from edge_agent.uri import Uri, choice, number, switch

KNOWN = {"fps": "", "pace": "", "loop": "false", "dark": "on", "frozen": "3", "megapixels": "100"}

ODD_FPS = 25.0
"""frames a second of a video that states none"""
NOT_TO_THE_END = 0.98
"""share of its stated frames, and of its stated time, below which a video is said to have broken off"""
LONGEST_GAP = 600.0
"""seconds between two frames; a file that states a longer time has lost its clock"""

log = logging.getLogger("edge_agent")

Tick = Callable[[], bool]
"""Waits until the next frame is due; False: stop."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What was asked for."""

    path: str
    fps: float
    own: bool
    loop: bool
    rules: Rules
    limits: Limits


def pictures(uri: Uri, path: str) -> Opened:
    """Bind the pictures and videos that `path` means; yields Frames.

    SourceError when a video cannot be opened; ConfigError for an option. A picture that cannot be read later on is
    logged and skipped.
    """
    plan = planned(uri, path)
    videos = [each for each in listed(path) if is_video(each)]
    for each in videos:
        _opened(each).release()
    if not videos:
        if plan.own:
            raise ConfigError(f'"{uri}": pictures have no pace of their own; give fps=N')
        # one picture shown twice is no camera that hangs
        plan = replace(plan, rules=replace(plan.rules, frozen=0.0))
    live = bool(plan.fps) or plan.own
    return Opened(run=lambda stop: _run(plan, live, stop), yields=Frame, live=live)


def planned(uri: Uri, path: str) -> _Plan:
    """The options. ConfigError."""
    plan = _Plan(
        path=path,
        fps=number(uri, KNOWN, "fps", 0.001, 1000),
        own=choice(uri, KNOWN, "pace", ("", "own")) == "own",
        loop=switch(uri, KNOWN, "loop"),
        rules=Rules(dark=switch(uri, KNOWN, "dark"), frozen=number(uri, KNOWN, "frozen", 0.1, 3600)),
        limits=Limits(round(number(uri, KNOWN, "megapixels", 0.01, MOST_PIXELS / 1e6) * 1e6)),
    )
    if plan.fps and plan.own:
        raise ConfigError(f'"{uri}": give either fps or pace=own')
    return plan


def _run(plan: _Plan, live: bool, stop: threading.Event) -> Iterator[Frame | StreamState]:
    """The whole walk: each file in turn, judged when live, once or again and again."""
    judge = Judge(plan.rules)
    skipped: set[Path] = set()
    paced = _ticker(plan.fps, stop)
    while True:
        count = 0
        for path in listed(plan.path):
            for frame in (
                _video(path, plan.own, paced, stop) if is_video(path) else _picture(path, plan.limits, paced, skipped)
            ):
                count += 1
                if live:
                    yield from judge.see(frame)
                else:
                    yield from judge.say("ok")
                    yield frame
            if stop.is_set():
                return
        if not plan.loop:
            yield StreamState("ended", f"{len(skipped)} unreadable skipped" if skipped else "")
            return
        if not count:
            raise SourceError(f"{plan.path}: not one picture in it can be read; see the log for each")


def is_video(path: Path) -> bool:
    """By its name, else by its first bytes. A GIF that moves is one."""
    suffix = path.suffix.lower()
    if suffix == ".gif":
        with for_cv2(path) as name:
            video = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
        moves = video.isOpened() and video.get(cv2.CAP_PROP_FRAME_COUNT) > 1
        video.release()
        return moves
    if suffix in PICTURES or suffix in VIDEOS:
        return suffix in VIDEOS
    with for_cv2(path) as name:
        return not cv2.haveImageReader(name)


def _ticker(fps: float, stop: threading.Event) -> Tick:
    """Ticks `fps` times a second on the monotonic clock, or at once when it is 0. Who comes late shifts the rest."""
    due = time.monotonic()

    def tick() -> bool:
        nonlocal due
        if fps:
            now = time.monotonic()
            stop.wait(max(0.0, due - now))
            due = max(due, now) + 1 / fps
        return not stop.is_set()

    return tick


def _picture(path: Path, limits: Limits, tick: Tick, skipped: set[Path]) -> Iterator[Frame]:
    """The one frame of a picture file, or none when it cannot be read, which is logged the first time."""
    if not tick():
        return
    try:
        yield read_picture(path, limits)
    except InputError as error:
        if path not in skipped:
            skipped.add(path)
            log.warning("%s: skipped, it %s (%d skipped so far)", path, error, len(skipped))


def _opened(path: Path) -> cv2.VideoCapture:
    """A video file, open. FFmpeg alone: other readers of cv2 take a % in a name for a pattern."""
    with for_cv2(path) as name:
        video = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    if not video.isOpened():
        video.release()
        raise SourceError(f"{path}: is no picture, video or recording that can be read")
    return video


class _Clock:
    """When each frame of a video is due, in seconds of the video, by the times in the file, not by its nominal rate."""

    def __init__(self, video: cv2.VideoCapture) -> None:
        fps = video.get(cv2.CAP_PROP_FPS)
        self.step = 1 / (fps if 0 < fps <= 1000 else ODD_FPS)
        """seconds to the next frame where the file does not say"""
        self.frames = 0
        self.now = self._stated = 0.0
        self.longest = self.step

    def see(self, seconds: float) -> None:
        """The next frame, and the time that the file states for it; which stands still or is 0 where it states none."""
        gap = seconds - self._stated
        if not 0 < gap <= LONGEST_GAP:
            gap = self.step
        if self.frames:
            self.now += gap
            self.longest = max(self.longest, gap)
        self.frames += 1
        self._stated = seconds

    def short(self, frames: float) -> str:
        """How far a video of so many frames fell short, or ""; many formats only estimate them from the whole time."""
        whole = frames * self.step
        left = whole - self.now - 2 * self.longest
        if self.frames >= NOT_TO_THE_END * frames or left <= (1 - NOT_TO_THE_END) * whole:
            return ""
        return f"breaks off behind {self.frames} frames, after {self.now + self.step:.1f} of its {whole:.1f} s"


def _pixels(video: cv2.VideoCapture, jpegs: bool) -> Pixels:
    """The frame that was grabbed. InputError for one that is none."""
    good, image = video.retrieve()
    if not good:
        raise InputError("cannot be decoded")
    return decode(np.asarray(image).tobytes()) if jpegs else bgr(image)


def _video(path: Path, own: bool, paced: Tick, stop: threading.Event) -> Iterator[Frame]:
    """Each frame of a video; one that breaks off ends, with the reason in the log."""
    try:
        video = _opened(path)
    except SourceError as error:
        # it could be opened at first: the next of a glob, or the next round, may do better
        log.warning("%s; skipped", error)
        return
    clock, jpegs = _Clock(video), as_jpegs(video)
    late, bad = time.monotonic(), 0
    try:
        while paced():
            at, mono = time.time(), time.monotonic()
            try:
                if not video.grab():
                    break
                clock.see(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
                pixels = _pixels(video, jpegs)
                name = f"{shown(path)}#{clock.frames - 1}"
                frame = Frame(pixels, at, mono, name, 1000 * (time.monotonic() - mono), clock.now)
                if own:
                    # what comes late shifts the rest
                    late = max(late, time.monotonic() - clock.now)
                    if stop.wait(max(0.0, late + clock.now - time.monotonic())):
                        break
                    frame = msgspec.structs.replace(frame, at=time.time(), mono=time.monotonic())
                yield frame
            except (cv2.error, InputError) as error:
                bad += 1
                if tenfold(bad):
                    why = str(error).splitlines()[0]
                    log.warning("%s: frame %d skipped, it %s (%d so far)", path, clock.frames - 1, why, bad)
        if not stop.is_set() and (why := clock.short(video.get(cv2.CAP_PROP_FRAME_COUNT))):
            log.warning("%s: %s", path, why)
    finally:
        video.release()
