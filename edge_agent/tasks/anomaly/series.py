"""``anomaly:series?limit=130``: numbers that come one after the other -> how rare this one is, among those before it.

It needs no model: it learns from the series itself, keeps what it learned on disk, and looks at nothing that comes
later. A surprise is how far the mean of the last numbers lies from all before (the level), or from those of the same
hour of the day (the season), in standard deviations; how long a number has stood still counts, too. How rare a surprise
is, is counted among all surprises so far. What else was tried, and the figures: docs/anomaly.md.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import files
from edge_agent.errors import ConfigError, InputError
from edge_agent.types import Anomaly, Finding, ModelRef, Text
from edge_agent.uri import Uri, number, option

OPTIONS = {"limit": "130", "value": "value", "time": "time", "store": ""}
SHORT = 12.0
"""points of the mean that is compared"""
FORGET = 3e-4
"""weight of a point in what is remembered of all of them, once there are many"""
HOUR_FORGET = 0.05
"""weight of a point in what is remembered of its hour of the day"""
CALM = 40
"""usual points in a row after which a series that was unusual is usual again"""
LEARN = 200
"""points before anything is told"""
STILL = 30, 2.0
"""points, and times the longest so far, that a number stands still before that is a surprise"""
BINS, BINS_A_E, LEAST = 400, 25, -5.0
"""of the histogram of the logarithm of a surprise: how many, how many for a factor of e, and where it begins"""
BEYOND = 3.0
"""digits that a surprise gains for each factor of ten by which it is beyond all so far; one at most"""
GAP = 20.0
"""times the usual pause between two points: after that the mean of the last numbers begins anew"""
AGAIN_S = 3600.0
"""seconds by which a point may be older than the last one, and is one that was there before"""
SAVE_S = 60.0
"""seconds between two times that what was learned is written"""
MOST_BYTES = 1_000_000
SERIES = ModelRef("series", "1", "")
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Rarity(msgspec.Struct):
    """Counts surprises."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * BINS)
    total: int = 0
    largest: float = 0.0

    def __call__(self, surprise: float) -> float:
        """One in how many points so far was such a surprise; then it is counted, too."""
        place = int((math.log(surprise + 1e-6) - LEAST) * BINS_A_E)
        place = min(max(place, 0), BINS - 1)
        as_large = sum(self.counts[place:])
        rare = (self.total + 1) / (as_large + 1)
        if not as_large and 0 < self.largest < surprise:
            rare *= 10 ** min(1.0, BEYOND * math.log10(surprise / self.largest))
        self.counts[place] += 1
        self.total += 1
        self.largest = max(self.largest, surprise)
        return rare


class Spread(msgspec.Struct):
    """What is remembered of the level, or of what differs from the hour's: its mean, variance and the last ones'."""

    mean: float = 0.0
    variance: float = 0.0
    last: float = 0.0
    count: int = 0
    rarity: Rarity = msgspec.field(default_factory=Rarity)

    def __call__(self, x: float, anew: bool) -> float:
        """How rare it is; `anew`: the points before it are long past."""
        if not self.count:
            self.mean = self.last = x
        self.last = x if anew else self.last + (x - self.last) / SHORT
        spread = math.sqrt(self.variance) + 1e-9 * abs(self.mean) + 1e-12
        rare = self.rarity(min(abs(self.last - self.mean) / spread, 1e12)) if self.count > 20 else 1.0
        self.count += 1
        weight, off = max(FORGET, 1 / self.count), x - self.mean
        self.mean += weight * off
        self.variance = (1 - weight) * (self.variance + weight * off * off)
        return rare


class Series(msgspec.Struct):
    """All that is remembered of one series; JSON on disk."""

    version: int = 1
    points: int = 0
    at: float = 0.0
    """of the last point, seconds since 1970"""
    pause: float = 0.0
    """seconds between two points, in the middle"""
    level: Spread = msgspec.field(default_factory=Spread)
    season: Spread = msgspec.field(default_factory=Spread)
    hours: list[list[float]] = msgspec.field(default_factory=lambda: [[0.0, 0.0] for _ in range(24)])
    """of each hour of the day: the mean, and of how many points"""
    value: float = math.inf
    still: int = 0
    longest: int = 0
    """points that the number has not changed, now and at most"""
    calm: int = CALM
    """usual points in a row"""

    def __call__(self, at: float, x: float, limit: float) -> tuple[dict[str, float], bool]:
        """How rare this point is in each respect (once in so many points), and whether the series is unusual."""
        past = at - self.at if self.points else 0.0
        anew = self.points > 0 and not 0 <= past <= GAP * max(self.pause, 1e-3) and self.pause > 0
        if past > 0:
            self.pause += (past - self.pause) * (0.05 if past > self.pause else 0.2) if self.pause else past
        hour = self.hours[int(at // 3600) % 24]
        found = {"level": self.level(x, anew), "season": 1.0, "still": self._stands(x)}
        if hour[1]:
            found["season"] = self.season(x - hour[0], anew)
        hour[1] += 1
        hour[0] += (x - hour[0]) * max(HOUR_FORGET, 1 / hour[1])
        self.at, self.points = at, self.points + 1
        if self.points <= LEARN:
            found = dict.fromkeys(found, 1.0)
        self.calm = 0 if max(found.values()) > limit else min(self.calm + 1, CALM)
        return found, self.calm < CALM

    def _stands(self, x: float) -> float:
        """How rare it is that a number stands still for so long: as many points as it has, once it never did."""
        same = x == self.value
        if not same:
            self.longest = max(self.longest, self.still)
        self.still, self.value = (self.still + 1 if same else 0), x
        varies = self.level.variance > 0
        least, times = STILL
        return float(self.points) if varies and self.still > max(least, times * self.longest) else 1.0


@dataclass(slots=True)
class SeriesTask:
    """The task. Of one thread."""

    path: Path
    """where it is remembered"""
    value: str
    when: str
    """members of a JSON object that hold the number and its time"""
    limit: float
    """once in so many points, from which on a point is unusual"""
    takes: tuple[type, ...] = (Text,)
    model: ModelRef = SERIES
    _series: Series = field(default_factory=Series)
    _saved: float = field(default_factory=time.monotonic)

    def __call__(self, item: Text) -> Iterator[Finding]:
        """One Finding with the Anomaly; none for a point that was there before. InputError for no number."""
        began = time.perf_counter()
        at, x = point(item, self.value, self.when)
        # told again after a restart; what is older by more is of a clock that was set
        if self._series.points and 0 <= self._series.at - at < AGAIN_S:
            return
        parts, unusual = self._series(at, x, self.limit)
        spent = {"infer": (time.perf_counter() - began) * 1e3}
        yield Finding(item, Anomaly(max(parts.values()), self.limit, parts, held=unusual, value=x), self.model, spent)
        if time.monotonic() - self._saved > SAVE_S:
            self.save()

    def ended(self) -> Iterator[Finding]:
        """Nothing is left; what was learned is kept."""
        self.save()
        return iter(())

    def save(self) -> None:
        """Write what was learned; a disk that takes nothing costs what was learned since."""
        self._saved = time.monotonic()
        files.write(self.path, json.dumps(msgspec.to_builtins(self._series)))

    def load(self) -> None:
        """Go on where it was; ConfigError for a file that is something else."""
        try:
            raw = files.read_regular(self.path, MOST_BYTES)
            found = msgspec.json.decode(raw, type=Series)
            counted = (len(one.rarity.counts) == BINS for one in (found.level, found.season))
            if found.version != 1 or [len(hour) for hour in found.hours] != [2] * 24 or not all(counted):
                raise ValueError("another form")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.path}: is no series of ours ({error}); delete it, and it is learned anew"
            ) from None
        self._series = found


def point(item: Text, value: str, at: str) -> tuple[float, float]:
    """The time (seconds since 1970) and the number of a line: ``NUMBER``, ``TIME,NUMBER``, or a JSON object with with
    members named `value` and perhaps `at`. The time of the sample where the line has none. InputError.
    """
    line = item.text.strip()
    if line.startswith("{"):
        when, what = _members(line, value, at)
    else:
        when, comma, what = line.rpartition(",")
        when, what = when.strip() if comma else None, what.strip()
    try:
        x = float(what)
    except (TypeError, ValueError):
        raise InputError(f'"{str(what)[:40]}" is no number') from None
    if isinstance(what, bool) or not math.isfinite(x):
        raise InputError(f'"{str(what)[:40]}" is no finite number')
    return (item.at if when is None else _seconds(when)), x


def _members(line: str, value: str, at: str) -> tuple[Any, Any]:
    """What stands in a JSON object under these two names. InputError."""
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise InputError(f"the line is no JSON ({error})") from None
    if value not in found:
        raise InputError(f'the line has no "{value}", only {", ".join(map(str, found))[:80]}; name it with value=')
    return found.get(at), found[value]


def _seconds(when: Any) -> float:
    """A time as seconds since 1970: such a number, or ISO 8601, in UTC where it names no zone. InputError."""
    try:
        seconds = float(when)
    except (TypeError, ValueError):
        try:
            # Python 3.10 knows no Z
            given = datetime.fromisoformat(str(when).strip().replace("Z", "+00:00"))
        except ValueError:
            raise InputError(f'"{str(when)[:40]}" is no time; write seconds since 1970, or ISO 8601') from None
        seconds = given.replace(tzinfo=given.tzinfo or timezone.utc).timestamp()
    if not 0 <= seconds < 1e11:
        raise InputError(f'"{str(when)[:40]}" is no time of seconds since 1970')
    return seconds


def series(uri: Uri, home: Path) -> SeriesTask:
    """Make the task. ConfigError for its options, or where what it remembers is something else."""
    limit = number(uri, OPTIONS, "limit", 2, 1e9)
    name = option(uri, OPTIONS, "store")
    if not NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            f'"{uri}": store={name}: give a name of letters, digits, - and _, under which it is remembered'
        )
    task = SeriesTask(
        home / "series" / f"{name}.json", option(uri, OPTIONS, "value"), option(uri, OPTIONS, "time"), limit
    )
    task.load()
    return task
