"""What is normal, and what is not, as arrays: pictures and films, recordings, or a series of numbers."""

from __future__ import annotations

import threading
import wave
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from edge_agent.errors import InputError, UsageError
from edge_agent.pictures.read import cv2, read_picture
from edge_agent.sources import open_source
from edge_agent.sources.listing import PICTURES, VIDEOS
from edge_agent.tasks.anomaly.learned import SECONDS, log_mel
from edge_agent.tasks.anomaly.series import point
from edge_agent.tasks.transcribe.mel import RATE
from edge_agent.types import Audio, Floats, Frame, Text
from edge_agent.uri import Uri
from edge_agent.workshop.evaluate.labels import NORMAL

SIDE = 64
"""pixels a side of a picture"""
WINDOW = 32
"""points of a series that go in at once"""
FEWEST, MOST, MOST_WINDOWS = 40, 20_000, 4000
"""normal samples, and windows of one table"""
Kind = Literal["frames", "sound", "series"]


@dataclass
class Data:
    """Samples as they go into a network, and as they were."""

    kind: Kind
    normal: Floats
    """frames (n, 3, SIDE, SIDE) in 0..1, RGB; sound (n, 1, BANDS, MOMENTS); series (n, WINDOW)"""
    odd: Floats
    """the same of samples that are labelled as unusual; none: (0, …)"""
    whole: list[Floats] = field(default_factory=list)
    """of frames: the normal pictures and then the unusual ones, (224, 288, 3) uint8 BGR, for the detector's features"""
    film: bool = False
    """neighbours are alike: parts are cut in order of time"""
    bad: list[str] = field(default_factory=list)
    """what could not be read, a line each"""


def read(path: Path) -> Data:
    """A folder (of pictures, films or recordings; or `normal` and others in it), a film, a recording, or a table of
    numbers. UsageError for what is none of these, or too little.
    """
    if not path.exists():
        raise UsageError(f"--data {path}: is not there")
    usual, others = _labelled(path)
    files = _files(usual or [path])
    kind = _kind(path, files)
    data = Data(kind, np.zeros(0, np.float32), np.zeros(0, np.float32))
    data.normal = _stacked(data, files)
    data.odd = _stacked(data, _files(others))
    data.film = kind != "frames" or any(_is(file, VIDEOS) for file in files)
    if len(data.normal) < FEWEST:
        more = f" ({data.bad[0]})" if data.bad else ""
        raise UsageError(f"--data {path}: {len(data.normal)} normal samples; give {FEWEST} at least{more}")
    if float(np.ptp(data.normal)) == 0:
        raise UsageError(f"--data {path}: all samples are the same to the bit: there is nothing to learn")
    return data


def _labelled(path: Path) -> tuple[list[Path], list[Path]]:
    """Folders of what is normal, and of what is not; nothing where none is called so."""
    folders = [each for each in sorted(path.iterdir()) if each.is_dir()] if path.is_dir() else []
    usual = [each for each in folders if each.name.casefold() in NORMAL]
    return usual, [each for each in folders if each not in usual] if usual else []


def _files(folders: list[Path]) -> list[Path]:
    found = [each for folder in folders for each in (sorted(folder.rglob("*")) if folder.is_dir() else [folder])]
    return [each for each in found if each.is_file()]


def _is(file: Path, suffixes: object) -> bool:
    return file.suffix.lower() in suffixes  # type: ignore[operator]


def _kind(path: Path, files: list[Path]) -> Kind:
    for kind, suffixes in (
        ("frames", (*PICTURES, *VIDEOS)),
        ("sound", (".wav",)),
        ("series", (".csv", ".txt", ".jsonl")),
    ):
        if any(_is(file, suffixes) for file in files):
            return kind  # type: ignore[return-value]
    raise UsageError(f"--data {path}: no pictures, films, .wav, or tables of numbers (.csv, .txt, .jsonl) in it")


def _stacked(data: Data, files: list[Path]) -> Floats:
    read_one = {"frames": _frames, "sound": _sounds, "series": _points}[data.kind]
    found: list[Floats] = []
    for file in files:
        try:
            found += read_one(data, file)
        except (InputError, OSError, wave.Error, EOFError) as error:
            data.bad.append(f"{file.name}: {error}")
        if len(found) > MOST:
            raise UsageError(f"--data: more than {MOST} samples; give fewer")
    return np.stack(found).astype(np.float32) if found else np.zeros((0, 1), np.float32)


def _frames(data: Data, file: Path) -> list[Floats]:
    if _is(file, VIDEOS):
        items = open_source(Uri("files", str(file), {"dark": "off", "frozen": "off"})).run(threading.Event())
        frames = [item for item in items if isinstance(item, Frame)]
        frames = frames[:: max(1, len(frames) // 600)]
    elif _is(file, PICTURES):
        frames = [read_picture(file)]
    else:
        return []
    for frame in frames:
        data.whole.append(cv2.resize(frame.image, (288, 224), interpolation=cv2.INTER_AREA))  # type: ignore[arg-type]
    return [as_input(frame.image) for frame in frames]


def as_input(image: object) -> Floats:
    """(h, w, 3) uint8 BGR -> (3, SIDE, SIDE) RGB in 0..1, as the manifest says."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)  # type: ignore[call-overload]
    found: Floats = small[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    return found


def _sounds(data: Data, file: Path) -> list[Floats]:
    if not _is(file, (".wav",)):
        return []
    items = open_source(Uri("files", str(file))).run(threading.Event())
    heard = [item.samples for item in items if isinstance(item, Audio)]
    sound, size = np.concatenate(heard) if heard else np.zeros(0, np.float32), round(SECONDS * RATE)
    return [log_mel(sound[at : at + size])[None] for at in range(0, len(sound) - size + 1, size)]


def _points(data: Data, file: Path) -> list[Floats]:
    x: list[float] = []
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines):
            try:
                x.append(point(Text(line.strip() or "-", 0.0, 0.0), "value", "time")[1])
            except InputError as error:
                if number:
                    data.bad.append(f"{file.name}, line {number + 1}: {error}")
    if len(x) < WINDOW:
        return []
    windows = np.lib.stride_tricks.sliding_window_view(np.array(x, np.float32), WINDOW)
    return list(windows[:: -(-len(windows) // MOST_WINDOWS)])
