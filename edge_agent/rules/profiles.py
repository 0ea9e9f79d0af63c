"""Which profile the time of the week asks for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge_agent.config.rules import Profile
from edge_agent.config.times import window
from edge_agent.events import KNOWN_TIME


def planned(profiles: Sequence[Profile], wall: float, local: Callable[[float], time.struct_time]) -> str | None:
    """The profile whose time it is, else the first one without a time; None where none has one, or the clock is not
    set. `wall`: seconds since 1970; `local`: these -> time of day where the device stands.
    """
    timed = [one for one in profiles if one.between is not None or one.days is not None]
    if not timed or wall < KNOWN_TIME:
        return None
    at = local(wall)
    minute = at.tm_hour * 60 + at.tm_min
    now = [one.name for one in timed if window(one.between, one.days).holds(at.tm_wday, minute)]
    return [*now, *(one.name for one in profiles if one not in timed), ""][0]
