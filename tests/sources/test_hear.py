"""Raw sound from real programs: in order, opened again, what is lost counted."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import feed, open_source
from edge_agent.sources import hear as hearing
from edge_agent.sources.hear import SoundReader, hear
from edge_agent.types import Audio, Floats, StreamState
from edge_agent.uri import parse_uri
from tests.broker import until

RATE = 16_000
WRITER = """
import sys, time
import numpy as np
sound = np.sin(2 * np.pi * 440 * np.arange({count}) / {rate})
raw = np.repeat(0.5 * sound * {full}, {channels}).astype({kind!r}).tobytes()
sys.stdout.buffer.write(raw)
sys.stdout.flush()
{end}
"""


def program(tmp_path: Path, end: str = "time.sleep(1000)", rate: int = RATE, **more: object) -> str:
    told = {"count": 2 * rate, "rate": rate, "full": 32767, "channels": 1, "kind": "<i2", "end": end, **more}
    (tmp_path / "my writer.py").write_text(WRITER.format(**told))
    return f"pipe:{sys.executable} '{tmp_path / 'my writer.py'}'"


def items(address: str, stop: threading.Event) -> Iterator[Audio | StreamState]:
    for item in open_source(parse_uri(address)).run(stop):
        assert isinstance(item, Audio | StreamState)
        yield item


@pytest.mark.parametrize(
    ("rate", "channels", "kind", "full", "layout"),
    [(RATE, 1, "<i2", 32767, "s16"), (44100, 2, "<f4", 1, "f32le"), (48000, 1, "<i4", 2**31 - 1, "s32")],
)
def test_raw_sound_of_a_program_is_heard(
    tmp_path: Path, rate: int, channels: int, kind: str, full: int, layout: str
) -> None:
    address = program(tmp_path, rate=rate, channels=channels, kind=kind, full=full)
    stop, sound = threading.Event(), list[Floats]()
    for item in items(f"{address}?format={layout}&rate={rate}&channels={channels}", stop):
        if isinstance(item, Audio):
            sound.append(item.samples)
            if sum(map(len, sound)) > 1.9 * RATE:
                stop.set()
    assert isinstance(item, Audio) and item.last
    heard = np.concatenate(sound)
    off = np.abs(heard - 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(heard)) / RATE))
    assert off[500 : int(1.8 * RATE)].max() < 1e-3


def test_a_program_that_ends_is_started_again_and_its_sound_is_closed(tmp_path: Path) -> None:
    stop, seen = threading.Event(), list[Audio | StreamState]()
    for item in items(program(tmp_path, end="sys.exit('no more')") + "?format=s16", stop):
        seen.append(item)
        if sum(isinstance(one, Audio) and one.last for one in seen) == 2:
            stop.set()
    states = [one for one in seen if isinstance(one, StreamState)]
    assert [state.condition for state in states[:3]] == ["ok", "reconnecting", "ok"]
    assert "ended with exit status 1: no more" in states[1].why
    before = seen[seen.index(states[1]) - 1]
    assert isinstance(before, Audio) and before.last
    # nothing of it was lost though it came at once
    first = [one for one in seen[: seen.index(states[1])] if isinstance(one, Audio)]
    assert sum(len(one.samples) for one in first) == 2 * RATE


def test_a_program_that_stalls_is_killed_and_started_again(tmp_path: Path) -> None:
    stop, states = threading.Event(), list[StreamState]()
    for item in items(program(tmp_path) + "?format=s16&stall=0.3", stop):
        if isinstance(item, StreamState):
            states.append(item)
            if len(states) == 3:
                stop.set()
    assert [state.condition for state in states] == ["ok", "reconnecting", "ok"]
    assert states[1].why == "no sound for 0.3 s"


def test_a_stream_that_cannot_be_opened_is_said_once_for_each_reason() -> None:
    stop, tried = threading.Event(), 0

    def never() -> SoundReader:
        nonlocal tried
        tried += 1
        if tried == 4:
            stop.set()
        raise SourceError("not there" if tried < 3 else "busy")

    states = list(hear(never, stop, stall=5, pause=0.1))
    assert states == [StreamState("reconnecting", "not there"), StreamState("reconnecting", "busy")]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("format=s15", "give bgr24 or .* or u8 or s16 or s16le or s24 or"),
        ("format=s16&rate=1", "give a number from 4000 to 192000"),
        ("format=s16&channels=9", "give a number from 1 to 8"),
        ("format=s16&width=3", 'unknown option "width"'),
        ("rate=16000", 'unknown option "rate"'),
    ],
)
def test_wrong_options_are_named(options: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        open_source(parse_uri(f"pipe:cat?{options}"))


class Device:
    """A device whose read gives what a test says, as fast as it is asked; then it waits, or is unplugged."""

    def __init__(self, *blocks: tuple[float, bool], waits: bool = False) -> None:
        self.blocks, self.closed, self.waits = list(blocks), 0, waits

    def open(self) -> SoundReader:
        return SoundReader("a device", RATE, 1, self.read, self.close)

    def read(self) -> tuple[Floats, bool]:
        while self.waits and not self.blocks:
            time.sleep(0.01)
        if not self.blocks:
            raise SourceError("it was unplugged")
        level, lost = self.blocks.pop(0)
        if lost:
            time.sleep(0.4)
        return np.full((1600, 1), level, np.float32), lost

    def close(self) -> None:
        self.closed += 1


def test_what_a_device_lost_is_counted_said_and_ends_what_was_being_said() -> None:
    device, stop = Device((0.1, False), (0.2, False), (0.3, True), (0.4, False)), threading.Event()
    seen = []
    for item in hear(device.open, stop, stall=5, pause=5):
        seen.append(item)
        if isinstance(item, StreamState) and item.condition == "reconnecting":
            stop.set()
    sound = [one for one in seen if isinstance(one, Audio)]
    levels = [float(one.samples[0]) if len(one.samples) else None for one in sound]
    assert levels == [pytest.approx(0.1), pytest.approx(0.2), None, pytest.approx(0.3), pytest.approx(0.4), None]
    assert [one.last for one in sound] == [False, False, True, False, False, True]
    said = [one for one in seen if isinstance(one, StreamState)]
    assert said[0] == StreamState("ok", "a device") and device.closed == 1
    assert said[1].condition == "ok" and " s of sound lost in 1 overruns so far" in said[1].why
    assert said[2] == StreamState("reconnecting", "it was unplugged")


def test_what_a_device_loses_without_a_word_is_found_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now, blocks, heard, stop, told = time.monotonic(), 0, 0, threading.Event(), ""
    monkeypatch.setattr(hearing, "time", SimpleNamespace(time=time.time, monotonic=lambda: now))

    def read() -> tuple[Floats, bool]:
        nonlocal now, blocks
        while blocks - heard > 20 and not stop.is_set():
            time.sleep(0.001)
        blocks += 1
        now += 0.1 + 0.7 * (blocks == 20)
        return np.zeros((1600, 1), np.float32), False

    for item in hear(lambda: SoundReader("a device", RATE, 1, read, lambda: None), stop, stall=60, pause=1):
        told, heard = (item.why, heard) if isinstance(item, StreamState) else (told, heard + 1)
        if "lost" in told or heard > 100:
            stop.set()
    lost = re.fullmatch(r"a device; (\d\.\d) s of sound lost in 1 overruns so far", told)
    assert lost and 0.5 <= float(lost[1]) <= 0.9


def test_sound_that_may_wait_no_longer_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "HELD_S", 0.55)
    # what this device gives comes at no pace
    monkeypatch.setattr(hearing, "LOOK_S", 1e9)
    device, stop = Device((0.1, False), waits=True), threading.Event()
    sound, told = list[Audio](), ""
    for item in hear(device.open, stop, stall=60, pause=5):
        if isinstance(item, Audio):
            sound.append(item)
        else:
            told = item.why
        if len(sound) == 1:
            # the tasks are busy until all of it has come
            device.blocks.extend([(0.1, False)] * 29)
            until(lambda: not device.blocks, "all blocks are read")
        if len(sound) == 4:
            device.blocks.append((0.2, False))
        if "lost" in told:
            stop.set()
    heard = sum(round(len(one.samples) / 1600) for one in sound)
    lost = re.fullmatch(r"a device; (\d\.\d) s of sound lost in 1 overruns so far", told)
    assert lost and heard <= 8 and heard + round(10 * float(lost[1])) == 31


def test_a_read_that_never_returns_is_left_behind_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "OPENING", 0.1)
    hung, stop = threading.Event(), threading.Event()

    def read() -> tuple[Floats, bool]:
        hung.wait()
        raise SourceError("at last")

    states = []
    for item in hear(lambda: SoundReader("a device", RATE, 1, read, lambda: None), stop, stall=0.1, pause=0.1):
        states.append(item)
        if len(states) == 1:
            stop.set()
    hung.set()
    assert states == [StreamState("reconnecting", "no sound for 0.2 s")]
