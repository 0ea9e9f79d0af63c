"""How well `speech` finds speech, and what it costs: ``python -m tests.bench.vad [--tune]``.

Speech: the LibriVox clips of the shared data and sentences of espeak-ng, each with 3 s of silence before and behind it,
in noise 40 to 0 dB below it; what is speech is what is loud in the clean sound. No speech: ten minutes each of silence,
fan noise and music-like tones. Beside it a plain level gate with the same segmenter: speech is what is so many dB over
the noise floor. ``--tune``: the sentences, voices and noises that the options were chosen on; none is reported on.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import subprocess
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.serving.models import Models
from edge_agent.sources.resample import Funnel, samples
from edge_agent.tasks import make_task
from edge_agent.tasks.speech.speech import Speech
from edge_agent.tasks.speech.voice import RATE, STEP, Gate, levels
from edge_agent.types import Audio, Floats
from edge_agent.uri import parse_uri
from tests.conftest import ROOT

DATA = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data"))
VOICES = {True: ("en-us", "en-gb+f3"), False: ("en-gb-scotland", "en-us+f2", "en+m7")}
SENTENCES = {True: "text/snips/validate.tsv", False: "text/slurp/test.tsv"}
COUNT, MINUTES, QUIET_S = 24, 10, 3.0
Doubles = npt.NDArray[np.float64]


def spoken(text: str, voice: str, folder: str) -> Floats:
    """A sentence of espeak-ng."""
    path = Path(folder, "said.wav")
    subprocess.run(["espeak-ng", "-v", voice, "-w", str(path), text], check=True, capture_output=True)
    with wave.open(str(path)) as file:
        raw, rate = file.readframes(file.getnframes()), file.getframerate()
    return Funnel(rate, 1)(samples(raw, "s16", 1), last=True)


def clips(tune: bool) -> Iterator[tuple[str, Floats]]:
    """Clean speech, by where it comes from."""
    if not tune:
        for path in sorted((DATA / "audio").glob("*.*")):
            if path.name.startswith(("sense", "goforward", "numbers")):
                raw = path.read_bytes()[44 if path.suffix == ".wav" else 0 :]
                yield "people", samples(raw, "s16", 1)[:, 0]
    with (DATA / SENTENCES[tune]).open() as file:
        texts = [row[-2] for row in csv.reader(file, delimiter="\t") if len(row) > 2 and len(row[-2]) > 20]
    picked = np.random.default_rng(5).choice(texts, COUNT, replace=False)
    with tempfile.TemporaryDirectory() as folder:
        for n, text in enumerate(picked):
            yield "espeak-ng", spoken(str(text), VOICES[tune][n % len(VOICES[tune])], folder)


def coloured(count: int, slope: float, rng: np.random.Generator) -> Doubles:
    """Noise whose power falls with frequency to this power: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (slope / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, count)
    return np.asarray(noise / noise.std())


def fan(count: int, rng: np.random.Generator) -> Doubles:
    """Pink noise with the hum of a motor and its harmonics, that waxes and wanes."""
    t, hertz = np.arange(count) / RATE, rng.uniform(80, 140)
    hum = sum(np.sin(2 * np.pi * hertz * k * t + rng.uniform(0, 6)) / k for k in (1, 2, 3, 5))
    return np.asarray((coloured(count, 1.0, rng) + 0.7 * np.asarray(hum)) * (1 + 0.2 * np.sin(2 * np.pi * 0.3 * t)))


def tones(count: int, rng: np.random.Generator) -> Doubles:
    """Chords of plucked strings, two a second."""
    out, note = np.zeros(count), RATE // 2
    for at in range(0, count - note, note):
        t = np.arange(note) / RATE
        for key in rng.choice(np.array([0, 3, 5, 7, 10, 12, 15]), 3, replace=False):
            hertz = 220 * 2 ** (key / 12)
            out[at : at + note] += sum(np.sin(2 * np.pi * hertz * k * t) / k for k in (1, 2, 3)) * np.exp(-3 * t)
    return np.asarray(out / out.std())


def is_speech(clean: Floats) -> npt.NDArray[np.bool_]:
    """Of each step whether it is within 35 dB of the loudest, or in a pause of less than 0.3 s between two that are."""
    loud = levels(clean[: len(clean) // STEP * STEP].reshape(-1, STEP))
    found, gap = loud > loud.max() - 35, round(0.3 * RATE / STEP)
    where = np.flatnonzero(found)
    for before, behind in itertools.pairwise(where.tolist()):
        if behind - before <= gap:
            found[before:behind] = True
    return np.asarray(found, np.bool_)


class Level:
    """The plain gate in the place of the network: 1 for a step that is so many dB over the floor."""

    def __init__(self, above: float) -> None:
        self.gate = Gate(above)

    def forget(self) -> None:
        self.gate.forget()

    def __call__(self, steps: Floats) -> Floats:
        found = []
        for level in levels(steps[:, -STEP:]):
            self.gate._open = 0
            found.append(float(self.gate(float(level))))
        return np.array(found, np.float32)


def run(task: Speech, sound: Doubles | Floats) -> tuple[npt.NDArray[np.bool_], int, float, float]:
    """Which steps are in an utterance, how many there are, CPU seconds and the share of steps that were asked about."""
    inside, count, asked = np.zeros(len(sound) // STEP + 1, bool), 0, 0
    voice = task.voice

    def counting(steps: Floats) -> Floats:
        nonlocal asked
        asked += len(steps)
        return voice(steps)

    counting.forget = voice.forget  # type: ignore[attr-defined]
    task.voice = counting  # type: ignore[assignment]
    began = time.thread_time()
    for at in range(0, len(sound), RATE // 10):
        block = np.asarray(sound[at : at + RATE // 10], np.float32)
        last = at + RATE // 10 >= len(sound)
        for said in task(Audio(block, at / RATE, at / RATE, last=last)):
            first = round(said.mono * RATE)
            inside[first // STEP : (first + len(said.samples)) // STEP] = True
            count += 1
    spent, task.voice = time.thread_time() - began, voice
    return inside, count, spent, asked / (len(sound) / STEP)


def in_noise(clean: Floats, decibels: float, make: Callable[[int, np.random.Generator], Doubles], seed: int) -> Floats:
    """The clip between silences, in noise that many dB below it."""
    calm = np.zeros(round(QUIET_S * RATE), np.float32)
    sound = np.concatenate([calm, clean, calm])
    noise = make(len(sound), np.random.default_rng(seed))
    mixed = sound + noise * np.sqrt((clean.astype(float) ** 2).mean()) / 10 ** (decibels / 20)
    return np.asarray(mixed / max(1.0, np.abs(mixed).max()), np.float32)


def speech_rows(task: Speech, tune: bool) -> Iterator[str]:
    """Share of the speech that is hit, of the silence that is taken in, utterances a clip, by origin and noise."""
    found: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
    for n, (origin, clean) in enumerate(clips(tune)):
        truth = np.concatenate([z := np.zeros(round(QUIET_S * RATE) // STEP, bool), is_speech(clean), z])
        for decibels in (40.0, 20.0, 10.0, 5.0, 0.0):
            make = fan if n % 2 else (lambda count, rng: coloured(count, 1.0 if tune else 0.5, rng))
            inside, count, _, _ = run(task, in_noise(clean, decibels, make, 1000 * tune + n))
            size = min(len(truth), len(inside))
            hit, far = inside[:size][truth[:size]].mean(), inside[:size][~truth[:size]].sum() * STEP / RATE
            found.setdefault((origin, decibels), []).append((float(hit), float(far), count))
    for (origin, decibels), rows in sorted(found.items()):
        share, beside, utterances = np.mean(rows, 0)
        missed = sum(row[2] == 0 for row in rows)
        told = f"hit {share:6.1%}  beside it {beside:4.2f} s  a clip {utterances:4.2f}  missed {missed} of {len(rows)}"
        yield f"{origin:10} {decibels:3.0f} dB  {told}"


def quiet_rows(task: Speech, tune: bool) -> Iterator[str]:
    """False utterances an hour, CPU and how often the network was asked, where nobody speaks."""
    rng, minutes = np.random.default_rng(11 + tune), MINUTES // (1 + 4 * tune)
    count = minutes * 60 * RATE
    kinds: dict[str, Doubles] = {
        "silence": rng.normal(0, 1e-4, count),
        "fan": 0.05 * fan(count, rng),
        "tones": 0.05 * tones(count, rng),
    }
    for name, sound in kinds.items():
        _, found, spent, asked = run(task, sound)
        hours = minutes / 60
        cost = f"{1000 * spent / (minutes * 60):.2f} ms CPU a second  asked {asked:.0%}"
        yield f"{name:10} {found / hours:6.0f} an hour  {cost}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--options", nargs="*", default=["", "gate=off"])
    parser.add_argument("--levels", nargs="*", default=["6", "9"])
    args = parser.parse_args()
    models = Models(threads=1)
    ways = {f"silero {options}": options for options in args.options}
    for title, options in [*ways.items(), *[(f"level {above} dB", f"gate=off#{above}") for above in args.levels]]:
        given, _, above = options.partition("#")
        task = make_task(
            parse_uri(f"speech:silero-vad?{given}" if given else "speech:silero-vad"), models.serve, Path()
        )
        assert isinstance(task, Speech)
        if above:
            task.voice = Level(float(above))  # type: ignore[assignment]
        print(f"── {title}")
        for row in (*speech_rows(task, args.tune), *quiet_rows(task, args.tune)):
            print(row, flush=True)


if __name__ == "__main__":
    main()
