"""What is worth an event: every finding, changes only, or a summary from time to time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import msgspec

from edge_agent.config import Pipeline
from edge_agent.events import AnomalyEvent, DetectionsEvent, Event, ScoresEvent, SpansEvent, TextEvent, kind_of
from edge_agent.types import Anomaly, Detections, Finding, Frame, Sample, Scores, Text
from edge_agent.walk.event import SampleOrFinding, to_event

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
    ) -> None:
        """`put` keeps an event of a class, and where the source resumes behind it; `passed` is given the place up to
        which the source is done, where that lies behind the last event; `saving`: whether repeats are to be folded.
        """
        how = pipe.report or ("changes" if live else "every")
        self.worth = reporter(how)
        self._pipe, self._put, self._passed, self._saving = pipe, put, passed, saving
        self._late = how.startswith("summary")
        """findings may still be reported when later samples are done"""
        self._fold = Folder()
        self._kept: int | None = None
        self._done: int | None = None
        """marks of the last event, and of the last sample that was dealt with"""

    def keep(self, found: SampleOrFinding) -> None:
        """Make the event of a finding, and keep it, or what it is folded with."""
        event = to_event(found, self._pipe.name)
        folds = self._class_of(event) == "telemetry" and self._saving()
        self._put_each(self._fold(event, folds, _mark(found.of if isinstance(found, Finding) else found)))

    def done(self, sample: Sample) -> None:
        """All that is reported of this sample was kept."""
        self._done = _mark(sample)
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


def _mark(sample: Sample) -> int | None:
    """Where its source resumes behind it; None where it has no such place."""
    return sample.mark if isinstance(sample, Text) else None


def reporter(how: str) -> Reporter:
    """The report that a config asks for: "every", "changes" or "summary:10s"."""
    if how == "every":
        return lambda found: found or ()
    if how == "changes":
        return _changes()
    return _summary(float(how.removeprefix("summary:").removesuffix("s")))


def _labels(item: SampleOrFinding) -> Counter[object] | None:
    """What is in view; None for what is always reported."""
    if not isinstance(item, Finding):
        return None
    if isinstance(item.what, Detections):
        return Counter(item.what.label.tolist())
    if isinstance(item.what, Scores) and isinstance(item.of, Frame):
        return Counter([item.what.label])
    if isinstance(item.what, Anomaly) and item.what.unusual is not None:
        return Counter([item.what.unusual])
    return None


def _changes() -> Reporter:
    """Detections when how many of each label are in view differs from the last reported; so the label of a frame, and
    whether a sample is unusual; all else always.
    """
    last: Counter[object] = Counter()

    def report(found: Iterable[SampleOrFinding] | None) -> Iterator[SampleOrFinding]:
        nonlocal last
        for item in found or ():
            labels = _labels(item)
            if labels is None or labels != last:
                if labels is not None:
                    last = labels
                yield item

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
            labels = _labels(item)
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
        if held is not None and event is not None and saving and _says(held[0]) == _says(event):
            self._held = msgspec.structs.replace(event, repeats=held[0].repeats + 1), mark
            return
        if held is not None:
            yield held
        if event is not None and saving:
            self._held = event, mark
        elif event is not None:
            yield event, mark


def _says(event: Event) -> object:
    """What makes two events repeats of each other: the labels of the boxes, or of the text."""
    if isinstance(event, DetectionsEvent):
        return sorted(box.label for box in event.detections)
    if isinstance(event, ScoresEvent):
        return event.text, event.label
    if isinstance(event, SpansEvent):
        return event.text, event.spans
    if isinstance(event, AnomalyEvent) and event.unusual is not None:
        return event.unusual
    return event.text if isinstance(event, TextEvent) else event
