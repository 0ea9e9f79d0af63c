"""What is worth an event: every finding, changes only, or a summary from time to time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from edge_agent.config import Pipeline
from edge_agent.events import Event, kind_of
from edge_agent.types import Finding, Sample, Text
from edge_agent.walk.event import SampleOrFinding, in_view, to_event
from edge_agent.walk.lines import InView, text_of, with_text
from edge_agent.walk.privacy import OPEN, Guard

if TYPE_CHECKING:
    from edge_agent.walk.follow import Follow

Reporter: TypeAlias = Callable[["Iterable[SampleOrFinding] | None"], "Iterable[SampleOrFinding]"]
"""Findings of one sample -> those to report; None when the samples have ended."""


class Report:
    """The events of one pipeline on their way to where they are kept. Of one thread at a time.

    `keep` takes each finding, `done` each sample once all its findings were taken, `end` ends it.
    """

    def __init__(
        self,
        pipe: Pipeline,
        live: bool,
        put: Callable[[Event, str, int | None], object],
        passed: Callable[[int], object],
        saving: Callable[[], bool],
        guard: Guard = OPEN,
        follow: Follow | None = None,
    ) -> None:
        """`put` keeps an event of a class, and where the source resumes behind it; `passed` is given the place up to
        which the source is done, where that lies behind the last event; `saving`: whether repeats are to be folded;
        `guard`: what of captured text an event may hold; `follow`: what makes the lives of objects, where it tracks.
        """
        how = pipe.report or ("changes" if live else "every")
        self.worth = reporter(how) if follow is None else _following(follow, reporter(how), pipe.report)
        self._pipe, self._put, self._passed, self._saving, self._guard = pipe, put, passed, saving, guard
        self._late = how.startswith("summary")
        """findings may still be reported when later samples are done"""
        self._fold = Folder()
        self._kept: int | None = None
        self._done: int | None = None
        """marks of the last event, and of the last sample that was dealt with"""

    def keep(self, found: SampleOrFinding) -> None:
        """Make the event of a finding, and keep it, or what it is folded with."""
        event = self._guard.event(to_event(found, self._pipe.name), found)
        folds = self._class_of(event) == "telemetry" and self._saving()
        self._put_each(self._fold(event, folds, (found.of if isinstance(found, Finding) else found).mark))

    def done(self, sample: Sample) -> None:
        """All that is reported of this sample was kept."""
        self._done = sample.mark
        # what is held back would not come again
        if not self._fold.holds and not self._late:
            self._pass()

    def end(self) -> None:
        """The samples have ended: keep what was held back."""
        self._put_each(self._fold(None, False))
        self._pass()

    def _class_of(self, event: Event) -> str:
        return self._pipe.class_of(kind_of(event))

    def _put_each(self, events: Iterable[tuple[Event, int | None]]) -> None:
        for event, mark in events:
            self._kept = mark
            self._put(event, self._class_of(event), mark)

    def _pass(self) -> None:
        if self._done is not None and self._done != self._kept:
            self._passed(self._done)


def reporter(how: str) -> Reporter:
    """The report that a config asks for: "every", "changes" or "summary:10s"."""
    if how == "every":
        return lambda found: found or ()
    return _lines(_changes() if how == "changes" else _summary(float(how.removeprefix("summary:").removesuffix("s"))))


def _lines(others: Reporter) -> Reporter:
    """Text that is read in pictures when it comes into view, changes and is gone (lines.py); `others`: of the rest."""
    view = InView()

    def report(found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        if found is None:
            yield from others(None)
            return
        read: dict[tuple[object, ...], list[SampleOrFinding]] = {}
        rest, texts = list[SampleOrFinding](), list[Text]()
        for item in found:
            if (text := text_of(item)) is None:
                rest.append(item)
            elif (key := (text.text, text.got)) in read:
                read[key].append(item)
            else:
                read[key] = [item]
                texts.append(text)
        yield from others(rest)
        told, gone = view(texts)
        for number, now in told.items():
            yield from (with_text(item, now) for item in read[texts[number].text, texts[number].got])
        yield from gone

    return report


def _following(follow: Follow, inner: Reporter, asked: str | None) -> Reporter:
    """The lives of tracked objects; their boxes, too, where "every" result or a summary was `asked` for. What is no
    object goes the way of `inner`.
    """
    boxes = asked not in (None, "changes")

    def report(found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        items = None if found is None else list(found)
        yield from follow(items)
        others = items and [follow.named(item) for item in items if boxes or not follow.takes(item)]
        yield from inner(others)

    return report


def _changes() -> Reporter:
    """Detections when how many of each label are in view differs from the last reported; so the label of a frame, and
    whether a sample is unusual; all else always. Where a sample has several findings, of all of them together.
    """
    last: Counter[object] = Counter()

    def report(found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        nonlocal last
        seen = [(item, in_view(item)) for item in found or ()]
        views = [view for _, view in seen if view is not None]
        now = sum(views, Counter[object]())
        same, last = now == last, now if views or not seen else last
        yield from (item for item, view in seen if view is None or not same)

    return report


def _summary(seconds: float) -> Reporter:
    """Of each `seconds`, the detections with the most boxes; all else always."""
    best: SampleOrFinding | None = None
    most = -1
    until = 0.0

    def report(found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        nonlocal best, most, until
        now = time.monotonic()
        if best is not None and (found is None or now >= until):
            yield best
            best, most = None, -1
        for item in found or ():
            labels = in_view(item)
            if labels is None:
                yield item
            elif sum(labels.values()) > most:
                if best is None:
                    until = now + seconds
                best, most = item, sum(labels.values())

    return report


class Folder:
    """Folds repeats into one event while a metered link saves: of one pipeline, on its own thread."""

    def __init__(self) -> None:
        self._held: tuple[Event, int | None] | None = None

    @property
    def holds(self) -> bool:
        """Whether an event is still to come out."""
        return self._held is not None

    def __call__(
        self, event: Event | None, saving: bool, mark: int | None = None
    ) -> Iterator[tuple[Event, int | None]]:
        """What is to be kept now, each with its own mark: all of it when not saving, else an event once another
        one differs from it.

        `event` None: the samples have ended. Of repeats the last goes out; its `repeats` is how many it stands for.
        """
        held, self._held = self._held, None
        if held is not None and event is not None and saving and held[0].says() == event.says():
            self._held = msgspec.structs.replace(event, repeats=held[0].repeats + 1), mark
            return
        if held is not None:
            yield held
        if event is not None and saving:
            self._held = event, mark
        elif event is not None:
            yield event, mark
