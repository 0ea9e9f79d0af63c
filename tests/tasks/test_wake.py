"""Wake words: sound passes behind the word, until nobody speaks any more; the real package on a spoken word."""

from __future__ import annotations

import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import ConfigError, RefusedError
from edge_agent.registry import catalogue, files, licences, store
from edge_agent.registry.licences import NON_COMMERCIAL
from edge_agent.sources.resample import Funnel, samples
from edge_agent.tasks import make_task
from edge_agent.tasks.chain import completed
from edge_agent.tasks.wake.wake import HOP, MOST_S, Wake, wake
from edge_agent.types import Audio, Floats
from edge_agent.uri import parse_uri

RATE = 16_000


class Word:
    """A word that is heard in a hop whose first sample is 1."""

    wake_word = "Hey You"

    def process_streaming_prob(self, features: Any) -> float:
        return float(features)

    def reset(self) -> None:
        pass


class Features:
    def process_streaming(self, raw: bytes) -> list[float]:
        assert len(raw) == 2 * HOP
        return [float(np.frombuffer(raw, "<i2")[0] == 32767)]

    def reset(self) -> None:
        pass


def sound(seconds: float, *words: float, loud: tuple[float, float] = (0, 0)) -> Floats:
    """Quiet, with the word at these seconds, and somebody who speaks from one to another second."""
    noise = np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE))
    first, end = (round(at * RATE) for at in loud)
    # in syllables, four a second
    noise[first:end] *= 1000 * (np.sin(2 * np.pi * 4 * np.arange(end - first) / RATE) > 0) + 1
    for word in words:
        noise[round(word * RATE) // HOP * HOP] = 1
    return noise.astype(np.float32)


def passed(task: Wake, given: Floats, block: int = 1600) -> list[Audio]:
    found: list[Audio] = []
    for at in range(0, len(given), block):
        part = given[at : at + block]
        found += task(Audio(part, 100 + at / RATE, at / RATE, last=at + block >= len(given)))
    return found


def task(seconds: float = 2) -> Wake:
    return Wake(Word(), Features(), 0.5, seconds)


@pytest.mark.parametrize("block", [1600, 999, 8000])
def test_nothing_passes_but_what_follows_the_word(block: int) -> None:
    assert passed(task(), sound(10)) == []
    given = sound(20, 5.0)
    found = passed(task(), given, block)
    whole = np.concatenate([one.samples for one in found])
    start = 5 * RATE + HOP
    np.testing.assert_array_equal(whole, given[start : start + len(whole)])
    assert len(whole) / RATE == pytest.approx(2, abs=1.6)
    assert found[0].mono == pytest.approx(start / RATE) and found[0].at == pytest.approx(100 + start / RATE)
    assert [one.last for one in found] == [False] * (len(found) - 1) + [True]


def test_who_speaks_is_heard_to_the_end_and_no_longer_than_is_allowed() -> None:
    given = sound(30, 5.0, loud=(6, 14))
    found = passed(task(), given)
    end = found[-1].mono + len(found[-1].samples) / RATE
    assert 14 <= end < 15.5 and found[-1].last
    # who never stops is not heard for ever
    found = passed(task(), sound(60, 5.0, loud=(6, 60)))
    assert found[-1].mono + len(found[-1].samples) / RATE <= 5 + MOST_S + 0.2


def test_each_word_opens_anew() -> None:
    found = passed(task(), sound(30, 5.0, 20.0))
    starts = [0, *(n + 1 for n, one in enumerate(found[:-1]) if one.last)]
    assert [round(found[n].mono, 1) for n in starts] == [5.0, 20.0]
    assert sum(one.last for one in found) == 2


def test_it_stands_before_speech() -> None:
    chain = ["wake:okay_nabu", "transcribe:whisper-tiny"]
    assert completed(chain) == ["wake:okay_nabu", "speech:silero-vad", "transcribe:whisper-tiny"]


@pytest.fixture
def spoken(tmp_path: Path) -> Callable[[str], Floats]:
    pytest.importorskip("pymicro_wakeword", reason="the extra [wake] is not installed")
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed")

    def say(text: str) -> Floats:
        subprocess.run(["espeak-ng", "-v", "en-us", "-w", str(tmp_path / "a.wav"), text], check=True)
        with wave.open(str(tmp_path / "a.wav")) as file:
            raw, rate = file.readframes(file.getnframes()), file.getframerate()
        return Funnel(rate, 1)(samples(raw, "s16", 1), last=True)

    return say


def test_a_spoken_word_is_heard_and_another_is_not(
    spoken: Callable[[str], Floats], caplog: pytest.LogCaptureFixture
) -> None:
    made = make_task(parse_uri("wake:alexa?seconds=3"), lambda name: pytest.fail(name), Path())
    assert isinstance(made, Wake)
    # who switches it on is told
    assert "is disputed" in caplog.text
    calm = sound(2)
    command = spoken("turn on the light")
    found = passed(made, np.concatenate([calm, spoken("alexa"), calm[:8000], command, calm, calm, calm]))
    whole = np.concatenate([one.samples for one in found])
    assert len(command) < len(whole) < len(command) + 4 * RATE and found[-1].last
    assert passed(made, np.concatenate([calm, spoken("good morning everybody"), calm])) == []


def test_bad_words_and_options_are_named() -> None:
    pytest.importorskip("pymicro_wakeword", reason="the extra [wake] is not installed")
    for address, says in (
        ("wake:alexia", 'no wake word "alexia"; did you mean "alexa"'),
        ("wake:", "; known are .*okay_nabu"),
        ("wake:alexa?seconds=0.1", "give a number from 1 to 30"),
        ("wake:alexa?loud=1", 'unknown option "loud"'),
    ):
        with pytest.raises(ConfigError, match=says):
            wake(parse_uri(address), None, Path())


def test_without_the_package_one_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pymicro_wakeword", None)
    with pytest.raises(ConfigError, match=r'wake words need `pip install "edge-agent-runtime\[wake\]"`'):
        wake(parse_uri("wake:alexa"), None, Path())


def test_openwakewords_models_are_refused_by_their_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(len(sha256) == 64 for sha256 in NON_COMMERCIAL)
    file = tmp_path / "alexa.tflite"
    file.write_bytes(b"as if it were that file")
    monkeypatch.setitem(licences.NON_COMMERCIAL, store.digest(file), "alexa")
    with pytest.raises(RefusedError, match=r"alexa\.tflite: this is the word alexa of openWakeWord, CC BY-NC-SA 4.0"):
        catalogue.locate(str(file), read=lambda path: pytest.fail("it is not read"))
    (tmp_path / "manifest.toml").write_text(
        'name = "mine"\nversion = "1"\ntask = "anomaly"\nfamily = "vae"\nlicence = "Apache-2.0"\ntrained_by = "me"\n'
        f'[[file]]\nname = "alexa.tflite"\nformat = "tflite"\nsha256 = "{store.digest(file)}"\nbytes = 23\n'
    )
    located = catalogue.locate(str(tmp_path))
    with pytest.raises(RefusedError, match=r"mine: alexa\.tflite: this is the word alexa of openWakeWord"):
        files.file_path(located, located.manifest.file[0])
