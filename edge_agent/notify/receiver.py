"""Events that wait for one receiver, and the thread that sends them: pauses, quiet hours, a limit an hour."""

from __future__ import annotations

import logging
import random
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

from edge_agent.config import Notify, Opinion
from edge_agent.errors import tenfold
from edge_agent.events import UNREADABLE, Event
from edge_agent.files import read_regular, write_private
from edge_agent.notify.message import note_of
from edge_agent.notify.send import Sent, is_there, send
from edge_agent.notify.spool import Spool, Waiting, since
from edge_agent.walk.privacy import without_words

log = logging.getLogger("edge_agent")

Told: TypeAlias = Notify | Opinion
"""what a config says of a receiver"""
Picture = Callable[[str], Path | None]
"""A snapshot's name -> its file, while it is there."""
HOUR = 3600.0
LOOK_S = 30.0
"""seconds after which a clock that was set is noticed"""
PAUSES = {"later": (2.0, 300.0), "refused": (2.0, 300.0), "closed": (60.0, 3600.0)}
"""what became of a message -> seconds, the first pause and the longest: each doubles, with jitter"""
TRIES = 4
"""times that one message is refused before it is given up"""


class Receiver(ABC):
    """A queue of events and the thread that works it off; events are added by any thread."""

    def __init__(self, what: str, choice: Told, place: Path, picture: Picture) -> None:
        """`what`: as it is called in the log; `place`: the folder of what waits. Raises OSError."""
        self.what, self.choice, self.picture = what, choice, picture
        self.spool = Spool(place)
        self.trouble = ""
        """why nothing can be sent now, one line; empty while it can"""
        self.sent = 0
        self._tries: dict[int, int] = {}
        self._pause, self._until = 0.0, 0.0
        """seconds of the last pause, and its end (monotonic)"""
        self._wake, self._over = threading.Event(), threading.Event()
        self._came, self._rested = 0, 0
        """events that came, and how many of them had when there was nothing left that could be sent at once"""
        self._times: deque[float] = deque()
        """when messages of the last hour were sent, monotonic"""
        self._remembered = place / "state"
        self._recall()
        self._thread = threading.Thread(target=self._work, name=what, daemon=True)

    # ── for any thread ───────────────────────────────────────────────────────────────────────────────────

    def settle(self, number: int, event: Event, picture: str) -> None:
        """An event that was added is kept now, as this one."""
        self.spool.settle(number, event, picture)
        self._came += 1
        self._wake.set()

    @property
    def busy(self) -> bool:
        """Whether something waits that can be sent at once, or is being sent."""
        return self._thread.is_alive() and self._rested != self._came

    def start(self) -> None:
        """What waits from before is sent, too."""
        self._came += 1
        self._thread.start()

    def turn_to(self, choice: Told) -> None:
        """Go on with what another config says of it."""
        self.choice = choice

    def again(self) -> None:
        """Try at once: the address or the network may be another one."""
        self._pause = self._until = 0.0
        self._wake.set()

    def stop(self) -> None:
        """Begin nothing more; `join` waits for what is under way."""
        self._over.set()
        self._wake.set()

    def join(self, seconds: float) -> None:
        """What is still under way after so long ends with the process, and is sent once more after the next start."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while not self._over.is_set():
            self._wake.clear()
            came = self._came
            try:
                wait = self._turn()
            except Exception:
                log.exception("%s: failed; it goes on", self.what)
                wait = LOOK_S
            if wait > 0:
                self._rested = came
                self._wake.wait(min(wait, LOOK_S))

    def _turn(self) -> float:
        """Send one message, if there is one to be sent; seconds until there may be another, 0: look at once."""
        self.spool.confirm()
        numbers, now = self.spool.waiting(self.choice.expire_hours), time.monotonic()
        while self._times and self._times[0] <= now - HOUR:
            self._times.popleft()
        if not numbers:
            return LOOK_S
        if self._until > now:
            return self._until - now
        if self.is_quiet(self.spool.clock()):
            return LOOK_S
        room = self.choice.limit - len(self._times)
        if room <= 0:
            return self._times[0] + HOUR - now
        group = self._read(self._together(numbers, room))
        if group:
            self._after(self._delivered([waiting for _, waiting in group]), [number for number, _ in group])
        return 0.0

    def _delivered(self, events: Sequence[Waiting]) -> Sent:
        """`deliver`; what fails for a bug of ours counts as refused, so that it does not stay for ever."""
        try:
            return self.deliver(events)
        except Exception as error:
            log.exception("%s: failed on %s", self.what, events[-1].event.id)
            return Sent("refused", type(error).__name__)

    def _read(self, numbers: Sequence[int]) -> list[tuple[int, Waiting]]:
        found = [(number, self.spool.read(number)) for number in numbers]
        return [(number, waiting) for number, waiting in found if waiting is not None]

    def _after(self, sent: Sent, numbers: list[int]) -> None:
        """Strike off what was sent or will never be; else wait, longer each time."""
        if sent.how == "taken":
            self.spool.done(numbers)
            self.spool.dropped = 0
            self._times.append(time.monotonic())
            self.sent += 1
            self._remember()
            if self.trouble:
                log.info("%s: works again", self.what)
            self.trouble, self._pause = "", 0.0
            return
        if sent.how == "gone":
            self.spool.done(numbers)
            return
        if self.trouble != sent.why:
            log.warning("%s: %s; %d wait", self.what, sent.why, len(self.spool.waiting(self.choice.expire_hours)))
        self.trouble = sent.why
        if sent.how == "refused" and self._refused(numbers):
            return
        first, longest = PAUSES[sent.how]
        self._pause = min(longest, max(first, 2 * self._pause))
        self._until = time.monotonic() + max(sent.wait, self._pause * random.uniform(0.75, 1.0))

    def _refused(self, numbers: list[int]) -> bool:
        """Whether a message was refused so often that it is given up."""
        key = numbers[0]
        self._tries[key] = self._tries.get(key, 0) + 1
        if self._tries[key] < TRIES:
            return False
        del self._tries[key]
        self.spool.drop(numbers)
        self._remember()
        if tenfold(self.spool.dropped):
            log.warning("%s: %d given up so far, as they were refused", self.what, self.spool.dropped)
        return True

    def _recall(self) -> None:
        """What was sent in the last hour, and what the next message has to say, as it was before a restart."""
        try:
            kept = msgspec.json.decode(read_regular(self._remembered, 100_000), type=dict[str, list[float]])
            self._times.extend(sorted(since(at) for at in kept["sent"]))
            self.spool.dropped = int(sum(kept["dropped"]))
        except (OSError, KeyError, *UNREADABLE):
            return

    def _remember(self) -> None:
        ahead = time.time() - time.monotonic()
        state = {"sent": [round(at + ahead, 1) for at in self._times], "dropped": [float(self.spool.dropped)]}
        fresh = self._remembered.with_suffix(".new")
        try:
            write_private(fresh, msgspec.json.encode(state))
            fresh.replace(self._remembered)
        except OSError as error:
            log.debug("%s: %s", self.what, error.strerror)

    # ── what a receiver is ───────────────────────────────────────────────────────────────────────────────

    def is_quiet(self, at: float) -> bool:
        """Whether nothing is sent at a time."""
        return False

    def _together(self, numbers: list[int], room: int) -> list[int]:
        """Those that go into the next message."""
        return numbers[:1]

    @abstractmethod
    def deliver(self, events: Sequence[Waiting]) -> Sent:
        """Send what waits in one message, the newest last. Never raises for what the receiver does."""


class People(Receiver):
    """Messages to people."""

    def __init__(self, config: Notify, place: Path, picture: Picture) -> None:
        super().__init__(f"notify {config.name}", config, place, picture)

    @property
    def config(self) -> Notify:
        """As its section says now."""
        assert isinstance(self.choice, Notify)
        return self.choice

    def is_quiet(self, at: float) -> bool:
        quiet = self.config.quiet
        if quiet is None:
            return False
        begin, end = quiet.split("-")
        now = time.strftime("%H:%M", time.localtime(at))
        return begin <= now < end if begin < end else now >= begin or now < end

    def _together(self, numbers: list[int], room: int) -> list[int]:
        """What came in quiet hours in one message; what is more than the limit lets through in the last one."""
        held = 0
        while held < len(numbers) and self._was_quiet(numbers[held]):
            held += 1
        if held > 1:
            return numbers[:held]
        return numbers if room == 1 else numbers[:1]

    def _was_quiet(self, number: int) -> bool:
        found = self.spool.read(number) if self.config.quiet else None
        return found is not None and self.is_quiet(found.at)

    def deliver(self, events: Sequence[Waiting]) -> Sent:
        config = self.config
        said = [each.event if config.text else without_words(each.event) for each in events]
        picture = self.picture(events[-1].picture) if config.snapshot and events[-1].picture else None
        return send(config, note_of(config, said, self.spool.dropped, is_there(picture)))
