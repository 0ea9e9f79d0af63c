"""What an opening finds out of a store: how far its numbers went, what is missing, where its sources resume."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.events import KNOWN_TIME
from edge_agent.outbox import marks, numbering, segments
from edge_agent.outbox.entries import QUEUES, Lost, Preface, Queue, Queues, entry, fill, numbers, preface_of
from edge_agent.outbox.marks import Marks
from edge_agent.outbox.numbering import CLOSED, HOMELESS, RESERVE, Mark
from edge_agent.outbox.segments import Segment

CLOCKLESS = bytes(16)
"""the boot id where the kernel tells none"""


@dataclass(frozen=True, slots=True)
class Recovered:
    """A store as it was found."""

    mark: Mark
    """as it stood; the highest seq of each class as it is known now"""
    last: int
    """no number up to it may be given out again"""
    before: int
    """the highest number that is whole: damage that reaches the end of the store ends here"""
    lost: list[Lost]
    """what is to be declared before anything else"""
    told: set[int]
    """each number of that"""
    saved: Marks
    """marks.json, or what the segments tell of it"""
    marks: dict[str, int]
    """pipeline -> the mark of its last event that is kept"""


def recover(path: Path, queues: Queues) -> Recovered:
    """Look at the store's files; nothing is written. Raises OSError."""
    saved = marks.load(path)
    newest, epoch = _newest(queues, saved)
    old, why, first, top = _numbers(path, newest, epoch)
    told: set[int] = set()
    lost: list[Lost] = []
    if why:
        missing = sorted(set(range(first, top + 1)) - queues.on_disk(first, top))
        told |= set(missing)
        lost += [Lost(missing[0], missing[-1], len(missing), f"{why}: these may be lost")] if missing else []
    if old.listed:
        for gone in _gone(path, queues, saved, old, told):
            told |= set(gone[1])
            lost.append(Lost(gone[1][0], gone[1][-1], len(gone[1]), gone[0]))
    last = max(old.last, top)
    if not saved.seq and not saved.marks:
        saved = _from_prefaces(queues)
    before = first - 1 if why else last
    return Recovered(_with_ends(old, queues), last, before, lost, told, saved, _resume(queues, saved, last))


def _with_ends(mark: Mark, queues: Queues) -> Mark:
    """The mark with the highest seq of each class as it is known now."""
    ends = {
        kind: max([getattr(mark, kind), *(run[1] for s in queues[kind].segments[-1:] for run in s.numbers)])
        for kind in QUEUES
    }
    return replace(mark, **ends)


def _numbers(path: Path, newest: int, epoch: int) -> tuple[Mark, str, int, int]:
    """The mark as it stood; why numbers from .. to may be missing, "" when none are."""
    old, whole, copied = _mark(path)
    if old is None and newest == 0:  # a store that begins
        return Mark(_new_epoch(), 0, 0, 0, CLOSED, numbering.boot_id()), "", 1, 0
    if old is None:
        top = newest + 2 * RESERVE
        mark = Mark(epoch, newest, newest, top, HOMELESS, CLOCKLESS)
        return mark, "the store's mark was damaged", newest + 1, top
    same = old.boot == numbering.boot_id() != CLOCKLESS
    aside = numbering.read_aside(path, old.epoch) if same else 0
    if not whole:
        first = (old.last if same and old.state != HOMELESS else old.confirmed) + 1
        top = max(newest, old.last, old.reserved, copied, aside)
        return old, "the store's mark was damaged", first, top
    return (old, *_unsure(old, newest, same, aside))


def _mark(path: Path) -> tuple[Mark | None, bool, int]:
    """The newest mark that can be read; whether none is known to be newer; and up to where the copy reserves."""
    old, whole = numbering.read_mark(path / "mark")
    copy, _ = numbering.read_mark(path / "mark.copy")
    if old is None or (copy is not None and copy.counter > old.counter):
        old, whole = copy, False
    elif old.state == CLOSED and copy is not None:
        whole = True  # an opening since would have left a newer copy
    return old, whole, copy.reserved if copy else 0


def _unsure(old: Mark, newest: int, same: bool, aside: int) -> tuple[str, int, int]:
    """Why numbers from .. to may be missing, by a mark that is whole. `same`: it was written since the boot."""
    if aside > old.last:
        return "the disk had refused them", old.confirmed + 1, max(newest, aside)
    if old.state == CLOSED:
        return ("the store's mark was damaged", old.last + 1, newest) if newest > old.last else ("", 1, 0)
    if not same:
        return "power cut", old.confirmed + 1, max(newest, old.reserved)
    if old.state == HOMELESS:
        return "the disk had refused them", old.confirmed + 1, max(newest, old.last)
    return "the process was killed", old.last + 1, max(newest, old.last)


def _newest(queues: Queues, saved: Marks) -> tuple[int, int]:
    """Highest seq in the newest segments (0: there are none), and the highest epoch in the headers.

    How many events each segment holds is noted on the way.
    """
    newest = epoch = 0
    for queue in queues.values():
        for segment in queue.segments[-1:]:
            fill(segment, queues.numbers(segment))
            newest = max([newest, segment.first - 1, *queues.numbers(segment)])
        _count(queues, queue, saved)
        for segment in queue.segments:
            found, _ = segments.head(segment.path)
            epoch = max(epoch, found)
            if found:
                break
    return newest, epoch or _new_epoch()


def _count(queues: Queues, queue: Queue, saved: Marks) -> None:
    """Note how many events each segment but the last holds, as marks.json or the segment behind it tells."""
    counts = {first: count for first, _, count in saved.live.get(queue.kind, [])}
    for segment, following in zip(queue.segments, queue.segments[1:], strict=False):
        if segment.first in counts:
            segment.count = counts[segment.first]
            continue
        told = preface_of(following.path)
        known = told is not None and told.before == segment.first
        segment.count = told.count if told and known else len(queues.numbers(segment))


def _new_epoch() -> int:
    """Seconds since 1970, so that a store that begins anew has a later one. Where the clock is not set, as on a board
    without a battery before it has the time: any number below those, or all boards would begin with the same.
    """
    now = int(time.time())
    return now if now >= KNOWN_TIME else 1 + secrets.randbelow(1 << 30)


def _gone(path: Path, queues: Queues, saved: Marks, mark: Mark, told: set[int]) -> Iterator[tuple[str, list[int]]]:
    """Segments that are not there, or shorter than they were: why, and the numbers that are missing with them.

    A power cut may leave one short of what was struck off already; what else it took is known from the mark.
    """
    for kind, first, following, how in _not_whole(queues, saved, mark):
        held = _described(queues, saved, kind, first) or set(range(first, following))
        if not held:
            continue
        name = segments.name(kind, first)
        acked = set(segments.read_acks((path / name).with_suffix(".ack")))
        missing = sorted(held - queues.on_disk(min(held), max(held)) - acked - told)
        if missing:
            yield f"{name} was {how}", missing


def _not_whole(queues: Queues, saved: Marks, mark: Mark) -> Iterator[tuple[str, int, int, str]]:
    """Their class, the numbers that they and those behind them begin with, and what happened to them."""
    power_cut = mark.state != CLOSED and not mark.boot == numbering.boot_id() != CLOCKLESS
    for kind, listed in saved.live.items():
        there = {segment.first: segment for segment in queues[kind].segments}
        last = getattr(mark, kind)
        after = [first for first, _, _ in listed[1:]] + [last + 1]
        for (first, size, _), following in zip(listed, after, strict=False):
            segment = there.get(first)
            if segment is None or not (power_cut or _is_whole(queues, segment, size, last)):
                yield kind, first, following, "cut short" if segment is not None else "removed"


def _is_whole(queues: Queues, segment: Segment, size: int, last: int) -> bool:
    """Whether a segment is as long as it was; `size` 0: it was appended to, and holds up to the class's `last`."""
    return segment.size >= size if size else max(queues.numbers(segment), default=0) >= last


def _described(queues: Queues, saved: Marks, kind: str, first: int) -> set[int]:
    """The numbers that a segment held, as the one behind it or the closing told; none when neither does."""
    for segment in queues[kind].segments:
        if segment.first > first:
            told = preface_of(segment.path)
            return told.numbers if told is not None and told.before == first else set()
    runs = saved.newest.get(kind, [])
    return numbers(runs) if runs and saved.live[kind][-1][0] == first else set()


def _from_prefaces(queues: Queues) -> Marks:
    """What the newest segments tell, where marks.json and marks.old are gone."""
    told = [preface_of(segment.path) for queue in queues.values() for segment in queue.segments[-1:]]
    best = max((each for each in told if each is not None), key=lambda each: each.seq, default=Preface(0, {}))
    return Marks(best.seq, best.marks)


def _resume(queues: Queues, saved: Marks, last: int) -> dict[str, int]:
    """The marks as saved, and then those of the events written since."""
    found = dict(saved.marks)
    newest = dict.fromkeys(found, saved.seq)
    for queue in queues.values():
        for item in queue.between(saved.seq + 1, last):
            kept = entry(item, queue.kind)
            if kept.mark is not None and item.seq > newest.get(kept.pipeline, 0):
                newest[kept.pipeline], found[kept.pipeline] = item.seq, kept.mark
    return found
