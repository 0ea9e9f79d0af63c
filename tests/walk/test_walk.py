"""Mailbox, lane and pipeline: the one loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from edge_agent.errors import InputError
from edge_agent.events import JSON, DetectionsEvent, ScoresEvent, TextEvent
from edge_agent.types import Detections, Embedding, Finding, Frame, Heard, ModelRef, Read, Sample, Scores, Text
from edge_agent.walk import mailbox
from edge_agent.walk.event import SampleOrFinding, to_event
from edge_agent.walk.fair import Client
from edge_agent.walk.lane import Lane
from edge_agent.walk.mailbox import Mailbox
from edge_agent.walk.pipeline import Stats, Terms, run, run_abreast
from edge_agent.walk.report import Folder, reporter
from tests.broker import until

MODEL = ModelRef("m", "1", "0" * 64)


def text(line: str = "hello") -> Text:
    return Text(line, time.time(), time.monotonic())


def frame() -> Frame:
    return Frame(np.zeros((4, 6, 3), np.uint8), time.time(), time.monotonic(), "a.jpg")


def seen(*labels: int) -> Finding:
    n = len(labels)
    boxes = Detections(
        np.tile(np.array([1, 2, 3, 4], np.float32), (n, 1)),
        np.full(n, 0.123456, np.float32),
        np.array(labels, np.int32),
        {0: "person", 15: "cat"},
    )
    return Finding(frame(), boxes, MODEL, {"infer": 1.0})


# ── mailbox ──────────────────────────────────────────────────────────────────────────────────────────────


def test_newest_wins_and_the_rest_is_counted() -> None:
    box: Mailbox[int] = Mailbox(1, newest=True)
    for i in range(10):
        assert box.put(i)
    box.close()
    assert list(box) == [9] and box.dropped == 9
    assert not box.put(10)


@pytest.mark.parametrize(("age", "taken"), [(200.0, 2), (300.0, 3)])
def test_a_fresh_box_waits_for_the_next_item_unless_the_last_has_just_come(
    age: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    box: Mailbox[int] = Mailbox(1, newest=True, fresh=True)
    box.put(1)
    clock[0] += 1000
    box.put(2)
    clock[0] += age
    found: list[int] = []
    taker = threading.Thread(target=lambda: found.append(next(iter(box))))
    taker.start()
    taker.join(10 if taken == 2 else 0.2)
    box.put(3)
    taker.join(60)
    assert found == [taken]


def test_a_fresh_box_hands_out_what_it_has_when_nothing_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    box: Mailbox[int] = Mailbox(1, newest=True, fresh=True)
    box.put(1)
    clock[0] += 0.1
    box.put(2)
    clock[0] += 0.09
    assert next(iter(box)) == 2, "the next one is late"
    box.put(3)
    clock[0] += 1000
    threading.Timer(0.05, box.close).start()
    assert list(box) == [3], "nor is it waited for longer than that"


def test_what_nobody_took_in_time_is_dropped_and_the_next_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a camera hangs while the task is busy."""
    clock = [1000.0]
    monkeypatch.setattr(mailbox, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    box: Mailbox[int] = Mailbox(1, newest=True, too_old=1.0)
    box.put(1)
    clock[0] += 0.9
    assert next(iter(box)) == 1
    box.put(2)
    clock[0] += 1.1
    found: list[int] = []
    taker = threading.Thread(target=lambda: found.append(next(iter(box))))
    taker.start()
    until(lambda: box.dropped == 1, "the old one is dropped")
    box.put(3)
    taker.join(60)
    assert found == [3]


def test_lossless_box_makes_the_sender_wait() -> None:
    box: Mailbox[int] = Mailbox(2, newest=False)

    def send() -> None:
        for i in range(100):
            box.put(i)
        box.close()

    threading.Thread(target=send, daemon=True).start()
    until(lambda: len(box) == 2, "the box is full")
    assert list(box) == list(range(100)) and box.dropped == 0


def test_closing_frees_a_sender_that_waits() -> None:
    box: Mailbox[int] = Mailbox(1, newest=False)
    box.put(0)
    answers: list[bool] = []
    sender = threading.Thread(target=lambda: answers.append(box.put(1)))
    sender.start()
    box.close()
    sender.join(60)
    assert answers == [False]


# ── lane ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_turns_come_in_the_order_in_which_they_were_asked_for() -> None:
    lane = Lane(cores=2)
    order: list[str] = []

    def take(name: str, runs_on: int) -> None:
        with lane.turn(runs_on):
            order.append(name)

    threads = []
    with lane.turn():
        for name, runs_on in (("both", 2), ("one", 1), ("more than there are", 9)):
            threads.append(threading.Thread(target=take, args=(name, runs_on)))
            threads[-1].start()
            waiting = len(threads)
            until(lambda: len(lane.queue.waiting) == waiting, "it waits")  # noqa: B023
        assert order == [], "there is room for one, but whoever wants both cores came first"
    for thread in threads:
        thread.join(60)
    assert order == ["both", "one", "more than there are"]


@pytest.mark.parametrize(("cores", "threads_of_each", "together"), [(2, 1, 3), (4, 2, 2), (3, 1, 4)])
def test_runs_that_leave_cores_free_go_side_by_side_and_one_more(
    cores: int, threads_of_each: int, together: int
) -> None:
    lane, met = Lane(cores), threading.Barrier(together)

    def work() -> None:
        with lane.turn(threads_of_each):
            met.wait(60)

    threads = [threading.Thread(target=work) for _ in range(together)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not met.broken
    with lane.turn(cores):
        assert lane.queue.free == 0, "one that uses every core runs alone"
    assert lane.queue.free == lane.queue.slots


def test_on_one_core_runs_take_turns() -> None:
    lane = Lane()
    with lane.turn():
        assert lane.queue.free == 0


def test_a_live_sample_whose_turn_comes_too_late_is_given_up_and_counted_and_a_text_is_late() -> None:
    """Of two samples behind a run that does not end in time."""
    lane, stats = Lane(), {True: Stats(), False: Stats()}

    class Asks:
        takes: tuple[type, ...] = (Text,)

        def __call__(self, item: Text) -> Iterator[Sample]:
            with lane.turn():
                yield item

    def work(gives_up: bool) -> None:
        terms = Terms(Client(deadline=0.01, gives_up=gives_up))
        run([text()], [Asks()], reporter("every"), lambda found: None, stats[gives_up], terms=terms)

    threads = [threading.Thread(target=work, args=(gives_up,)) for gives_up in stats]
    with lane.turn():
        for thread in threads:
            thread.start()
        until(lambda: stats[True].missed == 1, "it is given up while it waits")
    for thread in threads:
        thread.join(60)
    counted = {live: (one.samples, one.missed, one.late, one.bad, one.findings) for live, one in stats.items()}
    assert counted == {True: (0, 1, 0, 0, 0), False: (1, 0, 1, 0, 1)}
    assert lane.queue.free == 1 and not lane.queue.waiting


def test_a_live_sample_without_a_deadline_waits_for_its_turn() -> None:
    lane, stats = Lane(), Stats()

    class Asks:
        takes: tuple[type, ...] = (Text,)

        def __call__(self, item: Text) -> Iterator[Sample]:
            with lane.turn():
                yield item

    terms = Terms(Client(gives_up=True))
    given = ([text()], [Asks()], reporter("every"), lambda found: None, stats)
    thread = threading.Thread(target=run, args=given, kwargs={"terms": terms})
    with lane.turn():
        thread.start()
        until(lambda: lane.queue.waiting, "it waits")
    thread.join(60)
    assert (stats.samples, stats.missed, stats.findings) == (1, 0, 1)


def test_a_kind_of_run_is_long_until_it_was_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the processor time of its thread; by the clock, where that does nothing, as the engine has threads of its own.

    One that nobody has seen is long, too.
    """
    wall, cpu = [10.0], [5.0]
    lane_time = SimpleNamespace(monotonic=lambda: wall[0], thread_time=lambda: cpu[0])
    monkeypatch.setattr("edge_agent.walk.lane.time", lane_time)
    lane, seen = Lane(cores=2), []
    for kind, took, used in [("engine", 0.8, 0.001)] * 2 + [("own", 0.8, 0.05)] * 2 + [("slow", 2.0, 0.8)] * 2:
        with lane.turn(1, kind):
            seen.append((kind, lane.queue.running[0].long))
            wall[0] += took
            cpu[0] += used
    assert seen == [("engine", True), ("engine", True), ("own", True), ("own", False), ("slow", True), ("slow", True)]


# ── pipeline ─────────────────────────────────────────────────────────────────────────────────────────────


class Upper:
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Sample | Finding]:
        if item.text == "bad":
            raise InputError("bad line")
        yield text(item.text.upper())
        yield Finding(item, Scores("x", 1.0, {"x": 1.0}), MODEL, {"infer": 2.0})


class Twice:
    takes: tuple[type, ...] = (Text,)

    def __call__(self, item: Text) -> Iterator[Sample | Finding]:
        yield item
        yield item


def test_items_flow_depth_first_and_past_tasks_that_do_not_take_them() -> None:
    out: list[SampleOrFinding] = []
    stats = Stats()
    run([text("a"), text("bad"), text("b")], [Upper(), Twice()], reporter("every"), out.append, stats)
    shown = [o.text if isinstance(o, Text) else type(o.what).__name__ for o in out if isinstance(o, Text | Finding)]
    assert shown == ["A", "A", "Scores", "B", "B", "Scores"]
    assert (stats.samples, stats.bad, stats.findings) == (3, 1, 6)
    assert list(stats.stages["infer"]) == [2.0, 2.0] and len(stats.stages["age"]) == 3


class Slow:
    """Answers a text when the next one is being answered too, so that they end in the other order."""

    takes: tuple[type, ...] = (Text,)

    def __init__(self, both: threading.Barrier) -> None:
        self.both = both

    def __call__(self, item: Text) -> Iterator[Sample | Finding]:
        self.both.wait(60)
        if item.text in ("0", "2"):
            time.sleep(0.05)
        if item.text == "3":
            raise InputError("bad line")
        yield item


def test_samples_under_way_at_once_are_told_in_their_order() -> None:
    out: list[SampleOrFinding] = []
    stats, both = Stats(), threading.Barrier(2)
    samples = [text(str(n)) for n in range(6)]
    run_abreast(samples, [[Slow(both)], [Slow(both)]], reporter("every"), out.append, stats, lambda: None)
    assert [item.text for item in out if isinstance(item, Text)] == ["0", "1", "2", "4", "5"]
    assert (stats.samples, stats.bad, stats.trouble) == (6, 1, "")


def test_what_one_of_them_fails_on_ends_them_all() -> None:
    box: Mailbox[Sample] = Mailbox(4, newest=False)

    def fail(found: SampleOrFinding) -> None:
        raise OSError("no room")

    box.put(text("a"))
    with pytest.raises(OSError, match="no room"):
        run_abreast(box, [[], [], []], reporter("every"), fail, Stats(), box.close)
    assert not box.put(text("b"))


def test_changes_reports_when_the_labels_in_view_differ() -> None:
    report = reporter("changes")
    views = [seen(), seen(0), seen(0), seen(0, 0), seen(15, 0), seen(0, 15), seen()]
    said = [len(list(report([view]))) for view in views]
    assert said == [0, 1, 0, 1, 1, 0, 1]
    assert len(list(report([text()]))) == 1


def test_summary_reports_the_fullest_of_each_period_and_the_last_one_at_the_end() -> None:
    report = reporter("summary:1000s")
    assert [list(report([view])) for view in (seen(0), seen(0, 15), seen())] == [[], [], []]
    (last,) = report(None)
    assert isinstance(last, Finding) and isinstance(last.what, Detections) and len(last.what) == 2
    report = reporter("summary:0.0s")
    assert list(report([seen(0)])) == []
    assert len(list(report([seen(15)]))) == 1


def test_events_carry_what_was_found() -> None:
    event = to_event(seen(0, 15), "camera")
    assert isinstance(event, DetectionsEvent)
    body = msgspec.json.decode(msgspec.json.encode(event))
    assert body["kind"] == "detections" and (body["width"], body["height"], body["name"]) == (6, 4, "a.jpg")
    assert body["detections"][1] == {"label": "cat", "class_id": 15, "score": 0.1235, "box": [1.0, 2.0, 3.0, 4.0]}
    assert body["model"]["sha256"] == "0" * 64 and body["age_ms"] >= 0
    scored = to_event(Finding(text("hi"), Scores("x", 0.9, {"x": 0.9, "y": 0.1}), MODEL), "words")
    assert isinstance(scored, ScoresEvent) and scored.text == "hi" and scored.scores == {"x": 0.9, "y": 0.1}
    waited = Finding(text("hi"), Scores("x", 0.9, {"x": 0.9}), MODEL)
    earlier = msgspec.structs.replace(waited, mono=waited.of.mono + 0.25)
    assert to_event(earlier, "words").age_ms == 250.0, "a summary that is told later makes it no older"
    plain = to_event(text("hi"), "words")
    assert isinstance(plain, TextEvent) and plain.embedding is None
    vector = to_event(Finding(text("hi"), Embedding(np.ones(3, np.float32)), MODEL), "words")
    assert isinstance(vector, TextEvent) and vector.embedding == [1.0, 1.0, 1.0]


def test_events_say_how_their_text_was_got() -> None:
    heard = Text("turn left", 0, 0, got=Heard("whisper-tiny 1", 0.9, 1.5, "en"))
    read = Text("STOP", 0, 0, got=Read("ocr 1", 0.5, (1, 2, 3, 4), unsure=True))
    label = to_event(Finding(heard, Scores("go", 1.0, {"go": 1.0}), ModelRef("m", "1", "")), "ear")
    for event, field, said in (
        (to_event(heard, "ear"), "heard", heard.got),
        (label, "heard", heard.got),
        (to_event(read, "eye"), "read", read.got),
    ):
        body = msgspec.json.decode(JSON.encode(event))
        assert msgspec.convert(body[field], type(said)) == said and len({"heard", "read"} & body.keys()) == 1
        assert getattr(JSON.decode(JSON.encode(event)), field) == said
    assert not {"heard", "read"} & msgspec.json.decode(JSON.encode(to_event(Text("typed", 0, 0), "w"))).keys()


def test_shapes_are_checked_at_birth() -> None:
    with pytest.raises(ValueError, match="columns differ"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(1, np.float32), np.zeros(2, np.int32), {})
    with pytest.raises(ValueError, match="uint8 BGR"):
        Frame(np.zeros((4, 4), np.uint8), 0, 0)


def test_repeats_are_folded_while_a_metered_link_saves() -> None:
    fold = Folder()
    assert [len(list(fold(to_event(seen(0), "c"), saving=False))) for _ in range(3)] == [1, 1, 1]
    views = [seen(0), seen(0), seen(0), seen(15), seen(15)]
    out = [pair for n, view in enumerate(views) for pair in fold(to_event(view, "c"), saving=True, mark=n)]
    out += fold(None, saving=False)
    labels = [[d.label for d in e.detections] for e, _ in out if isinstance(e, DetectionsEvent)]
    assert labels == [["person"], ["cat"]]
    assert [e.repeats for e, _ in out] == [3, 2]
    assert [mark for _, mark in out] == [2, 4], "what is still held must not move the place to resume at"


def test_a_live_source_without_a_deadline_waits_for_its_turn() -> None:
    lane, stats = Lane(), Stats()

    class Asks:
        takes: tuple[type, ...] = (Text,)

        def __call__(self, item: Text) -> Iterator[Sample]:
            with lane.turn():
                yield item

    def work() -> None:
        terms = Terms(Client(gives_up=True))
        run([text()], [Asks()], reporter("every"), lambda found: None, stats, terms=terms)

    thread = threading.Thread(target=work)
    with lane.turn():
        thread.start()
        until(lambda: bool(lane.queue.waiting), "it waits")
    thread.join(60)
    assert (stats.samples, stats.findings, stats.missed) == (1, 1, 0)
