"""Who goes first: the processor's cores shared between pipelines. Only arithmetic: it knows no thread and no clock.

Each pipeline has a `share`, a weight. What its runs took, in seconds of a core, is counted, and divided by its share
(weighted fair queueing; start-time tags as in Goyal, Vin and Cheng 1996). Among those that wait, only those go next
that are not more than AHEAD in front of the one that was served least: of them the one with the highest priority,
then the one whose deadline is the earliest, then the one that was served least. So priority and deadline decide within
a share, and no pipeline starves: one that waits is passed by each other for AHEAD times its share and one run, at
most.

A run cannot be stopped, so what is known of its length counts when it is begun: runs of LONG_S and more together leave
a core to the others where there are two, as long as anybody asks for short ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

LONG_S = 0.1
"""seconds from which a run is a long one: a camera of ten frames a second would lose one behind it"""
AHEAD = 0.2
"""weighted seconds in front of the one that was served least, up to which priority and deadline decide"""
RESTED, BEHIND = 0.1, 5.0
"""weighted seconds that a pipeline may be behind when it comes back after a rest, and at all: what it did not use is
not kept for it"""
REST_S = 0.05
"""seconds without a run after which it comes back from a rest"""
SHORT_S = 5.0
"""seconds after the last request for a short run, or by a higher priority, for which room is kept for the next one"""


@dataclass(slots=True, eq=False)
class Client:
    """One owner of runs: a pipeline."""

    priority: int = 5
    """0..9; the higher goes first, where both are within their share"""
    share: float = 1.0
    """weight of its processor time where there is not enough of it"""
    deadline: float = math.inf
    """seconds after a sample was captured at which its answer is late"""
    gives_up: bool = False
    """a sample whose turn comes after that is not answered"""
    spent: float = 0.0
    """weighted seconds of a core, in step with those of the others"""
    used: float = 0.0
    """seconds of a core that its runs held"""
    left: float = -math.inf
    """when its last run ended"""
    turns: int = 0
    """that wait or run"""


@dataclass(slots=True, eq=False)
class Turn:
    """One run that waits or goes on."""

    client: Client
    cores: int
    """that it keeps busy"""
    seconds: float
    """for which it is expected to keep them busy; 0 where nobody knows"""
    due: float
    """when its sample is late"""
    number: int
    """order in which they were asked for"""
    slots: int = 0
    """that it holds; 0: it waits"""
    began: float = 0.0
    start: float = 0.0
    """what its client had spent when it began"""

    @property
    def long(self) -> bool:
        """Whether it is expected to take LONG_S or more."""
        return self.seconds >= LONG_S


def _rank(turn: Turn) -> tuple[float, ...]:
    """Of those that are level the least one goes first."""
    return -turn.client.priority, turn.due, turn.client.spent, turn.number


def _outlasts(running: Turn, turn: Turn, now: float) -> bool:
    """Whether a run is expected to go on for longer than another one, whose length is known, takes."""
    return 0 < turn.seconds < running.began + running.seconds - now


@dataclass(slots=True)
class Queue:
    """The turns that wait and those that run. Times are seconds of one clock, given by the caller."""

    cores: int
    waiting: list[Turn] = field(default_factory=list)
    running: list[Turn] = field(default_factory=list)
    _reached: float = 0.0
    """the furthest that a client was when a run of it began"""
    _short_at: float = -math.inf
    _high: int = 0
    """highest priority that was asked for, and when"""
    _high_at: float = -math.inf
    _count: int = 0

    @property
    def slots(self) -> int:
        """One more than there are cores, as one that has just run holds on to the interpreter for a moment, and the
        next cannot begin: without it two pipelines that never rest do a tenth less.
        """
        return self.cores + 1 if self.cores > 1 else 1

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self.slots - sum(turn.slots for turn in self.running)

    def ask(self, client: Client, threads: int, seconds: float, due: float, now: float) -> Turn:
        """A turn that waits from now on."""
        self._count += 1
        turn = Turn(client, min(threads, self.cores), seconds, due, self._count)
        rested = not client.turns and now - client.left > REST_S
        client.spent = max(client.spent, self._reached - (RESTED if rested else BEHIND))
        client.turns += 1
        self.waiting.append(turn)
        if not turn.long:
            self._short_at = now
        if client.priority >= self._high or now - self._high_at >= SHORT_S:
            self._high, self._high_at = client.priority, now
        return turn

    def drop(self, turn: Turn) -> None:
        """It waits no more."""
        self.waiting.remove(turn)
        turn.client.turns -= 1

    def next(self, now: float) -> Turn | None:
        """The one that begins now, if one may. To be called until it gives None."""
        some = [turn for turn in self.waiting if self._may(turn, now)]
        least = min((turn.client.spent for turn in some), default=0.0)
        within = [turn for turn in some if turn.client.spent <= least + AHEAD]
        first = min(within, key=_rank, default=None)
        if first is None or not self._fits(first, now):
            return None
        self.waiting.remove(first)
        self.running.append(first)
        first.slots, first.began, first.start = self._needs(first, now), now, first.client.spent
        self._reached = max(self._reached, first.start)
        first.client.spent += first.seconds * first.cores / first.client.share
        return first

    def end(self, turn: Turn, now: float, took: float) -> None:
        """It is done, and kept each of its cores busy for `took` seconds."""
        self.running.remove(turn)
        client = turn.client
        client.turns -= 1
        client.left = now
        client.used += took * turn.cores
        client.spent += (took - turn.seconds) * turn.cores / client.share

    def _may(self, turn: Turn, now: float) -> bool:
        """Whether it is among those of which one is next: not where its sample is given up, nor a long run that would
        leave no core to short ones.
        """
        if turn.client.gives_up and turn.due <= now:
            return False
        limited = turn.long and now - self._short_at < SHORT_S
        return not limited or self._long() + self._needs(turn, now) <= max(1, self.cores - 1)

    def _long(self) -> int:
        """Slots that long runs hold."""
        return sum(turn.slots for turn in self.running if turn.long)

    def _needs(self, turn: Turn, now: float) -> int:
        """Slots for it. One that uses every core runs alone; but no short one waits for long ones, nor for one that
        goes on for longer than it takes itself: on the cores that are left it takes twice its time at most.
        """
        if turn.long:
            return min(turn.cores, max(1, self.cores - 1))
        beside = sum(other.slots for other in self.running if other.long or _outlasts(other, turn, now))
        return min(turn.cores if turn.cores < self.cores else self.slots, max(1, self.slots - beside))

    def _fits(self, turn: Turn, now: float) -> bool:
        """Whether there are slots for it. The one that is one too many is for the highest priority that was asked for
        lately, which so waits for nobody, and there for those that are not ahead of the one that runs.
        """
        left = self.free - self._needs(turn, now)
        if left or self.cores == 1 or turn.cores == self.cores:
            return left >= 0
        if now - self._high_at < SHORT_S and turn.client.priority < self._high:
            return False
        return all(turn.client.spent <= other.client.spent + AHEAD for other in self.running if not other.long)
