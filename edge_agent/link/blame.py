"""Who ended the connection? The account of what was on its way alone whenever a broker or a proxy closed it.

Of one thread, the link's. A network that breaks, a broker in a restart loop and a proxy that forbids a topic all end
connections, and none of them is the fault of an event. So nothing is blamed without evidence: after FALLS connections
that ended soon, everything is sent one by one on a connection that has stood for a while. What was on its way alone
when the connection was closed waits, while the rest goes on. An event is given up only after it ended TRIES
connections so, at changing places, while others of its topic were acknowledged between all of these and none of them
ended a connection.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, field

from edge_agent.outbox.entries import Record

FALLS = 3
"""brief connections in a row, then all is sent one by one"""
STEPS = 40
"""events that are sent one by one from then on"""
QUIET_S = 1.0
"""seconds without traffic before the first thing, and before a suspect, is sent alone"""
SOON_S = 5.0
"""seconds: a connection that ends later was not ended by what is on its way"""
TRIES = 5
"""times that an event is to end a connection"""
OTHERS = 3
"""events of the same topic that are to be acknowledged between two of these"""
PLACES, SPREAD = 10, 3
"""a suspect is tried behind 0 to 9 others on its connection, by chance, and is given up only if the fewest and the most
differ by SPREAD: a limit of so many packets a connection is no fault of the one that meets it"""
WAIT_S = (30.0, 3600.0)
"""seconds, first and longest, that a thing waits which ended two connections"""
AGAIN_S = (1.0, 60.0)
"""seconds, first and longest, between two tries of a suspect"""
DENIED = 3
"""events of one topic that end connections, and none that passes: then the topic is to blame, and all of it waits"""
MOST = 50
"""suspects at once"""


@dataclass(slots=True)
class Alone:
    """What is on its way, and nothing else is."""

    what: str
    """as the log names it, e.g. `PUBLISH edge/v1/porch/status`"""
    record: Record | None
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Suspect:
    record: Record
    again: float
    """monotonic time of its next try"""
    place: int
    falls: int = 0
    behind: set[int] = field(default_factory=set)
    """how many events had been acknowledged on each of the connections that it ended"""
    others: int = 0
    wait: float = field(default_factory=lambda: WAIT_S[0])
    """seconds from `again` on until it is tried without others that were acknowledged, which proves nothing"""


@dataclass(slots=True)
class Verdict:
    """What follows from the end of a connection."""

    say: str
    """one line for the log"""
    pipeline: str = ""
    """its events wait, where it is not empty"""
    wait: float = 0.0
    refuse: Record | None = None


class Blame:
    """Remembers what fell, and says what is to be sent alone, what waits, and what is given up."""

    def __init__(self) -> None:
        self.suspects: dict[int, _Suspect] = {}
        self.held: dict[str, float] = {}
        """what waits -> monotonic time until which"""
        self._brief = self._steps = 0
        self._began = 0.0
        self._falls: Counter[str] = Counter()
        self._waits: dict[str, float] = {}
        self._fallen: set[int] = set()
        """events that fell and were not acknowledged since"""
        self._of: dict[str, set[int]] = {}
        """pipeline -> those of its events that fell since one of them was acknowledged"""
        self._acked: Counter[str] = Counter()
        """by pipeline, on this connection"""
        self._free: list[Record] = []

    def begin(self) -> None:
        """A new connection."""
        self._acked.clear()
        self._began = time.monotonic()

    def careful(self) -> bool:
        """Whether everything is to be sent one by one."""
        now = time.monotonic()
        over = [what for what, until in self.held.items() if until <= now]
        for what in over:
            del self.held[what]
            self._steps = STEPS
        return self._steps > 0 or self.due() is not None

    def ready(self, idle_since: float) -> bool:
        """Whether the connection has stood, and been idle, long enough for what is to be sent alone."""
        since = idle_since if self.due() is not None else self._began
        return time.monotonic() - since >= QUIET_S

    def calm(self) -> None:
        """All is sent: nothing is on its way and nothing waits."""
        self._steps = 0

    def due(self, idle: bool = False) -> Record | None:
        """The suspect that is to be tried now. `idle`: nothing else is to be sent, so one may be tried too whose fall
        would prove nothing; before others it would keep them back.
        """
        now = time.monotonic()
        for suspect in self.suspects.values():
            if suspect.record.pipeline in self.held or suspect.again > now:
                continue
            proves = suspect.others >= OTHERS and self._acked[suspect.record.pipeline] >= suspect.place
            if proves or (idle and now >= suspect.again + suspect.wait):
                self._steps = max(1, self._steps)
                return suspect.record
        return None

    def passed(self, what: str) -> None:
        """A thing that is no event was acknowledged."""
        if self._falls.pop(what, 0):
            self._acquit()
        self._waits.pop(what, None)

    def acknowledged(self, record: Record) -> None:
        """An event was."""
        self._steps = max(0, self._steps - 1)
        self._acked[record.pipeline] += 1
        self._of.pop(record.pipeline, None)
        self._waits.pop(record.pipeline, None)
        self.suspects.pop(record.seq, None)
        if record.seq in self._fallen:
            self._fallen.discard(record.seq)
            self._acquit()
        for suspect in self.suspects.values():
            suspect.others += suspect.record.pipeline == record.pipeline

    def _acquit(self) -> None:
        """What fell once has passed now, so connections end here for other reasons, and nothing is suspect."""
        self._free += [suspect.record for suspect in self.suspects.values()]
        self.suspects.clear()

    def freed(self) -> list[Record]:
        """Those that are no suspects any more since this was asked last; they are to be sent as all others."""
        free, self._free = self._free, []
        return free

    def broke(self, alone: Alone | None, brief: bool) -> Verdict | None:
        """The connection ended without the broker's saying why. `brief`: soon, and with something on its way."""
        now = time.monotonic()
        if alone is None or now - alone.since > SOON_S:
            self._count(brief)
            return None
        self._steps = STEPS
        if alone.record is not None:
            return self._event(alone.record, now)
        self._falls[alone.what] += 1
        if self._falls[alone.what] < 2:
            return None
        wait = self._hold(alone.what, now)
        return Verdict(f"the broker ends the connection at {alone.what}; going on without it for {wait:.0f} s")

    def _count(self, brief: bool) -> None:
        """Many brief connections in a row, or one while something is suspected: go step by step from here on."""
        self._brief = self._brief + 1 if brief else 0
        if self._brief >= FALLS or (brief and (self.suspects or self._falls or self._of)):
            self._steps, self._brief = STEPS, 0

    def _hold(self, what: str, now: float) -> float:
        wait = self._waits.get(what, WAIT_S[0])
        self._waits[what] = min(WAIT_S[1], 2 * wait)
        self.held[what] = now + wait
        return wait

    def _event(self, record: Record, now: float) -> Verdict | None:
        self._fallen.add(record.seq)
        of = self._of.setdefault(record.pipeline, set())
        suspect = self.suspects.get(record.seq)
        if suspect is None:  # that a suspect fell once more tells nothing of its topic
            of.add(record.seq)
        if suspect is None:
            if len(self.suspects) < MOST:
                suspect = self.suspects[record.seq] = _Suspect(record, now + AGAIN_S[0], 0)
        elif suspect.others >= OTHERS:
            suspect.falls += 1
            suspect.behind.add(self._acked.total())
            if suspect.falls >= TRIES and max(suspect.behind) - min(suspect.behind) >= SPREAD:
                del self.suspects[record.seq]
                self._fallen.discard(record.seq)
                times = f"each of {suspect.falls} times that it was sent alone"
                why = f"the broker ended the connection {times}, and for no other"
                return Verdict(why, refuse=record)
        else:
            suspect.wait = min(WAIT_S[1], 2 * suspect.wait)
        if suspect is not None:
            suspect.others, suspect.place = 0, random.randrange(PLACES)
            suspect.again = now + min(AGAIN_S[1], AGAIN_S[0] * 2.0**suspect.falls)
        if len(of) >= DENIED or suspect is None:
            of.clear()
            wait = self._hold(record.pipeline, now)
            say = f"the broker ends the connection at each event of {record.pipeline}; they wait, trying again in"
            return Verdict(f"{say} {wait:.0f} s", record.pipeline, wait)
        return Verdict(f"the connection ended behind event {record.seq}, sent alone; it waits, and the others go on")
