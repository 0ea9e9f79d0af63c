"""One sample through its tasks: the one loop.

A task names the types it takes; what it does not take flows on past it, so a finding of the first task leaves the
chain unless a later task asks for findings.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from edge_agent.errors import InputError, ModelError
from edge_agent.types import (
    Anomaly,
    AnomalyEvent,
    Detection,
    Detections,
    DetectionsEvent,
    Embedding,
    Event,
    Finding,
    Frame,
    Sample,
    Scores,
    ScoresEvent,
    Sink,
    Span,
    Spans,
    SpansEvent,
    Task,
    Text,
    TextEvent,
    rfc3339,
)

log = logging.getLogger("edge_agent")

SampleOrFinding: TypeAlias = Sample | Finding
Reporter: TypeAlias = Callable[["Iterable[SampleOrFinding] | None"], "Iterable[SampleOrFinding]"]
"""Findings of one sample -> those to report; None when the samples have ended."""

KEEP = 1000
"""samples that the times of each stage are remembered for"""


class Stats(msgspec.Struct):
    """What a pipeline did so far."""

    samples: int = 0
    """answered"""
    bad: int = 0
    """samples that could not be answered: corrupt, empty, or the model failed on them"""
    findings: int = 0
    """handed to the sink"""
    stages: dict[str, deque[float]] = msgspec.field(default_factory=dict)
    """stage -> milliseconds of the last samples"""
    trouble: str = ""
    """why the last sample could not be answered, one line; empty when it could"""

    def spent(self, stage: str, ms: float) -> None:
        """Remember one stage's time."""
        self.stages.setdefault(stage, deque(maxlen=KEEP)).append(ms)

    def timed(self, found: Iterable[SampleOrFinding]) -> Iterator[SampleOrFinding]:
        """Pass findings on and remember what each stage of them cost, reported or not."""
        for item in found:
            if isinstance(item, Finding):
                for stage, ms in item.spent_ms.items():
                    self.spent(stage, ms)
            yield item


def run(
    samples: Iterable[Sample],
    tasks: Sequence[Task],
    report: Reporter,
    sink: Sink,
    stats: Stats,
    done: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """Answer each sample: through the tasks, past the report, into the sink. Ends when the samples end.

    `done` is told of each sample once the sink has what is reported of it.

    A sample that is bad, or that the model fails on, is counted and logged, and the next one is taken. Whoever swaps a
    task puts another one into the list `tasks`: a sample that is under way keeps those it began with.
    """
    for sample in samples:
        _tell(sample, _answer(sample, tasks), report, sink, stats)
        done(sample)
    _end(report, sink, stats)


def run_abreast(
    samples: Iterable[Sample],
    teams: Sequence[Sequence[Task]],
    report: Reporter,
    sink: Sink,
    stats: Stats,
    close: Callable[[], None],
    done: Callable[[Sample], None] = lambda sample: None,
) -> None:
    """As `run`, but with a thread for each team of tasks: as many samples are under way at once.

    They are told in the order in which they came. What one of the threads fails on ends all of them: `close` is called,
    which has to end `samples`, and it is raised.
    """
    numbered, taking, telling = enumerate(samples), threading.Lock(), threading.Condition()
    told, failed = 0, False

    def work(tasks: Sequence[Task]) -> None:
        nonlocal told
        while True:
            with taking:
                taken = next(numbered, None)
            if taken is None:
                return
            number, sample = taken
            answer = _answer(sample, tasks)
            with telling:
                while told != number and not failed:
                    telling.wait()
                if failed:
                    return
                _tell(sample, answer, report, sink, stats)
                done(sample)
                told += 1
                telling.notify_all()

    def to_the_end(tasks: Sequence[Task]) -> None:
        nonlocal failed
        ended = False
        try:
            work(tasks)
            ended = True
        finally:
            if not ended:
                with telling:
                    failed = True
                    telling.notify_all()
                close()

    from concurrent.futures import ThreadPoolExecutor  # a verb that runs no pipeline starts sooner without it

    with ThreadPoolExecutor(len(teams)) as pool:
        works = [pool.submit(to_the_end, team) for team in teams]
    for one in works:
        one.result()
    _end(report, sink, stats)


def _answer(sample: Sample, tasks: Sequence[Task]) -> list[SampleOrFinding] | InputError | ModelError:
    """What is left of one sample at the end of the chain, or why it cannot be answered."""
    try:
        return list(walk(sample, tuple(tasks)))
    except (InputError, ModelError) as error:
        return error


def _tell(
    sample: Sample, answer: list[SampleOrFinding] | InputError | ModelError, report: Reporter, sink: Sink, stats: Stats
) -> None:
    """One sample's findings past the report into the sink, or into the log what is wrong with it."""
    try:
        if isinstance(answer, (InputError, ModelError)):
            raise answer
        for found in report(stats.timed(answer)):
            sink(found)
            stats.findings += 1
        stats.trouble = ""
    except (InputError, ModelError) as error:
        stats.bad += 1
        if stats.trouble != str(error):
            log.warning("skipped a sample: %s", error)
        stats.trouble = str(error)
    stats.samples += 1
    stats.spent("age", (time.monotonic() - sample.mono) * 1000)


def _end(report: Reporter, sink: Sink, stats: Stats) -> None:
    for found in report(None):
        sink(found)
        stats.findings += 1


def walk(item: Sample | Finding, tasks: Sequence[Task]) -> Iterator[Sample | Finding]:
    """What is left of one item at the end of the chain, depth first, in order."""
    if not tasks:
        yield item
    elif isinstance(item, tasks[0].takes):
        for out in tasks[0](item):
            yield from walk(out, tasks[1:])
    else:
        yield from walk(item, tasks[1:])


# ── which findings are worth an event ────────────────────────────────────────────────────────────────────


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


# ── from a finding to the event that leaves the device ───────────────────────────────────────────────────


def to_event(found: SampleOrFinding, pipeline: str) -> Event:
    """The event of one finding, not yet numbered; `age_ms` is the sample's age when the finding was ready."""
    sample, ready = (found.of, found.mono) if isinstance(found, Finding) else (found, time.monotonic())
    head: dict[str, Any] = {
        "pipeline": pipeline,
        "at": rfc3339(sample.at),
        "age_ms": round((ready - sample.mono) * 1000, 1),
    }
    if not isinstance(found, Finding):
        if isinstance(found, Text):
            return TextEvent(**head, text=found.text)
        raise ModelError(f"{pipeline}: a {type(found).__name__} has no event of its own; give the pipeline a task")
    head["model"] = found.model
    head["spent_ms"] = {stage: round(ms, 3) for stage, ms in found.spent_ms.items()}
    text = sample.text if isinstance(sample, Text) else ""
    name = sample.name if isinstance(sample, Frame) else ""
    what = found.what
    if isinstance(what, Detections):
        assert isinstance(sample, Frame)
        return DetectionsEvent(**head, width=sample.width, height=sample.height, name=name, detections=detections(what))
    if isinstance(what, Scores):
        scores = {label: round(score, 4) for label, score in what.scores.items()}
        return ScoresEvent(**head, text=text, name=name, label=what.label, score=round(what.score, 4), scores=scores)
    if isinstance(what, Spans):
        return SpansEvent(**head, text=text, spans=spans(what, text))
    if isinstance(what, Embedding):
        return TextEvent(**head, text=text, embedding=[round(float(x), 6) for x in what.vector])
    if isinstance(what, Anomaly):
        return AnomalyEvent(**head, name=name, error=what.error, limit=what.limit, unusual=what.unusual)
    raise ModelError(f"{pipeline}: no event holds {type(what).__name__} yet")


def spans(what: Spans, text: str) -> list[Span]:
    """The marked pieces of a text as rows of an event."""
    rows = zip(what.label, what.start.tolist(), what.end.tolist(), what.score.tolist(), strict=True)
    return [Span(label, text[start:end], start, end, round(score, 4)) for label, start, end, score in rows]


def detections(what: Detections) -> list[Detection]:
    """Columns as rows, rounded to what the numbers are worth: scores to 4 digits, pixels to 2."""
    boxes, scores = what.xyxy.astype(float).round(2).tolist(), what.score.astype(float).round(4).tolist()
    return [
        Detection(what.names.get(label, str(label)), label, score, tuple(box))
        for box, score, label in zip(boxes, scores, what.label.tolist(), strict=True)
    ]
