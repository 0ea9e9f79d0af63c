"""Live pictures: drawn and encoded once for all viewers, and only while there is one.

Each pipeline that is looked at has a Look, whose watcher is on the pipeline only as long. One thread draws them all. A
viewer gets the newest picture whenever it has taken the one before, so a slow one slows nobody.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from edge_agent.pictures.draw import jpeg
from edge_agent.types import Frame, Sample
from edge_agent.ui import scene
from edge_agent.ui.calls import Ask, Call, Refused, Stream

if TYPE_CHECKING:
    from edge_agent.ui.device import Line
    from edge_agent.ui.server import Page

log = logging.getLogger("edge_agent")

FPS = 10.0
"""pictures a second at most"""
STILL_S, GOES_ON_S = 60.0, 5.0
"""seconds between two stills while nothing happens, and for which it is live after something did"""
MOST_VIEWERS = 200
FIRST_S = 10.0
"""seconds that a single picture is waited for"""
BOUNDARY = "picture"


class Look:
    """One pipeline that is looked at."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self.name, self._wake = name, wake
        self.viewers = self.always = 0
        """how many look, and how many of them want each picture, also while nothing happens"""
        self.part, self.number = b"", 0
        """the newest picture as a part of the answer, and how many there were"""
        self.image = b""
        self._line: Line | None = None
        self._waiting: tuple[Frame, scene.Found] | None = None
        self._trails: scene.Trails = {}
        self._happened = self._due = 0.0
        """monotonic: when something happened last, and when the next picture may be drawn"""
        self._drawn = -math.inf

    def turn_to(self, line: Line | None) -> None:
        """Watch this line from now on; None: nothing."""
        if line is self._line:
            return
        if self._line is not None:
            with suppress(ValueError):
                self._line.watchers.remove(self._see)
        self._line, self._waiting = line, None
        self._trails.clear()
        if line is not None:
            line.watchers.append(self._see)

    def _see(self, sample: Sample, found: scene.Found) -> None:
        """The watcher: on the pipeline's thread."""
        if isinstance(sample, Frame):
            self._waiting = sample, found
            self._wake()

    def again(self) -> None:
        """Draw the next frame, whatever happens in it: somebody begins to look."""
        self._drawn = -math.inf

    def draw(self, now: float) -> bool:
        """Draw what waits, if it is time for it; whether there is a new picture."""
        waiting, line = self._waiting, self._line
        if waiting is None or line is None or now < self._due:
            return False
        frame, found = waiting
        self._waiting = None
        if (image := line.show(frame, found)) is None:
            return False
        if scene.happens(found):
            self._happened = now
        lively = self.always or now < self._happened + GOES_ON_S
        if not lively and now < self._drawn + STILL_S:
            return False
        self._drawn, self._due = now, max(self._due, now - 1 / FPS) + 1 / FPS
        self.image = scene.picture(image, frame, found, line.zones, self._trails)
        about = {
            "pipeline": self.name,
            "at": frame.at,
            "mono": frame.mono,
            "live": bool(lively),
            "seen": scene.words(found),
        }
        head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(self.image)}\r\nX-About: "
        # ASCII, as headers are
        told = msgspec.json.encode(about).decode().encode("ascii", "backslashreplace").replace(b"\\x", b"\\u00")
        self.part = head.encode() + told + b"\r\n\r\n" + self.image + b"\r\n"
        self.number += 1
        return True

    @property
    def wait(self) -> float:
        """Monotonic time at which what waits may be drawn; endless where nothing waits."""
        return self._due if self._waiting is not None else math.inf


class Live:
    """All that is looked at."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.looks: dict[str, Look] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._news: asyncio.Future[None] | None = None
        """done once there is another picture; of the loop"""
        page.shown.append(lambda agent: self._turn())

    # ── viewers: on the loop ───────────────────────────────────────────────────────────────────────────

    def join(self, names: Sequence[str], always: bool) -> list[Look]:
        """Begin to look at these pipelines; `leave` ends it."""
        with self._changed:
            for name in names:
                look = self.looks.setdefault(name, Look(name, self._wake))
                look.viewers += 1
                look.always += always
                look.again()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="page-draw", daemon=True)
                self._thread.start()
            looks = [self.looks[name] for name in names]
        self._turn()
        return looks

    def leave(self, looks: Sequence[Look], always: bool) -> None:
        """End what `join` began; the last one ends the watcher."""
        with self._changed:
            for look in looks:
                look.viewers -= 1
                look.always -= always
                if not look.viewers:
                    del self.looks[look.name]
                    look.turn_to(None)
            self._changed.notify()

    async def parts(self, looks: Sequence[Look]) -> AsyncGenerator[bytes, None]:
        """Each new picture of these, as parts; of several since the last one only the newest."""
        sent = dict.fromkeys(looks, 0)
        while not self._page.stopping.is_set():
            if self._news is None or self._news.done():
                self._news = asyncio.get_running_loop().create_future()
            news = self._news
            for look in looks:
                if look.number != sent[look]:
                    sent[look] = look.number
                    yield look.part
            await asyncio.wait([news], timeout=1.0)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # ── the thread that draws ────────────────────────────────────────────────────────────────────────────

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _turn(self) -> None:
        """Have each look watch the line that is there now."""
        agent = self._page.agent
        lines = {line.config.name: line for line in list(agent.lines)} if agent is not None else {}
        with self._changed:
            for name, look in self.looks.items():
                look.turn_to(lines.get(name))

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self.looks:
                    self._thread = None
                    return
                looks = list(self.looks.values())
                due = min(look.wait for look in looks)
                if (left := due - time.monotonic()) > 0:
                    self._changed.wait(min(1.0, left))
            self._turn()
            news = False
            for look in looks:
                try:
                    news |= look.draw(time.monotonic())
                except Exception:
                    log.exception("%s: its picture could not be drawn", look.name)
            if news and (loop := self._page.loop) is not None:
                with suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(self._tell)


def calls(page: Page) -> list[Call]:
    """Those of pictures."""
    live = Live(page)

    def stream(names: Sequence[str], ask: Ask) -> Response:
        for name in names:
            line_of(page, name)
        if sum(look.viewers for look in live.looks.values()) + len(names) > MOST_VIEWERS:
            raise Refused(503, "too many look already; close some of the pages", {"Retry-After": "5"})
        always = ask.query("always") not in ("", "0", "false")

        async def body() -> AsyncGenerator[bytes, None]:
            looks = live.join(names, always)
            try:
                async for part in live.parts(looks):
                    yield part
            finally:
                live.leave(looks, always)

        return Stream(body, f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    async def several(ask: Ask) -> Response:
        named = ask.query("pipelines")
        return stream(named.split(",") if named else [line.config.name for line in page.now.lines], ask)

    async def one(ask: Ask) -> Response:
        return stream([ask.path("name")], ask)

    def still(ask: Ask) -> Response:
        line = line_of(page, ask.path("name"))
        frame, found = next_frame(line)
        image = line.show(frame, found)
        if image is None:
            raise Refused(409, "what is to be blurred was not looked for, so the picture is not shown")
        data = jpeg(image) if ask.query("plain") else scene.picture(image, frame, found, line.zones, {})
        return Response(data, 200, {"Cache-Control": "no-store"}, "image/jpeg")

    always = {"always": "1: each picture, also while nothing happens"}
    mixed = "multipart/x-mixed-replace"
    return [
        Call("GET", "/api/v1/live", "viewer", "Pictures of pipelines as MJPEG, with whose in X-About.", several,
              query={"pipelines": "names, parted by commas; none: all", **always}, media=mixed),
        Call("GET", "/api/v1/pipelines/{name}/live", "viewer", "Pictures of a pipeline as MJPEG.", one, query=always,
             media=mixed),
        Call("GET", "/api/v1/pipelines/{name}/picture", "viewer", "The next picture of a pipeline as JPEG.", still,
             query={"plain": "1: as it came, with nothing drawn into it"}, media="image/jpeg"),
    ]  # fmt: skip


def line_of(page: Page, name: str) -> Line:
    """The pipeline of this name. Refused."""
    line = next((line for line in page.now.lines if line.config.name == name), None)
    if line is None:
        raise Refused(404, f"there is no pipeline {name[:64]!r}")
    return line


def next_frame(line: Line) -> tuple[Frame, scene.Found]:
    """The next frame that a pipeline answers, and what was found in it. Refused where none comes."""
    got, come = list[tuple[Frame, scene.Found]](), threading.Event()

    def see(sample: Sample, found: scene.Found) -> None:
        if isinstance(sample, Frame):
            got.append((sample, found))
            come.set()

    line.watchers.append(see)
    try:
        come.wait(FIRST_S)
    finally:
        line.watchers.remove(see)
    if not got:
        why = line.stream.why and f": {line.stream.why}"
        raise Refused(504, f"no picture came within {FIRST_S:.0f} s; the stream is {line.stream.condition}{why}")
    return got[0]
