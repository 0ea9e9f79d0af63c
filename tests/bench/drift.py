"""``python -m tests.bench.drift [camera] [microphone]``: what drift says of a real film and of spoken texts, by hours.

Camera: YOLOX-nano on every fourth frame of vtest.avi (a street of 80 seconds) in five lights, as it is, out of focus,
and with the colours of another season. Microphone: the demo's lines and everyday sentences as espeak-ng says them and
whisper-tiny hears them, labelled by edge-bert: in four voices from the first day on, then in four others. An hour is a
stretch of 60 looks, or 60 texts, drawn anew; the light goes by the time of day and the weather. Three days are learned,
30 quiet ones counted, then the change comes. Ten processor minutes.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from edge_agent import toml
from edge_agent.accuracy.drift import Drift
from edge_agent.accuracy.signals import Signal, signals_of
from edge_agent.errors import InputError
from edge_agent.paths import home
from edge_agent.samples.everyday import SENTENCES
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.types import Audio, Frame, Pixels, Task, Text
from edge_agent.uri import parse_task
from tests.bench.speech import espeak, noisy
from tests.conftest import ROOT

FILM = Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")) / "video" / "vtest.avi"
HOUR, LOOKS, EACH = 3600.0, 60, 4
LEARNED, QUIET, AFTER = 3 * 24, 30 * 24, 24
"""hours"""
LIGHTS = (0.45, 0.65, 0.85, 1.0, 1.15)
USUAL, ACCENT = ("en-us", "en-gb", "en-us+f3", "en-us+m7"), ("en-029", "en-gb-scotland", "en-gb-x-gbcwmd", "de")
Looks = Sequence[list[Signal]]


def same(image: Pixels) -> Pixels:
    return image


def defocused(sigma: float) -> Callable[[Pixels], Pixels]:
    return lambda image: np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.uint8)


def autumn(image: Pixels) -> Pixels:
    """Green turns to brown, and the sun stands lower: blue and green less, red more."""
    return np.asarray(np.clip(image * np.array([0.75, 0.8, 1.05]), 0, 255), np.uint8)


def looked_at(change: Callable[[Pixels], Pixels], detect: Task) -> list[Looks]:
    """What is counted of each frame, for each light."""
    film, frames = cv2.VideoCapture(str(FILM)), list[Pixels]()
    while (read := film.read())[0]:
        frames.append(np.asarray(read[1], np.uint8))
    found = list[Looks]()
    for light in LIGHTS:
        looks = []
        for image in frames[::EACH]:
            lit = np.asarray(np.clip(change(image).astype(np.float32) * light, 0, 255), np.uint8)
            frame = Frame(lit, 0.0, 0.0)
            looks.append(list(signals_of(frame, detect(frame))))
        found.append(looks)
        print(f"  light {light}: {len(looks)} frames", file=sys.stderr, flush=True)
    return found


def heard(voices: Sequence[str], decibels: float | None, transcribe: Task, classify: Task) -> Looks:
    """What is counted of each sentence, each in one of the voices, in noise of so many dB less."""
    labels = toml.load(ROOT / "deploy" / "demo" / "intents.toml", 1 << 20, dict[str, dict[str, list[str]]])["labels"]
    said = [text for texts in labels.values() for text in texts] + list(SENTENCES)
    found = []
    for at, text in enumerate(text for text in said if not re.search(r"\d|lol|asdf|E05", text)):
        audio = Audio(noisy(espeak(text, voices[at % len(voices)], 160), decibels, at), 0.0, 0.0, last=True)
        texts = list[str]()
        with suppress(InputError):  # nothing can be told of it
            texts = [one.text for one in transcribe(audio) if isinstance(one, Text)]
        for one in texts or [""]:
            sample = Text(one, 0.0, 0.0)
            found.append(list(signals_of(sample, classify(sample) if one else ())))
    unknown = [float(value) for signals in found for signal, value in signals if signal == "unknown"]
    print(f"  {', '.join(voices)}, {decibels} dB: {len(found)} texts, {np.mean(unknown):.3f} unknown", file=sys.stderr)
    return found


class Hours:
    """One pipeline, hour after hour."""

    def __init__(self, seed: int) -> None:
        self.drift, self.hour, self.chance = Drift(LEARNED * HOUR), 0, np.random.default_rng(seed)

    def live(self, hours: int, draw: Callable[[Hours], Looks]) -> list[tuple[int, str]]:
        """(hours from here, signal) of what drifted anew."""
        begin, said = self.hour, list[tuple[int, str]]()
        for self.hour in range(begin, begin + hours):
            before = set(self.drift.drifted)
            for signals in draw(self):
                for signal, value in signals:
                    self.drift.add(self.hour * HOUR + 1, signal, value)
            self.drift.tick((self.hour + 1) * HOUR + 1)
            said += [(self.hour - begin + 1, signal) for signal in sorted(set(self.drift.drifted) - before)]
        self.hour += 1
        return said

    def light(self) -> int:
        """That of this hour: by the time of day, and better or worse by the day's weather."""
        day = np.sin(np.pi * (self.hour % 24) / 24) ** 2
        weather = np.random.default_rng(self.hour // 24).uniform(-0.1, 0.1)
        return int(np.abs(np.array(LIGHTS) - (0.45 + 0.6 * day + weather)).argmin())


def stretch(lights: list[Looks]) -> Callable[[Hours], Looks]:
    """A stretch of the film in the light of the hour."""

    def draw(hours: Hours) -> Looks:
        looks = lights[hours.light()]
        begin = int(hours.chance.integers(len(looks) - LOOKS))
        return looks[begin : begin + LOOKS]

    return draw


def some(looks: Looks) -> Callable[[Hours], Looks]:
    return lambda hours: [looks[at] for at in hours.chance.integers(len(looks), size=LOOKS)]


def row(name: str, usual: Callable[[Hours], Looks], changed: Callable[[Hours], Looks], seeds: int = 5) -> str:
    alarms, noticed = [], list[str]()
    for seed in range(seeds):
        hours = Hours(seed)
        hours.live(LEARNED + 2, usual)
        alarms.append(len(hours.live(QUIET, usual)))
        first = dict[int, list[str]]()
        for hour, signal in hours.live(AFTER, changed):
            first.setdefault(hour, []).append(signal)
        noticed.append(f"{min(first)} h ({', '.join(first[min(first)])})" if first else "not noticed")
    return f"| {name} | {', '.join(map(str, alarms))} | {'; '.join(noticed)} |"


def main() -> None:
    models = Models(threads=2)
    detect, transcribe, classify = (
        make_task(parse_task(uri), models.serve, home())
        for uri in (
            "detect:yolox-nano",
            "transcribe:whisper-tiny",
            f"classify:edge-bert?labels={ROOT / 'deploy' / 'demo' / 'intents.toml'}",
        )
    )
    rows = []
    if "camera" in sys.argv[1:] or not sys.argv[1:]:
        usual = looked_at(same, detect)
        for name, change in (
            ("out of focus, sigma 2 pixels", defocused(2)),
            ("out of focus, sigma 5 pixels", defocused(5)),
            ("colours of autumn", autumn),
        ):
            rows += [row(name, stretch(usual), stretch(looked_at(change, detect)))]
    if "microphone" in sys.argv[1:] or not sys.argv[1:]:
        voices = some(heard(USUAL, None, transcribe, classify))
        rows += [row("other voices and accents", voices, some(heard(ACCENT, None, transcribe, classify)))]
        rows += [row("the same in noise of 0 dB", voices, some(heard(ACCENT, 0, transcribe, classify)))]
    print("| what changed | false alarms in 30 quiet days, five seeds | noticed after |\n|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
