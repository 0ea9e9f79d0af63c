"""Words about time in a question: "last night", "Monday at 8", "two hours ago", "between 2 and 4 pm", "on 12 March".

Times are those of the device's clock and zone. An hour without am or pm is one of 24, unless a part of the day says
otherwise ("yesterday evening at 8"). A night belongs to the day on whose evening it begins. A weekday is the last one
that there was, today's name is today; "last Monday" is never today.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_COUNTED = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {"a": 1, "an": 1, **{word: n for n, word in enumerate(_COUNTED, 1)}}
PARTS = {"morning": (5, 12), "noon": (11, 14), "afternoon": (12, 18), "evening": (17, 23), "night": (18, 30)}
"""part of a day -> its hours, from its midnight"""
UNITS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 7 * 86_400, "month": 30 * 86_400}
_NUMBER = rf"(?:\d{{1,4}}|{'|'.join(NUMBERS)})"
_UNIT = rf"(?:{'|'.join(UNITS)})"
_PART = rf"(?:{'|'.join(PARTS)})"
_DAY = rf"(?:{'|'.join(DAYS)})"
_MONTH = rf"(?:{'|'.join(MONTHS)}|{'|'.join(month[:3] for month in MONTHS)})"
_CLOCK = r"\d{1,2}(?::\d\d)?(?: ?(?:am|pm|o'clock))?|noon|midnight"


class Span(NamedTuple):
    """From when to when, and what the question says beside."""

    since: float | None
    """seconds since 1970; None where it names no time"""
    until: float | None
    rest: str


def span(question: str, now: datetime | None = None) -> Span:
    """The time that a question names, and the question without it. `now`: of the zone in which it is asked."""
    now = (now or datetime.now()).astimezone()
    text = re.sub(r"\s+", " ", question.strip())
    for pattern, meant in _WHOLE:
        if found := re.search(pattern, text, re.IGNORECASE):
            since, until = meant(found, now)
            return _span(since, until, text, [found])
    return _day_and_clock(text, now)


def _span(since: datetime, until: datetime, text: str, found: list[re.Match[str]]) -> Span:
    for match in sorted(found, key=lambda match: -match.start()):
        text = text[: match.start()] + " " + text[match.end() :]
    # what is left of "in the", and what makes no difference
    text = re.sub(r"\b(?:on|at|in|early|late|during)(?: the)? *(?=[?.,]|$)|^(?:early|late)\b", "", text, flags=re.I)
    return Span(since.timestamp(), until.timestamp(), re.sub(r"\s+", " ", text).strip())


def _midnight(day: datetime, days: int = 0) -> datetime:
    """The beginning of a day, so many days later: where clocks change at night, a day has 23 or 25 hours."""
    return (day.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=days)).astimezone()


def _hour(day: datetime, hours: float) -> datetime:
    """An hour of a day, beyond 24 of the next."""
    days, rest = divmod(hours, 24)
    return _midnight(day, int(days)) + timedelta(hours=rest)


def _number(word: str) -> int:
    return int(word) if word.isdigit() else NUMBERS[word.lower()]


# ── what stands for a time alone ─────────────────────────────────────────────────────────────────────────

Times = tuple[datetime, datetime]


def _past(found: re.Match[str], now: datetime) -> Times:
    return now - timedelta(seconds=_number(found["n"] or "one") * UNITS[found["unit"].lower()]), now


def _ago(found: re.Match[str], now: datetime) -> Times:
    unit = found["unit"].lower()
    at = now - timedelta(seconds=_number(found["n"]) * UNITS[unit])
    if unit in ("minute", "hour"):
        wide = timedelta(seconds=150 if unit == "minute" else 1800)
        return at - wide, min(now, at + wide)
    days = {"day": 0, "week": 3, "month": 15}[unit]
    return _midnight(at, -days), _midnight(at, days + 1)


def _week(found: re.Match[str], now: datetime) -> Times:
    monday = _midnight(now, -now.weekday())
    back = 7 if found["which"].lower() == "last" else 0
    if found["what"].lower() == "weekend":
        back = 7 if found["which"].lower() == "last" or now.weekday() < 5 else 0
        return _midnight(monday, 5 - back), _midnight(monday, 7 - back)
    return _midnight(monday, -back), _midnight(monday, 7 - back)


def _month(found: re.Match[str], now: datetime) -> Times:
    """This or the last month, or one by its name: the last one that has begun."""
    this = _midnight(now.replace(day=1))
    before = _midnight(_midnight(this, -1).replace(day=1))
    if which := found.groupdict().get("which"):
        return (before, this) if which.lower() == "last" else (this, _midnight(this, 32).replace(day=1))
    first = this.replace(month=_month_of(found["month"]))
    first = _midnight(first if first <= now else first.replace(year=first.year - 1))
    return first, _midnight(_midnight(first, 32).replace(day=1))


def _month_of(name: str) -> int:
    return 1 + next(n for n, month in enumerate(MONTHS) if month.startswith(name.lower()[:3]))


def _night_before(found: re.Match[str], now: datetime) -> Times:
    day = _day_of(found["day"], now)
    return _hour(_midnight(day, -1), 18), _hour(day, 6)


_WHOLE: tuple[tuple[str, Callable[[re.Match[str], datetime], Times]], ...] = (
    (r"\b(?:at |on |in )?(?:the )?(?P<which>last|this|the) (?P<what>weekend|week)\b", _week),
    (r"\b(?:in |during )?(?P<which>last|this) month\b", _month),
    (
        rf"\b(?:in |within |during |over )?(?:the )?(?:last|past) (?:(?P<n>{_NUMBER}) )?(?P<unit>{_UNIT})s?\b",
        _past,
    ),
    (rf"\b(?P<n>{_NUMBER}) (?P<unit>{_UNIT})s? ago\b", _ago),
    (rf"\b(?:in )?(?:the )?night before (?P<day>{_DAY}|yesterday|today)\b", _night_before),
    (rf"\bin (?P<month>{_MONTH})\b(?! \d)", _month),
)
"""pattern -> the time that it means"""


# ── a day, a part of it, an hour ─────────────────────────────────────────────────────────────────────────

_DATE = (
    rf"(?P<iso>\d{{4}}-\d\d-\d\d)|(?P<d1>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<m1>{_MONTH})"
    rf"|(?P<m2>{_MONTH}) (?P<d2>\d{{1,2}})(?:st|nd|rd|th)?"
)
_DAYS_OF = re.compile(
    rf"\b(?:on |since )?(?:{_DATE}|(?P<last>last )?(?P<day>{_DAY}|yesterday|today|tonight|night|this (?={_PART})))\b",
    re.IGNORECASE,
)
_PART_OF = re.compile(rf"\b(?:in the |at )?(?P<part>{_PART})\b", re.IGNORECASE)
_BETWEEN = re.compile(rf"\b(?:between|from) (?P<a>{_CLOCK}) (?:and|to|until) (?P<b>{_CLOCK})\b", re.IGNORECASE)
_AT = re.compile(rf"\b(?P<how>at|around|about|after|before|by|since) (?P<a>{_CLOCK})\b", re.IGNORECASE)


def _day_and_clock(text: str, now: datetime) -> Span:
    """A day, a part of it, and a time of it, where they are named."""
    found = next((match for match in _DAYS_OF.finditer(text) if _is_day(match)), None)
    part, clock = _part(text, found), _BETWEEN.search(text) or _AT.search(text)
    if not _names_time(found, part, clock):
        return Span(None, None, text)
    begin, end = _begin_and_end(found, part, clock, now)
    return _span(begin, end, text, _apart([match for match in (found, part, clock) if match is not None]))


def _begin_and_end(
    found: re.Match[str] | None, part: re.Match[str] | None, clock: re.Match[str] | None, now: datetime
) -> Times:
    """The time that these mean together."""
    begin, end = _hours_of(_dated(found, now) if found else now, part, clock)
    if found is None and begin > now:  # "at 8", asked at seven, is yesterday's
        return _hours_of(_midnight(now, -1), part, clock)
    return begin, now if found is not None and found.group(0).lower().startswith("since ") else end


def _names_time(found: re.Match[str] | None, part: re.Match[str] | None, clock: re.Match[str] | None) -> bool:
    """A day or an hour does; a part of a day only as in "in the morning", as "good night" is none."""
    return bool(found or clock or (part and part.group(0).lower() != part["part"].lower()))


def _hours_of(day: datetime, part: re.Match[str] | None, clock: re.Match[str] | None) -> Times:
    """That part of a day, or those hours of it."""
    name = part["part"].lower() if part else ""
    hours: tuple[float, float] = _hours(clock, name) if clock else PARTS.get(name, (0, 24))
    return _hour(day, hours[0]), _hour(day, hours[1])


def _apart(matches: list[re.Match[str]]) -> list[re.Match[str]]:
    """Those that lie in no other; of equal ones one."""
    kept: list[re.Match[str]] = []
    for one in sorted(matches, key=lambda match: match.start() - match.end()):
        if not any(other.start() <= one.start() and one.end() <= other.end() for other in kept):
            kept.append(one)
    return kept


def _is_day(match: re.Match[str]) -> bool:
    """Whether it names a day: "night" does after "last" alone, and 2026-13-45 does not."""
    if match["iso"]:
        with contextlib.suppress(ValueError):
            return bool(datetime.fromisoformat(match["iso"]))
        return False
    return (match["day"] or "").lower() != "night" or bool(match["last"])


def _dated(match: re.Match[str], now: datetime) -> datetime:
    if match["iso"]:
        return _midnight(datetime.fromisoformat(match["iso"]))
    if number := match["d1"] or match["d2"]:
        month = _month_of(match["m1"] or match["m2"])
        for year in (now.year, now.year - 1):
            try:
                day = _midnight(now.replace(year=year, month=month, day=int(number)))
            except ValueError:
                continue
            if day <= now:
                return day
    return _day_of((match["day"] or "today").lower(), now, bool(match["last"]))


def _day_of(word: str, now: datetime, last: bool = False) -> datetime:
    """The day that a word means."""
    word = word.lower()
    if word == "night":  # last night: at four in the morning it still goes on
        return _midnight(now, -1)
    if word in DAYS:
        back = (now.weekday() - DAYS.index(word)) % 7
        return _midnight(now, -(back or 7 if last else back))
    return _midnight(now, -1 if word == "yesterday" else 0)


def _part(text: str, day: re.Match[str] | None) -> re.Match[str] | None:
    """The part of a day that is named: behind the day, or as in "in the morning"."""
    if day and (day["day"] or "").lower() in ("night", "tonight"):
        return re.compile("(?P<part>night)", re.IGNORECASE).search(text, day.start())
    behind = (_PART_OF.match(text, day.end() + 1) or _PART_OF.match(text, day.end())) if day else None
    return behind or next((match for match in _PART_OF.finditer(text) if " " in match.group(0)), None)


def _hours(clock: re.Match[str], part: str) -> tuple[float, float]:
    """From which hour to which, from the day's midnight."""
    groups = clock.groupdict()
    second = groups.get("b")
    late = part in ("afternoon", "evening", "night") or bool(second and re.search("pm", second, re.IGNORECASE))
    first = _clock(clock["a"], late)
    if second:
        last = _clock(second, late)
        return first, last + 24 * (last <= first)
    how = clock["how"].lower()
    if how in ("after", "since"):
        return first, 30 if part == "night" else 24
    if how in ("before", "by"):
        return 0, first
    wide = 0.35 if ":" in clock["a"] else 0.5
    return first - wide, first + 2 * wide


def _clock(text: str, late: bool) -> float:
    """Hours from midnight."""
    text = text.lower()
    if text in ("noon", "midnight"):
        return 12.0 if text == "noon" else 24.0
    hour, _, minute = re.sub(r"[^\d:]", "", text).partition(":")
    value = min(int(hour), 24) + min(int(minute or 0), 59) / 60
    if "am" in text:
        return value % 12
    return value + 12 if ("pm" in text or late) and value < 12 else value
