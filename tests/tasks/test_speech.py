"""Utterances out of sound: with the real network, and the gate and cutter with a network of a test."""

from __future__ import annotations

import math
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from edge_agent.errors import ConfigError, InputError, ManifestError, RefusedError
from edge_agent.manifest import File, Manifest, Served
from edge_agent.samples.sounds import SECONDS, voice
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.chain import check_chain, completed, fitting
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.speech import proof
from edge_agent.tasks.speech.speech import Speech
from edge_agent.tasks.speech.voice import CONTEXT, RATE, STEP, Gate
from edge_agent.types import Audio, Floats, ModelRef, Net, TensorSpec
from edge_agent.uri import parse_uri

STATE = (TensorSpec("h", (1, 1, 4), "float32"),)
NEXT = (TensorSpec("p", (None,), "float32"), TensorSpec("hn", (1, 1, 4), "float32"))


def served(run: Callable[[Any], dict[str, Any]], **more: Any) -> Served:
    """A model whose network is a function."""
    net = Net(run, (TensorSpec("x", (None, CONTEXT + STEP), "float32"), *STATE), NEXT, "a lambda")
    told: dict[str, Any] = {"task": "speech", "family": "silero", "score": 0.5, **more}
    file = File("a.onnx", "onnx", "0" * 64, 1)
    manifest = Manifest(name="ear", version="1", licence="", trained_by="", file=[file], **told)
    return Served(manifest, ModelRef("ear", "1", "0" * 64), net, {}, None, "")


class Loud:
    """A network that hears speech where the last sample of a step is above a tenth."""

    def __init__(self) -> None:
        self.steps = 0
        self.contexts: list[npt.NDArray[np.float32]] = []

    def __call__(self, tensors: Any) -> dict[str, Any]:
        x = tensors["x"]
        self.steps += len(x)
        self.contexts.extend(x[:, :CONTEXT])
        return {"p": (np.abs(x[:, -1]) > 0.1).astype(np.float32), "hn": tensors["h"] + len(x)}


def task(options: str = "", run: Callable[[Any], dict[str, Any]] | None = None) -> Speech:
    model = served(run or Loud())
    made = make_task(parse_uri(f"speech:ear{options}"), lambda _: model, Path())
    assert isinstance(made, Speech)
    return made


def said(one: Speech, sound: Floats, block: int = 1600, at: float = 1000.0) -> list[Audio]:
    """What the task makes of sound that comes in blocks; the last of them says so."""
    found: list[Audio] = []
    for n in range(0, len(sound), block):
        some = sound[n : n + block]
        last = n + block >= len(sound)
        found += one(Audio(some.astype(np.float32), at + n / RATE, n / RATE, last=last, name="talk.wav"))
    return found


def level(seconds: float, value: float) -> Floats:
    """Steps of noise that the network of this test takes for speech where `value` is above a tenth."""
    count = round(seconds * RATE / STEP) * STEP
    noise = np.random.default_rng(0).normal(0, 1, count) * value / 3
    noise[STEP - 1 :: STEP] = value
    return noise.astype(np.float32)


def quiet(seconds: float) -> Floats:
    return level(seconds, 0.001)


@pytest.mark.parametrize("block", [1600, 100, 7777, 16000])
def test_an_utterance_has_its_roll_before_and_behind_and_its_place_in_time(block: int) -> None:
    sound = np.concatenate([quiet(2), level(1, 0.3), quiet(2), level(1.5, 0.3), quiet(1)])
    one = task("?before=0.2&after=0.4&pause=0.5")
    found = said(one, sound, block)
    assert [round(len(each.samples) / RATE, 1) for each in found] == [1.6, 2.1]
    for each, start in zip(found, (2.0, 5.0), strict=True):
        first = round(each.mono * RATE)
        np.testing.assert_array_equal(each.samples, sound[first : first + len(each.samples)])
        assert each.mono == pytest.approx(start - 0.2, abs=0.04) and each.at == pytest.approx(1000 + each.mono)
        assert each.name == f"talk.wav#{each.mono:.2f}" and not each.last
    assert not one.under_way


def test_a_short_pause_splits_nothing_and_a_click_is_no_speech() -> None:
    sound = np.concatenate([quiet(1), level(1, 0.3), quiet(0.4), level(1, 0.3), quiet(2), level(0.1, 0.3), quiet(1)])
    found = said(task(), sound)
    assert len(found) == 1 and len(found[0].samples) / RATE == pytest.approx(3.0, abs=0.07)


def test_what_is_under_way_at_the_end_is_said_to_its_last_sample() -> None:
    sound = np.concatenate([quiet(1), level(1, 0.3)])
    sound = np.concatenate([sound, np.full(300, 0.25, np.float32)])
    one = task()
    list(one(Audio(sound, 0.0, 0.0)))
    assert one.under_way
    (found,) = one(Audio(np.zeros(0, np.float32), 0.0, 0.0, last=True))
    assert not one.under_way
    np.testing.assert_array_equal(found.samples[-300:], sound[-300:])
    # and nothing of it is in what comes next
    (after,) = said(one, sound)
    np.testing.assert_array_equal(after.samples, found.samples)


def test_a_long_speech_is_cut_at_its_quietest_place_and_nothing_is_lost() -> None:
    speech = level(70, 0.3)
    low = round(27 * RATE / STEP)
    speech[low * STEP : (low + 5) * STEP] *= 0.5
    found = said(task(), speech)
    assert all(len(each.samples) <= 30 * RATE for each in found) and len(found) == 3
    assert len(found[0].samples) == pytest.approx((low + 2.5) * STEP, abs=2 * STEP)
    whole = np.concatenate([each.samples for each in found])
    np.testing.assert_array_equal(whole, speech[-len(whole) :])
    assert len(whole) >= len(speech) - RATE // 2
    ends = [round((each.mono * RATE) + len(each.samples)) for each in found]
    assert [round(each.mono * RATE) for each in found[1:]] == ends[:-1]


def test_the_network_is_not_asked_about_silence_and_finds_its_feet_before_speech() -> None:
    network = Loud()
    sound = np.concatenate([quiet(20), level(1, 0.3), quiet(20)])
    (found,) = said(task(run=network), sound)
    assert len(found.samples) / RATE == pytest.approx(1.6, abs=0.1)
    assert 30 < network.steps < 200 < len(sound) // STEP
    # steps that were shown follow each other: the context is what came before
    asked = Loud()
    (same,) = said(task("?gate=off", run=asked), sound)
    np.testing.assert_array_equal(same.samples, found.samples)
    assert asked.steps == len(sound) // STEP
    every = np.concatenate([np.zeros(CONTEXT, np.float32), sound])
    np.testing.assert_array_equal(asked.contexts[700], every[700 * STEP : 700 * STEP + CONTEXT])


def test_the_gate_gets_used_to_a_noise_and_opens_for_what_stands_out_of_it() -> None:
    gate, rng = Gate(3.0), np.random.default_rng(0)

    def share(mean: float, steps: int) -> float:
        return float(np.mean([gate(mean + rng.normal(0, 0.3)) for _ in range(steps)]))

    share(-90, 200)
    assert share(-90, 200) == 0
    assert share(-40, 10) == 1
    share(-40, 200)
    assert share(-40, 300) == 0
    assert gate(-34.0)


def test_state_goes_from_run_to_run_and_is_forgotten_with_the_stream() -> None:
    states = []

    def run(tensors: Any) -> dict[str, Any]:
        states.append(float(tensors["h"].max()))
        return {"p": np.zeros(len(tensors["x"]), np.float32), "hn": tensors["h"] + len(tensors["x"])}

    one = task("?gate=off", run=run)
    said(one, quiet(1), block=STEP * 2)
    said(one, quiet(1), block=STEP * 2)
    assert states[:3] == [0.0, 2.0, 4.0] and states.count(0.0) == 2


@pytest.mark.parametrize("bad", [math.nan, 7.0, -1.0])
def test_a_network_that_gives_no_probabilities_is_refused(bad: float) -> None:
    def run(tensors: Any) -> dict[str, Any]:
        return {"p": np.full(len(tensors["x"]), bad, np.float32), "hn": tensors["h"]}

    with pytest.raises(InputError, match="no probabilities"):
        said(task(run=run), quiet(1))


def test_options_have_bounds_and_models_have_to_hear() -> None:
    for option in ("score=2", "gate=99", "pause=60", "longest=31", "longest=1", "after=0.7", "before=-1", "loud=1"):
        with pytest.raises(ConfigError):
            task(f"?{option}")
    deaf = served(Loud(), task="anomaly", family="vae")
    with pytest.raises(ManifestError, match="ear: its task is anomaly, it does not say where somebody speaks"):
        make_task(parse_uri("speech:ear"), lambda _: deaf, Path())
    plain = served(Loud())
    plain = msgspec.structs.replace(plain, net=msgspec.structs.replace(plain.net, inputs=plain.net.inputs[:1]))
    with pytest.raises(ManifestError, match=r"not a network of \[steps, 576\] samples and states"):
        make_task(parse_uri("speech:ear"), lambda _: plain, Path())
    with pytest.raises(ConfigError, match='"speech" gives sound, which no event says; put a task behind it'):
        check_chain(Audio, [("speech", task())])
    assert "speech:" not in fitting(Audio)


def test_it_is_put_before_what_has_to_stand_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.tasks import TASKS, TaskRow

    row = TaskRow(make="edge_agent.tasks.speech.speech:speech", takes=Audio, gives=Audio, behind="speech")
    monkeypatch.setitem(TASKS, "words", row)
    assert completed(["words:x?a=b", "classify:encoder"]) == ["speech:silero-vad", "words:x?a=b", "classify:encoder"]
    for tasks in (["speech:other?score=0.3", "words:x"], ["speech", "words"], ["detect:x"], []):
        assert completed(tasks) == tasks


def test_another_network_goes_on_with_what_was_heard() -> None:
    sound = np.concatenate([quiet(1), level(2, 0.3), quiet(1)])
    whole = said(task(), sound)
    one, other = task(), task()
    half = RATE * 2
    found = list(one(Audio(sound[:half], 0.0, 0.0)))
    other.take_over(one)
    found += other(Audio(sound[half:], 0.0, 0.0, last=True))
    assert len(found) == 1
    np.testing.assert_array_equal(found[0].samples, whole[0].samples)


# ── the real network ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def real(silero: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Speech]]:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(silero))
    models = Models(threads=1)

    def make(options: str = "") -> Speech:
        made = make_task(parse_uri(f"speech:{options}"), models.serve, silero)
        assert isinstance(made, Speech)
        return made

    yield make


def test_silero_hears_a_voice_and_nothing_else(real: Callable[[str], Speech]) -> None:
    calm = np.zeros(3 * RATE, np.float32)
    (found,) = said(real(""), np.concatenate([calm, voice(110, 1), calm]))
    assert found.mono == pytest.approx(3 - 0.3, abs=0.3)
    assert len(found.samples) / RATE == pytest.approx(SECONDS + 0.6, abs=0.5)
    hiss = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(20 * RATE) / RATE)).astype(np.float32)
    for nothing in (calm, hiss, tone):
        assert said(real("?gate=off"), nothing) == []


def test_people_are_heard_in_noise(real: Callable[[str], Speech], data: Path) -> None:
    for path in sorted((data / "audio").glob("sense*.wav")):
        with wave.open(str(path)) as file:
            clip = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        calm = np.zeros(2 * RATE, np.float32)
        sound = np.concatenate([calm, clip, calm])
        noise = np.random.default_rng(0).normal(0, 1, len(sound)).astype(np.float32)
        sound += noise * np.sqrt((clip**2).mean()) / 10**0.5
        found = said(real(""), sound)
        heard = sum(len(each.samples) for each in found) / len(clip)
        assert 0.85 < heard < 1.3, path.name


def test_a_network_that_hears_voices_everywhere_or_nowhere_is_refused() -> None:
    def says(p: float) -> Served:
        return served(lambda t: {"p": np.full(len(t["x"]), p, np.float32), "hn": t["h"]})

    with pytest.raises(RefusedError, match="hears speech in 0% of a voice"):
        proof.prove(says(0.0), Recorder())
    with pytest.raises(RefusedError, match="hears speech in 100% of silence"):
        proof.prove(says(1.0), Recorder())
    assert proof.compare(says(0.9), says(0.8))[0] == 1 and proof.compare(says(0.9), says(0.1))[0] == 0
