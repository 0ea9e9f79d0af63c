"""What the device says about itself: the state of each pipeline, and its health."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from edge_agent import __version__
from edge_agent.agent.controls import by_command
from edge_agent.agent.line import Line
from edge_agent.device.health import rss_bytes
from edge_agent.events import rfc3339
from edge_agent.link import topics
from edge_agent.outbox.outbox import Outbox

if TYPE_CHECKING:
    from edge_agent.agent.governing import Governor
    from edge_agent.agent.guarding import Guarding
    from edge_agent.agent.homeassistant import HomeAssistant
    from edge_agent.link.link import Link
    from edge_agent.link.sparkplug.speaker import Seen

log = logging.getLogger("edge_agent")

STATE_S = 10.0
"""seconds between two states of a pipeline while nothing changes"""
COUNTS_S = 1.0
"""seconds at least between two counts of objects"""
HEALTH_S = 30.0
"""seconds between two reports on the device itself"""
CLOCK_S = 2.0
"""seconds by which the clock has to be set before the time of the start is another one"""
METERED_S = 3600.0
"""seconds between two of each of these on a metered link while nothing changes but counts"""
COUNTING = {
    "samples",
    "dropped",
    "answered",
    "bad",
    "missed",
    "late",
    "events",
    "waiting",
    "acknowledged",
    "store_bytes",
    "rss_bytes",
}
COUNTING |= {"at", "uptime_s", "passed_over", "governor"}
"""the fields of state and health that change by themselves"""


def line_state(line: Line) -> dict[str, object]:
    """What is retained under PIPELINE/state."""
    stream, since = line.says
    return {
        "v": 1,
        "stream": stream.condition,
        "why": stream.why,
        "since": rfc3339(since),
        "samples": line.taken,
        "dropped": line.box.dropped,
        "answered": line.stats.samples,
        "bad": line.stats.bad,
        "missed": line.stats.missed,
        "late": line.stats.late,
        "trouble": line.stats.trouble,
        "events": line.stats.findings,
        "models": line.models,
        "refused": line.refused,
        "versions": line.versions,
        "thresholds": {key: one.now for key, one in line.thresholds.items()},
        "by_command": by_command(line),
        "saves": line.saves,
    }


def device_health(outbox: Outbox, link: Link | None, started: float) -> dict[str, object]:
    """What is retained under health. `started`: monotonic."""
    return {
        "v": 1,
        "at": rfc3339(time.time()),
        "version": __version__,
        "uptime_s": round(time.monotonic() - started, 1),
        "rss_bytes": rss_bytes(),
        "store_bytes": outbox.size,
        "waiting": outbox.waiting,
        "events": outbox.counts.put,
        "acknowledged": outbox.counts.done,
        "lost": outbox.counts.dropped,
        "disk": outbox.trouble or "ok",
        "mqtt": link.speaks if link else "",
        "passed_over": link.session.passed_over if link else 0,
    }


class State:
    """Says the states and the health from time to time, retained. Of one thread."""

    def __init__(
        self,
        lines: Sequence[Line],
        outbox: Outbox,
        link: Link | None,
        beside: Mapping[str, Callable[[], str]] = MappingProxyType({}),
    ) -> None:
        """`beside`: what else health holds -> how it fares."""
        self.lines, self.outbox, self.link, self.beside = lines, outbox, link, beside
        self.refused = ""
        """why another config was refused, one line; empty when none was"""
        self.started, self._began = time.monotonic(), 0.0
        """when it did, monotonic; and by the clock of now, seconds since 1970"""
        self.governor: Governor | None = None
        """what keeps [limits]; set before anything is said"""
        self.accuracy: Guarding | None = None
        """what watches over the accuracy of models, where the config asks for it"""
        self.show: HomeAssistant | None = None
        """what Home Assistant is shown beside; it is told before anything is said"""
        self._state_at = self._health_at = self._counts_at = 0.0
        """monotonic times of the next ones"""
        self._said: dict[str, tuple[dict[str, object], float]] = {}
        """what was said last under each topic, without what counts, and when (monotonic)"""

    def show_tails(self) -> list[str]:
        """Topics for Home Assistant whose last words hold until there are newer ones."""
        return [] if self.show is None else self.show.tails()

    def states(self) -> dict[str, dict[str, object]]:
        """That of each pipeline."""
        return {line.config.name: line_state(line) for line in self.lines}

    def seen(self) -> Seen:
        """That of the device and of each pipeline, and what it counts."""
        from edge_agent.link.sparkplug.speaker import Seen

        lines = {
            line.config.name: (line_state(line), line.follow.counts if line.follow is not None else {})
            for line in self.lines
        }
        return Seen(self.health(), lines)

    def health(self) -> dict[str, object]:
        """That of the device."""
        told = device_health(self.outbox, self.link, self.started)
        began = time.time() - time.monotonic() + self.started
        if abs(began - self._began) > CLOCK_S:
            self._began = round(began)
        own: dict[str, object] = {name: about() for name, about in self.beside.items()}
        own["started"] = rfc3339(self._began)
        governed = self.governor.state if self.governor is not None else None
        if governed is not None:
            own["governor"] = msgspec.to_builtins(governed)
        limits = self.governor.about() if self.governor is not None else "ok"
        return {**told, "config": self.refused or "ok", "limits": limits, **own}

    def say_due(self, changed: bool) -> None:
        """Say what has not been said for a while; the states at once when one `changed`."""
        if self.show is not None:
            self.show.look()
        now = time.monotonic()
        if changed or now >= self._state_at:
            self._state_at = now + STATE_S
            self.say_states()
        if now >= self._counts_at:
            self._counts_at = now + COUNTS_S
            self.say_counts()
        if now >= self._health_at:
            self._health_at = now + HEALTH_S
            self.say_health()

    def say_states(self) -> None:
        """The state of each pipeline."""
        if self.show is not None:
            self.show.look()
        for name, state in self.states().items():
            self._say(topics.state(name), state)
        self.say_counts()

    def say_counts(self) -> None:
        """How many objects each pipeline that tracks sees, and what else Home Assistant is shown; said again only when
        that changes.
        """
        for line in self.lines:
            if line.follow is not None:
                self._say(topics.counts(line.config.name), line.follow.counts)
            elif self.show is not None and (counts := self.show.counts(line)):
                self._say(topics.counts(line.config.name), counts)
        for name, last in self.show.last() if self.show is not None else ():
            self._say(topics.last(name), last)

    def say_health(self) -> None:
        """How the device is, and in how many seconds at most it says so again: one not heard by then may be gone."""
        metered = self.link is not None and self.link.budget.per_day is not None
        self._say(topics.HEALTH, {**self.health(), "every_s": METERED_S if metered else HEALTH_S})

    def forget(self, name: str) -> None:
        """A pipeline of this name is no more."""
        self.clear([topics.state(name), topics.counts(name)])
        if self.show is not None:
            self.show.forget(name)

    def clear(self, tails: Iterable[str]) -> None:
        """What is retained under these holds no more."""
        for tail in tails:
            self._said.pop(tail, None)
            if self.show is not None:
                self.show.clear(tail)
            elif self.link is not None:
                self.link.unsay(tail)

    def _say(self, tail: str, body: dict[str, object]) -> None:
        """Retain it; on a metered link once an hour, or when more than time and counts have changed in it."""
        if self.link is None:
            return
        budget, now = self.link.budget, time.monotonic()
        telling = {key: value for key, value in body.items() if key not in COUNTING}
        before, said_at = self._said.get(tail, ({}, -METERED_S))
        if budget.per_day is not None and now < said_at + METERED_S and (budget.saving or telling == before):
            return
        self._said[tail] = telling, now
        self.link.say(tail, msgspec.json.encode(body))
