"""All receivers of an agent: told of each event, before it is kept and after."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.config import Config
from edge_agent.errors import StoreError
from edge_agent.events import Event
from edge_agent.notify.chosen import chosen

if TYPE_CHECKING:
    from edge_agent.notify.receiver import Receiver, Told

log = logging.getLogger("edge_agent")

FOLDER = "notify"
"""of the store: a folder for each receiver"""
GONE_S = 2.0
"""seconds at most that one which is told no more may take for what is under way"""
REMEMBERED = 500
"""events whose pictures are known for the rules that they make fire"""


class Notices:
    """Where an event becomes messages. `before` and `listen` are called by the thread that keeps it."""

    def __init__(self, receivers: Iterable[Receiver] = ()) -> None:
        self.receivers = list(receivers)
        self._working = False
        self._noted = threading.local()
        """of each thread, a stack: what it noted of the events that it is about to keep, as a listener may keep more"""
        self._pictures: OrderedDict[str, str] = OrderedDict()
        self._by = 0.0
        """monotonic, when what is under way is waited for no longer"""

    def before(self, event: Event, kind: str) -> Event:
        """It is about to be kept: what is to be sent is on disk before, so that no kill comes between.

        Of telemetry nobody is told. Returns it as it is.
        """
        mine: list[tuple[Receiver, int]] = []
        self._stack.append(mine)
        if kind == "alert":
            mine += [(one, one.spool.add(event)) for one in self.receivers if chosen(one.choice, event)]
        return event

    def listen(self, event: Event) -> None:
        """It is kept."""
        picture = self._picture(event)
        for receiver, number in self._stack.pop():
            receiver.settle(number, event, picture)

    @property
    def _stack(self) -> list[list[tuple[Receiver, int]]]:
        if not hasattr(self._noted, "stack"):
            self._noted.stack = []
        stack: list[list[tuple[Receiver, int]]] = self._noted.stack
        return stack

    def _picture(self, event: Event) -> str:
        """The name of an event's snapshot: its own, or that of the newest event that it is about."""
        about = [*getattr(event, "because", ()), getattr(event, "about", "")]
        known = [self._pictures[one] for one in about if one in self._pictures]
        picture: str = getattr(event, "snapshot", "") or (known[-1] if known else "")
        if picture:
            self._pictures[event.id] = picture
            while len(self._pictures) > REMEMBERED:
                self._pictures.popitem(last=False)
        return picture

    def start(self) -> None:
        """Send what waits, and what comes."""
        self._working = True
        for receiver in self.receivers:
            receiver.start()

    @property
    def busy(self) -> bool:
        """Whether something waits that can be sent at once, or is being sent."""
        return any(receiver.busy for receiver in self.receivers)

    def about(self) -> str:
        """How it fares: off, ok, or which receivers cannot be reached and why, one line."""
        trouble = "; ".join(f"{one.what}: {one.trouble}" for one in self.receivers if one.trouble)
        return trouble or ("ok" if self.receivers else "off")

    def again(self) -> None:
        """Try at once what waits for a better time: addresses may have changed."""
        for receiver in self.receivers:
            receiver.again()

    def turn_to(self, wanted: Mapping[str, Told], make: Callable[[str], Receiver]) -> Callable[[], None]:
        """What then has just these told, each as its section says: `what` of a receiver -> its section.

        `make` gives one that is not there yet. Those that are, go on with what waits for them. StoreError.
        """
        old = {one.what: one for one in self.receivers}
        fresh = {what: make(what) for what in wanted if what not in old}

        def act() -> None:
            self.receivers = [old.pop(what) if what in old else fresh[what] for what in wanted]
            for one in self.receivers:
                one.turn_to(wanted[one.what])
            for one in fresh.values() if self._working else ():
                one.start()
            for one in old.values():
                one.stop()
            for one in old.values():
                one.join(GONE_S)
                _delete(one.what, one.spool.place)

        return act

    def stop(self, seconds: float) -> None:
        """Begin nothing more; what is under way has so long."""
        self._by = time.monotonic() + seconds
        for receiver in self.receivers:
            receiver.stop()

    def close(self) -> None:
        """Wait for what is under way; what cannot be sent in time stays on disk."""
        for receiver in self.receivers:
            receiver.join(max(0.1, self._by - time.monotonic()))


def clear_others(config: Config, store: Path) -> None:
    """Take away what waits for receivers that a config does not have. StoreError."""
    place, names = store / FOLDER, {one.name for one in config.notify}
    try:
        for other in sorted(place.iterdir()) if place.is_dir() else ():
            if other.name not in names:
                _delete(f"notify {other.name}", other)
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}; what waits to be sent has no place") from None
    if config.opinion is None:
        shutil.rmtree(store / "opinion", ignore_errors=True)


def _delete(what: str, place: Path) -> None:
    log.warning("%s is not in the config any more: what waited for it is deleted", what)
    shutil.rmtree(place, ignore_errors=True)
