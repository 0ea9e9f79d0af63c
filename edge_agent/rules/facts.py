"""What rules are told of the pipelines, of the time, and what they say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec


class Pipe(msgspec.Struct, frozen=True, kw_only=True):
    """What can be heard of a pipeline."""

    name: str
    kinds: frozenset[str] | None = None
    """kinds of events that it gives; None: nobody knows"""
    zones: frozenset[str] = frozenset()
    """names of its areas and lines"""
    labels: frozenset[str] | None = None
    """that its models give; None: nobody knows"""
    lasting: bool = False
    """its labels are of pictures: each holds until the next one"""
    senses: frozenset[str] | None = None
    """"heard" and "read", as its texts were captured; None: nobody knows"""
    words: bool = True
    """its events hold the words that were captured"""


class Now(NamedTuple):
    """The two clocks."""

    mono: float
    """seconds of the monotonic clock, by which all durations go"""
    wall: float
    """seconds since 1970 UTC, for times of day alone"""


class Clock(NamedTuple):
    """What time it is to rules."""

    now: Callable[[], Now] = lambda: Now(time.monotonic(), time.time())
    local: Callable[[float], time.struct_time] = time.localtime
    """seconds since 1970 -> time of day"""


class Cause(NamedTuple):
    """An event that made a condition what it is, or only where that was."""

    order: int
    """in which they came"""
    pipeline: str
    id: str
    """empty: no event says it"""


class Change(NamedTuple):
    """A rule has come on, or gone off."""

    rule: str
    phase: Literal["on", "off"]
    pipeline: str
    """the one that made it so; "agent" where several did, or none"""
    because: tuple[str, ...]
    """ids of events"""
    why: str
    since: float
    """when it came on, seconds since 1970 UTC"""


AGENT = "agent"
"""stands for several pipelines"""
Truth = bool | None
"""None: it cannot be known now"""
KNOWN = ("ok", "ended")
"""conditions of a source in which what was seen last is all that is there to be known"""


@dataclass(slots=True)
class World:
    """What conditions look at beside the events that they heard."""

    local: Callable[[float], time.struct_time] = time.localtime
    """seconds since 1970 -> time of day where the device stands"""
    streams: dict[str, str] = field(default_factory=dict)
    """pipeline -> condition of its source"""
    on: dict[str, Sequence[Cause]] = field(default_factory=dict)
    """rules that are on, and what made them so"""
    due: float = math.inf
    """monotonic time at which something may change by itself"""

    def wake(self, at: float) -> None:
        """Something may change then."""
        self.due = min(self.due, at)

    def known(self, pipeline: str) -> bool:
        """Whether what was seen last of it is what is there."""
        return self.streams.get(pipeline) in KNOWN


Pipes = Mapping[str, Pipe]
"""by name"""
