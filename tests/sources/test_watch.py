"""Honest frames, and reads that hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest

from edge_agent.errors import SourceError
from edge_agent.sources import Opened
from edge_agent.sources.feed import MOST_HUNG
from edge_agent.sources.judge import Judge, Rules
from edge_agent.sources.watch import StreamReader, queued, thinner, watch
from edge_agent.types import Frame, Pixels, StreamState
from tests.sources.servers import running

rng = np.random.default_rng(5)


def noise(width: int = 320, height: int = 240, top: int = 255) -> Pixels:
    return rng.integers(0, top, (height, width, 3), dtype=np.uint8)


def frame(image: Pixels, mono: float = 0.0) -> Frame:
    return Frame(image, 0.0, mono)


def now(image: Pixels) -> Frame:
    return Frame(image, time.time(), time.monotonic())


def conditions(items: list[Frame | StreamState]) -> list[str]:
    return [item.condition if isinstance(item, StreamState) else "frame" for item in items]


def test_a_black_picture_is_dark_until_it_is_light_again() -> None:
    judge, dim = Judge(Rules()), noise(top=3) + np.uint8(16)
    assert conditions(judge.see(frame(noise(top=10)))) == ["dark"]
    assert judge.see(frame(noise(top=12))) == []
    assert judge.see(frame(dim)) == [], "between dark and light it stays as it was"
    assert conditions(judge.see(frame(noise(top=200)))) == ["ok", "frame"]
    assert conditions(judge.see(frame(dim))) == ["frame"]


def test_a_few_hot_pixels_are_no_light_and_a_lamp_is() -> None:
    black = np.zeros((480, 640, 3), np.uint8)
    black[::97, ::89] = 255
    assert conditions(Judge(Rules()).see(frame(black))) == ["dark"]
    black[100:200, 100:200] = 255
    assert conditions(Judge(Rules()).see(frame(black))) == ["ok", "frame"]


@pytest.mark.parametrize("colour", [(128, 128, 128), (77, 135, 0), (0, 255, 0), (255, 255, 255)])
def test_one_flat_colour_is_no_picture(colour: tuple[int, int, int]) -> None:
    judge = Judge(Rules())
    (state,) = judge.see(frame(np.full((480, 640, 3), colour, np.uint8)))
    assert isinstance(state, StreamState)
    assert (state.condition, state.why) == ("dark", "the picture is one flat colour")


def test_a_dim_wall_with_noise_is_a_picture() -> None:
    wall = np.full((480, 640, 3), 60, np.uint8) + noise(640, 480, top=4)
    assert conditions(Judge(Rules()).see(frame(wall))) == ["ok", "frame"]


def test_the_same_picture_is_given_once_and_frozen_after_a_while() -> None:
    judge = Judge(Rules(frozen=3.0))
    still = noise()
    assert conditions(judge.see(frame(still, 10.0))) == ["ok", "frame"]
    assert judge.see(frame(still.copy(), 12.9)) == []
    assert conditions(judge.see(frame(still.copy(), 13.0))) == ["frozen"]
    assert judge.see(frame(still.copy(), 20.0)) == []
    assert conditions(judge.see(frame(noise(), 20.1))) == ["ok", "frame"]
    assert conditions(judge.see(frame(still, 20.2))) == ["frame"], "an older picture is not the last one"


def test_a_change_between_the_points_of_the_grid_is_a_change() -> None:
    judge = Judge(Rules())
    first = noise(1280, 720)
    second = first.copy()
    second[301, 511] ^= 255
    assert first[::12, ::20].tobytes() == second[::12, ::20].tobytes()
    judge.see(frame(first))
    assert conditions(judge.see(frame(second))) == ["frame"]


def test_rules_that_are_switched_off() -> None:
    judge = Judge(Rules(dark=False, frozen=0.0))
    black = np.zeros((10, 10, 3), np.uint8)
    assert conditions([*judge.see(frame(black)), *judge.see(frame(black)), *judge.see(frame(black, 99.0))]) == [
        "ok",
        "frame",
        "frame",
        "frame",
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (63, 65), (8000, 6000)])
def test_any_size_is_judged(size: tuple[int, int]) -> None:
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[: max(1, height // 2)] = (10, 200, 90)
    assert conditions(Judge(Rules(dark=width > 1 and height > 1)).see(frame(image))) == ["ok", "frame"]


@pytest.mark.parametrize(("fps", "kept"), [(0, 300), (10, 100), (20, 200), (30, 300), (0.5, 5)])
def test_thinning_keeps_the_rate_asked_for(fps: float, kept: int) -> None:
    wanted = thinner(fps)
    assert abs(sum(wanted(5.0 + index / 30) for index in range(300)) - kept) <= 1


class Hung:
    """A camera whose reads never return, from the `good`-th on; it counts how often it was opened."""

    def __init__(self, good: int) -> None:
        self.good, self.opened, self.closed = good, 0, 0
        self.release = threading.Event()

    def open_(self) -> StreamReader:
        self.opened += 1
        left = count(1)

        def read() -> Frame:
            if next(left) > self.good:
                self.release.wait()
            time.sleep(0.01)
            return now(noise(32, 32))

        def close() -> None:
            self.closed += 1

        return StreamReader(read, close)


def test_a_read_that_never_returns_is_noticed_and_left_behind() -> None:
    hung = Hung(good=3)
    opened = Opened(lambda stop: watch(hung.open_, Rules(stall=0.3), stop), Frame, live=True)
    with running(opened) as seen:
        seen.until_frames(7)
        assert seen.states[:4] == ["ok", "stalled", "reconnecting", "ok"]
        assert "no frame for 0.3 s" in seen.whys
        seen.until(lambda: any("never returned" in why for why in seen.whys), "the bound on hanging threads")
        assert hung.opened == MOST_HUNG
        assert hung.closed == 0
        before = len(seen.states)
        hung.release.set()
        seen.until_state("ok", before)
        seen.until(lambda: hung.closed >= MOST_HUNG, "closing what hung")
    assert len([t for t in threading.enumerate() if t.name == "reader" and t.is_alive()]) <= 1


def test_stop_is_obeyed_while_open_and_read_hang() -> None:
    hung = Hung(good=0)

    def never() -> StreamReader:
        hung.release.wait()
        raise SourceError("was let go")

    for open_ in (hung.open_, never):
        # `running` fails when the source does not end
        with running(Opened(lambda stop, o=open_: watch(o, Rules(), stop), Frame, live=True)) as seen:  # type: ignore[misc]
            time.sleep(0.2)
        assert seen.items == []
    hung.release.set()


def test_a_source_that_cannot_be_opened_is_tried_again_and_says_why_once() -> None:
    tries = count(1)

    def open_() -> StreamReader:
        if next(tries) < 3:
            raise SourceError("no camera at /dev/video9")
        return StreamReader(lambda: now(noise(32, 32)), lambda: None)

    with running(Opened(lambda stop: watch(open_, Rules(), stop), Frame, live=True)) as seen:
        seen.until_frames(1)
    states = [item for item in seen.items if isinstance(item, StreamState)]
    assert states == [StreamState("reconnecting", "no camera at /dev/video9"), StreamState("ok")]


def test_a_reader_that_breaks_is_opened_again() -> None:
    frames = count()

    def open_() -> StreamReader:
        def read() -> Frame:
            if next(frames) % 2:
                raise SourceError("the cable is out")
            return now(noise(32, 32))

        return StreamReader(read, lambda: None)

    with running(Opened(lambda stop: watch(open_, Rules(), stop), Frame, live=True)) as seen:
        seen.until_frames(2)
    assert seen.states[:3] == ["ok", "reconnecting", "ok"]
    assert "the cable is out" in seen.whys


def test_a_reader_with_a_bug_does_not_end_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    logged = []
    monkeypatch.setattr(threading, "excepthook", lambda args: logged.append(args.exc_value))
    frames, closed = count(), []

    def read() -> Frame:
        if next(frames) == 1:
            raise ZeroDivisionError
        return now(noise(32, 32))

    def run(stop: threading.Event) -> Iterator[Frame | StreamState]:
        return watch(lambda: StreamReader(read, lambda: closed.append(1)), Rules(), stop)

    with running(Opened(run, Frame, live=True)) as seen:
        seen.until(lambda: seen.states == ["ok", "reconnecting", "ok"])
        assert seen.whys[1] == "the reader failed; its error is in the log"
    assert [type(error) for error in logged] == [ZeroDivisionError]
    assert closed


def test_the_newest_frame_wins_and_an_old_one_is_dropped() -> None:
    number = count()
    come, go = threading.Event(), threading.Event()

    def read() -> Frame:
        index = next(number)
        if index == 5:
            come.set()
            go.wait()
        time.sleep(0.005)
        image = noise(32, 32)
        image[0, 0] = index
        return now(image)

    stop = threading.Event()
    run = watch(lambda: StreamReader(read, lambda: None), Rules(stall=60), stop)
    assert next(run) == StreamState("ok")
    first = next(run)
    assert isinstance(first, Frame)
    # the consumer is busy: frames 1 to 4 come and grow old
    assert come.wait(60)
    time.sleep(1.1)
    threading.Timer(0.2, go.set).start()
    second = next(run)
    assert isinstance(second, Frame)
    assert second.image[0, 0, 0] >= 5
    stop.set()
    assert list(run) == []


def test_a_slow_consumer_is_no_stall() -> None:
    def read() -> Frame:
        time.sleep(0.05)
        return now(noise(32, 32))

    with_stop = threading.Event()
    run = watch(lambda: StreamReader(read, lambda: None), Rules(stall=1.0), with_stop)
    got = []
    for item in run:
        got.append(item)
        if len(got) == 4:
            with_stop.set()
        elif len(got) > 1:
            time.sleep(1.2)
    assert [type(item) for item in got] == [StreamState, Frame, Frame, Frame]


def played(seconds: float, pts: float, start: float = 100.0, step: float = 0.1) -> list[tuple[float, float]]:
    """A second of stream from `pts` on that is read within `seconds`."""
    return [(start + seconds * index * step, pts + index * step) for index in range(round(1 / step))]


def test_what_a_decoder_had_queued_at_first_is_stale() -> None:
    stale = queued()
    backlog = [stale(*at) for at in played(0.02, 0.0)]
    assert backlog == [False] + [True] * 9, "the first one cannot be known"
    assert not any(stale(*at) for at in played(1.0, 1.0, start=100.1))


def test_what_was_queued_by_an_interruption_is_stale_until_it_has_caught_up() -> None:
    stale = queued()
    assert not any(stale(*at) for at in [*played(1.0, 0.0), *played(1.0, 1.0, start=101.0)])
    # nothing for 3 seconds; then they come at once, and the last ones are young again
    late = [stale(105.0 + index * 0.001, 2.0 + index * 0.1) for index in range(30)]
    assert late[:20] == [True] * 20
    assert late[21:] == [False] * 9
    assert not any(stale(*at) for at in played(1.0, 5.0, start=105.1))


def test_jitter_a_slow_clock_and_none_at_all_make_next_to_nothing_stale() -> None:
    stale = queued()
    pairs = [(100 + index * 0.2 + odd * 0.01, index * 0.2 + odd * 0.1) for index in range(50) for odd in (0, 1)]
    assert not any([stale(*at) for at in pairs][2:])
    stale = queued()
    assert sum(stale(100 + index * 0.1, index * 0.08) for index in range(500)) <= 10
    stale = queued()
    assert sum(stale(100 + index * 2.0, index * 0.033) for index in range(50)) <= 1
    stale = queued()
    assert not any(stale(100 + index * 0.1, 0.0) for index in range(50))
    stale = queued()
    assert not any(stale(100 + index * 0.1, index % 20 * 0.1) for index in range(50)), "a clock that begins again"
