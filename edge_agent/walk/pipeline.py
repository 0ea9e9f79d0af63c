"""One sample through its tasks: the one loop.

A task names the types it takes; what it does not take flows on past it, so a finding of the first task leaves the
chain unless a later task asks for findings. A task that collects has `ended`: it gives what is left when no more
samples come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from edge_agent.errors import InputError, LateError, ModelError
from edge_agent.types import Finding, Frame, Pixels, Sample, Sink, Task
from edge_agent.walk.event import SampleOrFinding
from edge_agent.walk.fair import Client
from edge_agent.walk.lane import ANYBODY, work_for
from edge_agent.walk.privacy import OPEN, Guard
from edge_agent.walk.report import Reporter
from edge_agent.walk.spread import Spread

log = logging.getLogger("edge_agent")

Answer: TypeAlias = "list[SampleOrFinding] | InputError | ModelError | LateError"
"""what is left of one sample at the end of the chain, or why there is nothing"""
Watcher: TypeAlias = Callable[[Sample, "Sequence[SampleOrFinding]"], None]
"""Is shown a sample and all that was found in it, before it is settled what is reported. On the pipeline's thread, in
the order of the samples: it returns at once and never raises."""
Show: TypeAlias = Callable[[Frame, "Sequence[SampleOrFinding]"], "Pixels | None"]
"""A frame and what was found in it -> its picture as it may be kept, shown and sent, not to be changed; None: not at
all. Asked for the frame that watchers are shown, or were shown last."""
KEEP = 1000
"""samples that the times of each stage are remembered for"""


class Stats(msgspec.Struct):
    """What a pipeline did so far."""

    samples: int = 0
    """answered"""
    bad: int = 0
    """samples that could not be answered: corrupt, empty, or the model failed on them"""
    missed: int = 0
    """samples that were given up, as their turn came too late"""
    late: int = 0
    """samples that were answered after their deadline"""
    findings: int = 0
    """handed to the sink"""
    stages: dict[str, deque[float]] = msgspec.field(default_factory=dict)
    """stage -> milliseconds of the last samples"""
    spread: dict[str, Spread] = msgspec.field(default_factory=dict)
    """stage -> how its times are spread, of all samples"""
    under_way: dict[int, float] = msgspec.field(default_factory=dict)
    """thread -> when it began with the sample that it works on, monotonic"""
    trouble: str = ""
    """why the last sample could not be answered, one line; empty when it could"""

    def spent(self, stage: str, ms: float) -> None:
        """Remember one stage's time."""
        if stage not in self.spread:
            self.stages[stage], self.spread[stage] = deque(maxlen=KEEP), Spread()
        self.stages[stage].append(ms)
        self.spread[stage].add(ms)

    def timed(self, found: Iterable[SampleOrFinding]) -> Iterator[SampleOrFinding]:
        """Pass findings on and remember what each stage of them cost, reported or not."""
        for item in found:
            if isinstance(item, Finding):
                for stage, ms in item.spent_ms.items():
                    self.spent(stage, ms)
            yield item


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a pipeline's samples are answered."""

    client: Client = ANYBODY
    """as whose its models take turns on the processor"""
    guard: Guard = OPEN
    """what of captured text goes on"""
    watchers: Sequence[Watcher] = ()
    """shown each sample that was answered; the owner of the list may change it at any time"""


FREE = Terms()


def run(
    samples: Iterable[Sample],
    tasks: Sequence[Task],
    report: Reporter,
    sink: Sink,
    stats: Stats,
    done: Callable[[Sample], None] = lambda sample: None,
    terms: Terms = FREE,
) -> None:
    """Answer each sample: through the tasks, past the report, into the sink. Ends when the samples end.

    `done` is called with each sample once the sink has what is reported of it.

    A sample that is bad, or that the model fails on, is counted and logged, and the next one is taken. Whoever swaps a
    task puts another one into the list `tasks`: a sample that is under way keeps those it began with.
    """
    for sample in samples:
        _tell(sample, _answer(sample, tasks, terms, stats), report, sink, stats, terms)
        done(sample)
    _end(report, sink, stats, tasks, terms)


def run_abreast(
    samples: Iterable[Sample],
    teams: Sequence[Sequence[Task]],
    report: Reporter,
    sink: Sink,
    stats: Stats,
    close: Callable[[], None],
    done: Callable[[Sample], None] = lambda sample: None,
    terms: Terms = FREE,
) -> None:
    """As `run`, but with a thread for each team of tasks: as many samples are under way at once.

    They are told in the order in which they came. What one of the threads fails on is raised, and ends all of them, as
    `close` is called, which has to end `samples`.
    """
    take, telling = _one_by_one(samples), threading.Condition()
    told, failed = 0, False

    def work(tasks: Sequence[Task]) -> None:
        nonlocal told
        for number, sample in iter(take, None):
            answer = _answer(sample, tasks, terms, stats)
            with telling:
                while told != number and not failed:
                    telling.wait()
                if failed:
                    return
                _tell(sample, answer, report, sink, stats, terms)
                done(sample)
                told += 1
                telling.notify_all()

    def to_the_end(tasks: Sequence[Task]) -> None:
        nonlocal failed
        try:
            work(tasks)
        except BaseException:
            with telling:
                failed = True
                telling.notify_all()
            close()
            raise

    from concurrent.futures import ThreadPoolExecutor  # a verb that runs no pipeline starts sooner without it

    with ThreadPoolExecutor(len(teams)) as pool:
        works = [pool.submit(to_the_end, team) for team in teams]
    for one in works:
        one.result()
    _end(report, sink, stats, teams[0], terms)


def _one_by_one(samples: Iterable[Sample]) -> Callable[[], tuple[int, Sample] | None]:
    """What gives each thread that calls it the next sample and its number; None when they have ended."""
    numbered, taking = enumerate(samples), threading.Lock()

    def take() -> tuple[int, Sample] | None:
        with taking:
            return next(numbered, None)

    return take


def _answer(sample: Sample, tasks: Sequence[Task], terms: Terms, stats: Stats) -> Answer:
    """One sample through the chain."""
    me = threading.get_ident()
    stats.under_way[me] = time.monotonic()
    try:
        with work_for(terms.client, sample.mono):
            return list(walk(terms.guard.sample(sample), tuple(tasks), terms.guard))
    except (InputError, ModelError, LateError) as error:
        return error
    finally:
        del stats.under_way[me]


def _tell(sample: Sample, answer: Answer, report: Reporter, sink: Sink, stats: Stats, terms: Terms) -> None:
    """One sample's findings past the report into the sink, or into the log what is wrong with it."""
    if isinstance(answer, LateError):
        stats.missed += 1
        return
    try:
        if isinstance(answer, (InputError, ModelError)):
            raise answer
        for watcher in tuple(terms.watchers):
            watcher(sample, answer)
        for found in report(stats.timed(answer)):
            sink(found)
            stats.findings += 1
        stats.trouble = ""
    except (InputError, ModelError) as error:
        stats.bad += 1
        why = terms.guard.why(error)
        if stats.trouble != why:
            log.warning("skipped a sample: %s", why)
        stats.trouble = why
    age = time.monotonic() - sample.mono
    stats.samples += 1
    stats.late += age > terms.client.deadline
    stats.spent("age", age * 1000)


def _end(report: Reporter, sink: Sink, stats: Stats, tasks: Sequence[Task], terms: Terms) -> None:
    """What tasks collected and have not told yet (their `ended`), then what the report held back."""
    left = _left(tuple(tasks), terms.guard)
    for found in [*report(stats.timed(left)), *report(None)]:
        sink(found)
        stats.findings += 1


def _left(tasks: Sequence[Task], guard: Guard) -> Iterator[SampleOrFinding]:
    for at, task in enumerate(tasks):
        try:
            for item in getattr(task, "ended", tuple)():
                yield from walk(item, tasks[at + 1 :], guard)
        except (InputError, ModelError) as error:
            log.warning("what was collected is not told: %s", guard.why(error))


def walk(item: Sample | Finding, tasks: Sequence[Task], guard: Guard = OPEN) -> Iterator[Sample | Finding]:
    """What is left of one item at the end of the chain, depth first, in order."""
    if not tasks:
        yield item
    elif isinstance(item, tasks[0].takes):
        for out in tasks[0](item):
            yield from walk(out if out is item else guard.sample(out), tasks[1:], guard)
    else:
        yield from walk(item, tasks[1:], guard)
