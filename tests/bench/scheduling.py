"""``python -m tests.bench.scheduling [--quick]``: who gets the processor, beside turns in the order of asking (FIFO).

0. The same questions on a clock of its own, where nothing else runs and a run takes what it says; no load changes it.
1. Four pipelines that never rest, on runs that burn the processor: their shares, and the waits of a fifth that comes
   ten times a second with the highest priority.
2. A camera of 10 frames a second alone, and beside 100 texts a second and a transcription that never ends: how old its
   frames are when they are answered. Real models; for speech whisper-tiny where it is here, else a run of 0.8 s.
3. 10,000 lines a second beside that camera: all answered or counted.

Each side in turns. Both sides share whatever else runs on the box, so load is printed with the figures.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
import wave
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_agent import paths
from edge_agent.errors import EdgeAgentError, LateError
from edge_agent.pictures.read import read_picture
from edge_agent.programs import which
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.types import Audio, Frame, Sample, Task, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.fair import Client, Queue, Turn
from edge_agent.walk.lane import Lane, work_for
from edge_agent.walk.mailbox import TOO_OLD, Mailbox
from edge_agent.walk.pipeline import Stats, Terms, run
from edge_agent.walk.report import reporter
from tests.bench.measure import load
from tests.walk.test_fair import Box, Work, twice
from tests.walk.test_fair import shares as shares_of

CORES = 2
BLOCK = bytes(1 << 20)


class Turns(Protocol):
    """What a lane is."""

    cores: int

    def turn(self, threads: int = 1, kind: str = "") -> Any:
        """Wait for a turn, and hold it."""


class Fifo:
    """Turns in the order in which they were asked for, as the lane was before: the simplest that could be."""

    def __init__(self, cores: int) -> None:
        self.cores, self._free = cores, cores + 1
        self._state, self._queue = threading.Condition(), deque[object]()

    @contextmanager
    def turn(self, threads: int = 1, kind: str = "") -> Iterator[None]:
        """Wait for as many free slots, and hold them."""
        wanted, me = (threads if threads < self.cores else self.cores + 1), object()
        with self._state:
            self._queue.append(me)
            self._state.wait_for(lambda: self._queue[0] is me and self._free >= wanted)
            self._queue.remove(me)
            self._free -= wanted
            self._state.notify_all()
        try:
            yield
        finally:
            with self._state:
                self._free += wanted
                self._state.notify_all()


def burn(seconds: float) -> None:
    """Use that much processor time without holding the interpreter."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        zlib.crc32(BLOCK)


# ── 0 ────────────────────────────────────────────────────────────────────────────────────────────────────


class FifoQueue(Queue):
    """The same without a choice."""

    def next(self, now: float) -> Turn | None:
        """The one that asked first, if there is room."""
        first = self.waiting[0] if self.waiting else None
        needs = 0 if first is None else first.cores if first.cores < self.cores else self.slots
        if first is None or self.free < needs:
            return None
        self.waiting.remove(first)
        self.running.append(first)
        first.slots, first.began = needs, now
        return first


class FifoBox(Box):
    """Without a promise to hold."""

    def _begun(self) -> Iterator[Turn]:
        return iter(lambda: self.queue.next(self.now), None)


def on_a_clock() -> None:
    """Print the part that no load changes."""
    rows: dict[str, list[str]] = {}
    for queue, box_of in ((FifoQueue, FifoBox), (Queue, Box)):
        four = [Work(one.client, one.seconds) for one in crowd()]
        box_of(queue(CORES)).run(twice(*four), 240)
        for name, share in zip("abcd", shares_of(four), strict=True):
            rows.setdefault(f"share of {name}", []).append(f"{share:.3f}")
        for number in (3, 4):
            first = Work(urgent().client, 0.02, every=0.1)
            box = box_of(queue(CORES))
            box.run([first, *twice(*(Work(one.client, one.seconds) for one in crowd()[:number]))], 240)
            wait = 1e3 * float(np.percentile(box.waits(first.client), 99))
            rows.setdefault(f"p99 of a first one beside {number}, ms", []).append(f"{wait:.1f}")
        for cores, threads in ((2, 1), (2, 2), (1, 1)):
            camera = Work(Client(7), 0.03, every=0.1, threads=threads)
            box = box_of(queue(cores))
            box.run([camera, Work(Client(), 0.005, every=0.01), Work(Client(), 0.8)], 240)
            age = 30 + 1e3 * float(np.percentile(box.waits(camera.client), 95))
            on = f"camera on {threads} of {cores} beside texts and speech, p95, ms"
            rows.setdefault(on, []).append(f"{age:.0f}")
    print(f"{'on a clock of its own':52}{'Fifo':>8}{'Lane':>8}")
    for row, (fifo, lane) in rows.items():
        print(f"{row:52}{fifo:>8}{lane:>8}")
    print()


# ── 1 ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Busy:
    """A pipeline that runs again and again."""

    name: str
    client: Client
    seconds: float
    every: float = 0.0
    workers: int = 2
    cpu: float = 0.0
    waits: list[float] = field(default_factory=list)
    missed: int = 0


def at_once(lane: Turns, all_of: Iterable[Busy], seconds: float) -> None:
    """Let them work for so long."""
    stop, counting = time.monotonic() + seconds, threading.Lock()

    def work(one: Busy) -> None:
        due = time.monotonic()
        while (now := time.monotonic()) < stop:
            if one.every:
                due += one.every
                time.sleep(max(0.0, due - now))
            asked = time.monotonic()
            try:
                with work_for(one.client, asked), lane.turn(1, one.name):
                    waited, before = time.monotonic() - asked, time.thread_time()
                    burn(one.seconds)
            except LateError:
                one.missed += 1
                continue
            with counting:
                one.cpu += time.thread_time() - before
                one.waits.append(waited)

    threads = [threading.Thread(target=work, args=(one,)) for one in all_of for _ in range(one.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def crowd() -> list[Busy]:
    """Four that never rest, whose shares are 4, 2, 1 and 1."""
    lengths = {"a": (4.0, 0.030), "b": (2.0, 0.020), "c": (1.0, 0.010), "d": (1.0, 0.040)}
    return [Busy(name, Client(5, share), seconds) for name, (share, seconds) in lengths.items()]


def urgent() -> Busy:
    """Comes ten times a second, with a deadline, and goes first."""
    return Busy("first", Client(9, 2.0, 0.1, gives_up=True), 0.020, every=0.1, workers=1)


def shares(rounds: int, seconds: float) -> None:
    """Print the first part."""
    told: dict[str, list[str]] = {}
    for make in (Fifo, Lane):
        cpu: dict[str, float] = {}
        waits: dict[str, list[float]] = {"alone": [], "beside": []}
        missed: dict[str, int] = {}
        for _ in range(rounds):
            lane, four = make(CORES), crowd()
            at_once(lane, four, seconds)
            for one in four:
                cpu[one.name] = cpu.get(one.name, 0.0) + one.cpu
            for key, others in (("alone", []), ("beside", crowd())):
                first = urgent()
                at_once(make(CORES), [first, *others], seconds)
                waits[key] += first.waits
                late = first.missed + sum(wait > first.client.deadline for wait in first.waits)
                missed[key] = missed.get(key, 0) + late
                missed["others"] = missed.get("others", 0) + sum(one.missed for one in others)
        total = sum(cpu.values())
        p99 = {key: 1e3 * float(np.percentile(some, 99)) for key, some in waits.items()}
        told[make.__name__] = [
            *(f"{cpu[name] / total:.3f}" for name in "abcd"),
            *(f"{p99[key]:.1f}" for key in ("alone", "beside")),
            *(str(missed[key]) for key in ("alone", "beside", "others")),
        ]
    names = [
        "a 0.500",
        "b 0.250",
        "c 0.125",
        "d 0.125",
        "p99 alone, ms",
        "p99 beside",
        "missed alone",
        "beside",
        "of others",
    ]
    print(f"{'four that never rest':28}" + "".join(f"{name:>14}" for name in told))
    for row, name in enumerate(names):
        print(f"{name:28}" + "".join(f"{column[row]:>14}" for column in told.values()))


# ── 2 and 3 ──────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Stream:
    """A pipeline: samples that come by themselves, and what is done with them."""

    task: Task
    box: Mailbox[Sample]
    make: Callable[[], Sample]
    every: float
    client: Client
    stats: Stats = field(default_factory=Stats)
    sent: int = 0

    def feed(self, stop: float) -> None:
        """As a source does."""
        due = time.monotonic()
        while due < stop:
            due += self.every
            if (wait := due - time.monotonic()) > 0.001:
                time.sleep(wait)
            self.sent += self.box.put(self.make())
        self.box.close()

    def work(self) -> None:
        """As a pipeline does."""
        run(self.box, [self.task], reporter("every"), lambda found: None, self.stats, terms=Terms(self.client))


def together(streams: list[Stream], seconds: float) -> None:
    """Let them work for so long."""
    stop = time.monotonic() + seconds
    threads = [threading.Thread(target=one.feed, args=(stop,)) for one in streams]
    threads += [threading.Thread(target=one.work) for one in streams]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Speech:
    """A stand-in for a transcription: one thread, 0.8 s."""

    takes: tuple[type, ...] = (Audio,)

    def __init__(self, lane: Turns) -> None:
        self.lane = lane

    def __call__(self, item: Audio) -> Iterator[Sample]:
        with self.lane.turn(1, "speech"):
            burn(0.8)
        return iter(())


def spoken() -> npt.NDArray[np.float32]:
    """Three seconds of speech where espeak-ng is installed, else of noise, on which less is decoded."""
    made = np.random.default_rng(7).normal(0, 0.05, 16_000 * 3).astype(np.float32)
    if program := which("espeak-ng"):
        with tempfile.TemporaryDirectory() as folder:
            place = f"{folder}/said.wav"
            subprocess.run([program, "-w", place, "turn on the light in the kitchen and close the door"], check=True)
            with wave.open(place) as file:
                rate, raw = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), np.int16)
        at = np.arange(0, len(raw), rate / 16_000)
        made = np.interp(at, np.arange(len(raw)), raw / 32768).astype(np.float32)
    return made


class Job:
    """Models on one lane, and the pipelines on them."""

    def __init__(self, lane: Turns) -> None:
        self.models = Models(lane=lane, soon=True)  # type: ignore[arg-type]
        image = read_picture(paths.carried("deploy", "demo", "coffee.png")).image
        said = "turn the light on in the kitchen"
        self.frame = lambda: Frame(image, time.time(), time.monotonic())
        self.text = lambda: Text(said, time.time(), time.monotonic())
        self.detect, self.embed = self._task("detect:edge-yolo"), self._task("embed:edge-bert")
        sound = spoken()
        self.sound = lambda: Audio(sound, time.time(), time.monotonic())
        try:
            self.speech: Task = self._task("transcribe:whisper-tiny")
        except EdgeAgentError:
            speech = Speech(lane)
            list(speech(Audio(sound, 0.0, 0.0)))  # as a model is warmed
            self.speech = speech

    def _task(self, text: str) -> Task:
        return make_task(parse_uri(text), self.models.serve, paths.home())

    def camera(self) -> Stream:
        box: Mailbox[Sample] = Mailbox(1, newest=True, too_old=TOO_OLD)
        return Stream(self.detect, box, self.frame, 0.1, Client(7))

    def texts(self, per_second: float, live: bool = False) -> Stream:
        box: Mailbox[Sample] = Mailbox(64, newest=live)
        return Stream(self.embed, box, self.text, 1 / per_second, Client())

    def talk(self) -> Stream:
        return Stream(self.speech, Mailbox(1, newest=True), self.sound, 0.2, Client())


def p95(stream: Stream) -> float:
    """Of the ages of its answers, ms."""
    return float(np.percentile(stream.stats.stages["age"], 95))


def camera(rounds: int, seconds: float) -> None:
    """Print the second and the third part."""
    jobs = {"Fifo": Job(Fifo(CORES)), "Lane": Job(Lane(CORES))}
    speech = "a run of 0.8 s" if isinstance(jobs["Lane"].speech, Speech) else "whisper-tiny"
    ages: dict[tuple[str, str], list[float]] = {}
    talked: dict[str, int] = {}
    counted: dict[str, list[int]] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            for beside in ("alone", "texts and speech", "10,000 lines/s"):
                one = job.camera()
                texts = job.texts(10_000, live=True) if beside.startswith("10") else job.texts(100)
                others = {"alone": [], "texts and speech": [texts, job.talk()]}.get(beside, [texts])
                together([one, *others], seconds)
                ages.setdefault((name, beside), []).append(p95(one))
                if len(others) == 2:
                    talked[name] = talked.get(name, 0) + others[1].stats.samples
                elif others:
                    row = counted.setdefault(name, [0, 0, 0, 0])
                    parts = (texts.sent, texts.stats.samples, texts.box.dropped, one.stats.samples)
                    counted[name] = [before + more for before, more in zip(row, parts, strict=True)]
    print(f"\na camera of 10/s, p95 of the age in ms (speech: {speech}; transcriptions: {talked})")
    for beside in ("alone", "texts and speech", "10,000 lines/s"):
        old = {name: statistics.median(ages[name, beside]) for name in jobs}
        grown = {name: old[name] / statistics.median(ages[name, "alone"]) for name in jobs}
        print(f"{beside:24}" + "".join(f"{name:>8} {old[name]:7.1f} (x{grown[name]:.2f})" for name in jobs))
    for name, (sent, answered, dropped, frames) in counted.items():
        left = sent - answered - dropped
        print(
            f"{name}: {sent} lines, {answered} answered, {dropped} counted as dropped, {left} neither; {frames} frames"
        )


def main() -> None:
    """All parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--part", choices=("clock", "shares", "camera"))
    args = parser.parse_args()
    rounds, seconds = (1, 4.0) if args.quick else (3, 8.0)
    if args.part in (None, "clock"):
        on_a_clock()
    print(f"load before: {load():.1f} on {CORES} cores")
    if args.part in (None, "shares"):
        shares(rounds, seconds)
    if args.part in (None, "camera"):
        camera(rounds, seconds)
    print(f"load after: {load():.1f}")


if __name__ == "__main__":
    main()
