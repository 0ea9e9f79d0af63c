"""Recordings of all kinds, good and bad, from real files."""

from __future__ import annotations

import shutil
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import open_source, recordings
from edge_agent.types import Audio, Floats, Frame, StreamState
from edge_agent.uri import Uri, parse_uri
from tests.conftest import ROOT

RATE = 16_000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def fmt(code: int, channels: int, rate: int, bits: int, extensible: bool = False, align: int | None = None) -> bytes:
    align = channels * bits // 8 if align is None else align
    head = struct.pack("<HHIIHH", 0xFFFE if extensible else code, channels, rate, rate * align % 2**32, align, bits)
    if extensible:
        head += struct.pack("<HHI", 22, bits, 0) + struct.pack("<H", code) + b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
    return head


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + b"\0" * (len(body) % 2)


def wav(*chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return magic + struct.pack("<I", len(body)) + body


def packed(sound: Any, code: int, bits: int) -> bytes:
    if code == 3:
        return bytes(sound.astype(f"<f{bits // 8}").tobytes())
    if bits == 8:
        return bytes(np.rint(sound * 127 + 128).astype(np.uint8).tobytes())
    whole = np.rint(sound * (2 ** (bits - 1) - 1)).astype("<i8")
    return bytes(whole.reshape(-1, 1).view(np.uint8).reshape(-1, 8)[:, : bits // 8].tobytes())


GOOD = wav(chunk(b"fmt ", fmt(1, 1, RATE, 16)), chunk(b"data", packed(TONE, 1, 16)))


def heard(place: str, stop: threading.Event | None = None) -> tuple[list[Audio], list[StreamState]]:
    items = list(open_source(parse_uri(f"files:{place}")).run(stop or threading.Event()))
    return [i for i in items if isinstance(i, Audio)], [i for i in items if isinstance(i, StreamState)]


def joined(found: list[Audio]) -> Floats:
    return np.concatenate([one.samples for one in found])


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("code", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64)])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (44100, 2), (96_000, 8), (4000, 1)])
def test_each_kind_of_wav_sounds_the_same(
    tmp_path: Path, code: int, bits: int, rate: int, channels: int, extensible: bool
) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    data = packed(np.repeat(tone, channels), code, bits)
    head = chunk(b"fmt ", fmt(code, channels, rate, bits, extensible))
    (tmp_path / "a.wav").write_bytes(wav(head, chunk(b"LIST", b"abc"), chunk(b"data", data), chunk(b"id3 ", b"x" * 99)))
    found, states = heard(f"{tmp_path}/a.wav")
    sound = joined(found)
    assert len(sound) == RATE and [one.last for one in found] == [False] * (len(found) - 1) + [True]
    assert all(len(one.samples) <= RATE and one.name == "a.wav" and one.rate == RATE for one in found)
    off = np.abs(sound - TONE[:RATE])[500:-500]
    assert off.max() < (0.02 if bits == 8 else 1e-3)
    assert [state.condition for state in states] == ["ok", "ended"]


LYING = {
    "empty": (b"", "it is empty"),
    "short": (b"RIFF", "it is no WAV file"),
    "picture": (b"\x89PNG\r\n\x1a\n" + b"\0" * 99, "it is no WAV file, whatever its name says"),
    "film": (b"RIFF\0\0\0\0AVI LIST", "it is no WAV file"),
    "dataless": (wav(chunk(b"fmt ", fmt(1, 1, RATE, 16))), "without sound: it ends before the data"),
    "formless": (wav(chunk(b"data", b"\0" * 99)), "says no format before its data"),
    "silent": (wav(chunk(b"fmt ", fmt(1, 1, RATE, 16)), chunk(b"data", b"")), "it holds no sound"),
    "half": (wav(chunk(b"fmt ", fmt(1, 1, RATE, 16)[:9])), "whose format is cut off"),
    "still": (wav(chunk(b"fmt ", fmt(1, 1, 0, 16)), chunk(b"data", b"\0" * 99)), "has 0 samples a second"),
    "fast": (wav(chunk(b"fmt ", fmt(1, 1, 2**31, 16)), chunk(b"data", b"\0" * 99)), "2147483648 samples a second"),
    "none": (wav(chunk(b"fmt ", fmt(1, 0, RATE, 16)), chunk(b"data", b"\0" * 99)), "has 0 channels by its header"),
    "many": (wav(chunk(b"fmt ", fmt(1, 65535, RATE, 16, align=2)), chunk(b"data", b"\0" * 99)), "has 65535 channels"),
    "aligned": (wav(chunk(b"fmt ", fmt(1, 2, RATE, 16, align=3)), chunk(b"data", b"\0" * 99)), "header that lies: 2"),
    "odd": (wav(chunk(b"fmt ", fmt(1, 1, RATE, 12)), chunk(b"data", b"\0" * 99)), "lies: samples of 12 bits"),
    "wide": (wav(chunk(b"fmt ", b"\0" * 16, size=2**32 - 1)), "header that lies: 4294967295 bytes to say"),
    "beside": (wav(chunk(b"LIST", b"", size=2**32 - 1)), "header that lies: 4294967295 bytes before its sound"),
}


@pytest.mark.parametrize("name", LYING)
def test_a_header_that_lies_costs_one_line_and_the_next_file_goes_on(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / f"a {name}.wav").write_bytes(LYING[name][0])
    (tmp_path / "b.wav").write_bytes(GOOD)
    found, states = heard(str(tmp_path))
    assert {one.name for one in found} == {"b.wav"} and len(joined(found)) == len(TONE)
    assert LYING[name][1] in caplog.text and len(caplog.messages) == 1
    assert states[-1] == StreamState("ended", "1 unreadable skipped")


@pytest.mark.parametrize("size", [0, 2**32 - 1, 2**31 - 1, 10**9])
def test_of_sizes_what_is_there_counts(tmp_path: Path, size: int, caplog: pytest.LogCaptureFixture) -> None:
    body = packed(TONE[:RATE], 1, 16) + b"\1"
    raw = wav(chunk(b"fmt ", fmt(1, 1, RATE, 16)), chunk(b"data", body, size=size), magic=b"RF64")
    (tmp_path / "a.wav").write_bytes(raw.rstrip(b"\0"))
    found, _ = heard(f"{tmp_path}/a.wav")
    assert len(joined(found)) == RATE and found[-1].last
    # a header that knows its size is believed to have meant it
    assert ("is cut off: 1.0 of the 31250.0 s that it states are there" in caplog.text) == (size == 10**9)


@needs_ffmpeg
@pytest.mark.parametrize("kind", ["flac", "ogg", "mp3", "m4a", "aiff", "wav"])
def test_what_ffmpeg_decodes_is_heard(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.wav").write_bytes(GOOD)
    codec = ["-c:a", "pcm_mulaw"] if kind == "wav" else ["-c:a", "libvorbis"] if kind == "ogg" else []
    made = tmp_path / f"out 'of {kind}.{kind}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(tmp_path / "in.wav"), *codec, str(made)], check=True)
    found, states = heard(str(made))
    sound = joined(found)
    assert len(sound) == pytest.approx(len(TONE), abs=RATE // 5) and found[-1].last
    assert float(np.abs(sound[RATE // 2 : RATE]).max()) == pytest.approx(0.5, abs=0.05)
    assert states[-1] == StreamState("ended")


@needs_ffmpeg
def test_what_ffmpeg_cannot_decode_is_said_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "b.ogg").write_bytes(b"")
    # a list of other files is none of ours
    (tmp_path / "c.m4a").write_text(f"#EXTM3U\nfile:{tmp_path}/a.mp3\n")
    found, states = heard(str(tmp_path))
    assert not found and states == [StreamState("ended", "3 unreadable skipped")]
    assert [("cannot be decoded by ffmpeg (" in line, "is empty" in line) for line in caplog.messages] == [
        (True, False), (False, True), (True, False),
    ]  # fmt: skip


def test_without_ffmpeg_one_line_says_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recordings, "which", lambda name: None)
    (tmp_path / "a.mp3").write_bytes(b"ID3")
    with pytest.raises(SourceError, match=r"a\.mp3: is decoded by ffmpeg, .*; `apt install ffmpeg`"):
        heard(f"{tmp_path}/a.mp3")
    (tmp_path / "b.wav").write_bytes(GOOD)
    found, _ = heard(str(tmp_path))
    assert found and "a.mp3: skipped, it is decoded by ffmpeg, which is not installed" in caplog.text


def test_a_path_is_of_pictures_or_of_sound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def yields(place: str) -> type:
        return open_source(Uri("files", place)).yields

    (tmp_path / "a.wav").write_bytes(GOOD)
    (tmp_path / "unnamed").write_bytes(GOOD)
    (tmp_path / "notes.txt").write_text("no sound")
    assert yields(str(tmp_path)) == yields(f"{tmp_path}/*.wav") == yields(f"{tmp_path}/unnamed") == Audio
    shutil.copy(ROOT / "deploy" / "demo" / "coffee.png", tmp_path)
    assert not caplog.messages
    assert yields(str(tmp_path)) == yields(f"{tmp_path}/*") == Frame
    assert "1 recordings beside the pictures are left out; for them write *.wav" in caplog.text
    assert yields(f"{tmp_path}/*.wav") == Audio
    for option in ("fps=3", "dark=off", "pace=fast", "loop=maybe"):
        with pytest.raises(ConfigError, match=r"known are pace, loop|give "):
            open_source(parse_uri(f"files:{tmp_path}/a.wav?{option}"))


def test_in_its_own_time_a_recording_lasts_as_long_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(GOOD)
    opened = open_source(parse_uri(f"files:{tmp_path}/a.wav?pace=own"))
    began = time.monotonic()
    items = [(i, time.monotonic()) for i in opened.run(threading.Event()) if isinstance(i, Audio)]
    assert opened.live and time.monotonic() - began >= 1.99
    # nothing comes before it can have been heard
    assert all(came - i.mono >= len(i.samples) / RATE for i, came in items)


def test_it_stops_on_the_way_and_begins_again_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(GOOD)
    stop, ends = threading.Event(), 0
    for item in open_source(parse_uri(f"files:{tmp_path}/a.wav?loop=true")).run(stop):
        ends += isinstance(item, Audio) and item.last
        if ends == 3:
            stop.set()
    assert ends == 3
    stop = threading.Event()
    got = []
    for item in open_source(parse_uri(f"files:{tmp_path}/a.wav")).run(stop):
        got.append(item)
        stop.set()
    assert isinstance(got[-1], Audio) and got[-1].last and len(joined([i for i in got if isinstance(i, Audio)])) < RATE
