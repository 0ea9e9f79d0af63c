"""A recap of a day, or of any while, without a language model: counts, first and last, and what was unusual.

Usual is what the same hours of the days before had, at most BACK of them that the archive reaches back to: a count is
unusual where it is FAR standard deviations of a Poisson count away from their mean, or where there never was such a
thing.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from edge_agent.archive.archive import Archive
from edge_agent.archive.search import within
from edge_agent.archive.wanted import ALL, Wanted, where_of

BACK, ENOUGH = 14, 3
"""days before that are looked at, and from how many on there is a usual"""
FAR = 3.0
NOTABLE = 20
"""rules, unusual readings and gaps that are named at most"""
DAY = 86_400.0
COUNTED = "(kind <> 'object' OR json_extract(CAST(body AS TEXT), '$.phase') = 'new')"
"""of a thing in view its coming counts, and not what becomes of it"""


class Row(msgspec.Struct, frozen=True):
    """What one pipeline had of one label."""

    pipeline: str
    label: str
    """empty for what has none, such as a text"""
    kind: str
    count: int
    first: float
    """seconds since 1970"""
    last: float
    usual: float | None
    """mean of the days before; None where there are too few"""
    unusual: str
    """why, in a few words; empty where it is not"""


class Recap(msgspec.Struct, frozen=True):
    """A while in short."""

    since: float
    until: float
    events: int
    compared: int
    """days before that it was held against"""
    rows: list[Row]
    """the most frequent first"""
    notable: list[tuple[float, str, str]]
    """when, pipeline, words: rules that came on, unusual readings, events that were lost"""


def recap(archive: Archive, since: float, until: float, wanted: Wanted = ALL) -> Recap:
    """What there was from `since` to `until`. StoreError where the archive cannot be read."""
    wanted = within(wanted, since, until)
    before = [
        _counts(archive, msgspec.structs.replace(wanted, since=a, until=b)) for a, b in _before(archive, since, until)
    ]
    found, none = _counts(archive, wanted), (0, since, since)
    keys = sorted({*found, *(key for one in before for key in one)})
    rows = [_row(key, found.get(key, none), [one.get(key, none)[0] for one in before]) for key in keys]
    shown = [row for row in rows if row.count or row.unusual]
    shown.sort(key=lambda row: (-row.count, row.pipeline, row.label))
    return Recap(since, until, archive.count(wanted), len(before), shown, _notable(archive, wanted))


def _before(archive: Archive, since: float, until: float) -> list[tuple[float, float]]:
    """The same hours of days before, as far as the archive reaches back."""
    step = DAY * max(1, math.ceil((until - since) / DAY))
    ((oldest,),) = archive.rows("SELECT min(at) FROM events")
    spans = [(since - n * step, until - n * step) for n in range(1, BACK + 1)]
    return [span for span in spans if oldest is not None and span[0] >= oldest - step / 2]


def _counts(archive: Archive, wanted: Wanted) -> dict[tuple[str, str, str], tuple[int, float, float]]:
    """(pipeline, label, kind) -> how many, first and last."""
    where, values = where_of(wanted)
    select = f"""SELECT pipeline, coalesce(value, ''), kind, count(*), min(at), max(at) FROM events
        LEFT JOIN tags ON tags.n = events.n AND tags.what = 'label' WHERE {where} AND {COUNTED} GROUP BY 1, 2, 3"""
    return {(a, b, c): (count, first, last) for a, b, c, count, first, last in archive.rows(select, values)}


def _row(key: tuple[str, str, str], found: tuple[int, float, float], before: list[int]) -> Row:
    pipeline, label, kind = key
    count, first, last = found
    usual = sum(before) / len(before) if len(before) >= ENOUGH else None
    return Row(pipeline, label, kind, count, first, last, usual, _why(count, usual, len(before)))


def _why(count: int, usual: float | None, days: int) -> str:
    if usual is None:
        return ""
    if not usual:
        return f"never in the {days} days before"
    if abs(count - usual) > FAR * math.sqrt(max(usual, 1.0)):
        return "many more than usual" if count > usual else "far fewer than usual"
    return ""


def _notable(archive: Archive, wanted: Wanted) -> list[tuple[float, str, str]]:
    """Rules that came on, unusual readings, events that were lost."""
    kinds = msgspec.structs.replace(wanted, kinds=[kind for kind in ("rule", "anomaly", "gap") if _may(wanted, kind)])
    where, values = where_of(kinds)
    found = archive.kept(f"WHERE {where} ORDER BY at", values) if kinds.kinds else []
    bodies = [(kept, kept.body()) for kept in found]
    said = [(kept.at, str(body["pipeline"]), kept.text) for kept, body in bodies if _counts_as_notable(body)]
    return said[:NOTABLE]


def _may(wanted: Wanted, kind: str) -> bool:
    return not wanted.kinds or kind in wanted.kinds


def _counts_as_notable(body: dict[str, Any]) -> bool:
    return bool(body["kind"] == "gap" or body.get("phase") == "on" or body.get("unusual"))
