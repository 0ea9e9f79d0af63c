"""A recording: the samples of an agent's pipelines as they came, to be answered once more. A folder of files:

recording.json   what answered them: config, models with their hashes (Head)
samples.jsonl    a row for each sample, for what sources said of themselves and for what ended, in their order (Row)
events.jsonl     the events that came of them
data/            pictures as PNG (nothing of them is lost) and sound as 32-bit floats
files/           labels and documents that the config names
state/           what the store knew of earlier runs, where the recording begins with the agent
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent import paths
from edge_agent.config import Config
from edge_agent.errors import InputError
from edge_agent.events import UNREADABLE
from edge_agent.files import open_regular, read_regular
from edge_agent.got import Heard, Read
from edge_agent.types import Audio, Frame, Sample, StreamState, Text

HEAD, ROWS, EVENTS, DATA, FILES, STATE = "recording.json", "samples.jsonl", "events.jsonl", "data", "files", "state"
MOST_HEAD, MOST_ROW, MOST_PICTURE, MOST_SOUND = 2_000_000, 1_000_000, 200_000_000, 20_000_000
"""bytes"""
NAME = re.compile(r"[0-9]{6,12}\.(png|f32)")
"""of a file in DATA"""


class Answered(msgspec.Struct, frozen=True):
    """A model that answered."""

    asked: str
    """what the config calls it"""
    name: str
    version: str
    sha256: str
    """of the file that answered"""
    beside: dict[str, str] = {}
    """role -> SHA-256 of the files beside it, such as its vocabulary"""


class Piped(msgspec.Struct, frozen=True):
    """What a recording knows of a pipeline's source."""

    yields: Literal["Frame", "Text", "Audio"]
    live: bool


class Head(msgspec.Struct, frozen=True):
    """What answered the samples of a recording."""

    v: Literal[1]
    program: str
    """version of edge-agent"""
    at: float
    """when it began, seconds since 1970 UTC"""
    zone_s: int
    """seconds by which the device's clock on the wall was before UTC"""
    fresh: bool
    """it begins with the agent: nothing came before it that a tracker or a rule remembers"""
    config: Config
    """device, pipelines, zones, rules, profiles, privacy; sources without what is secret"""
    pipes: dict[str, Piped]
    models: list[Answered]


class Sampled(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sample; see edge_agent/types.py for its fields."""

    at: float
    mono: float
    file: str = ""
    """in DATA, where it is no text"""
    text: str = ""
    heard: Heard | None = None
    read: Read | None = None
    name: str = ""
    played: float | None = None
    cut: tuple[int, int] = (0, 0)
    decode_ms: float = 0.0
    rate: int = 0
    """of sound"""
    last: bool = False


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened next: one of sample, state, ended and profile."""

    pipeline: str
    wall: float
    """when it was dealt with, seconds since 1970 UTC"""
    mono: float
    """the same, seconds of the monotonic clock"""
    sample: Sampled | None = None
    state: StreamState | None = None
    ended: bool = False
    """no more comes of this pipeline"""
    stopped: bool = False
    """since the agent was told to stop"""
    profile: str = ""
    """that became active"""
    lost: int = 0
    """samples before this one that were answered and are not here, as the disk was too slow"""


def place() -> Path:
    """Where the agent's own recordings are."""
    return paths.home() / "recordings"


def parts(at: Path | None = None) -> list[Path]:
    """The recordings below a folder (the agent's own), in no order; their names begin with when they began."""
    at = at or place()
    return [one for one in at.iterdir() if (one / HEAD).is_file()] if at.is_dir() else []


def read_head(folder: Path) -> Head:
    """InputError, one line, where that is no recording that can be read."""
    try:
        return msgspec.json.decode(read_regular(folder / HEAD, MOST_HEAD), type=Head)
    except OSError as error:
        why = f"there is no {HEAD} in it" if isinstance(error, FileNotFoundError) else error.strerror
        raise InputError(f"{folder}: no recording: {why}; give a folder that `edge-agent record` made") from None
    except UNREADABLE as error:
        raise InputError(f"{folder / HEAD}: {error}; it is damaged, or of another version of edge-agent") from None


def rows(folder: Path) -> Iterator[Row]:
    """Each row in its order. InputError for one that cannot be read; the last one may be cut off, as by a power cut."""
    decode = msgspec.json.Decoder(Row).decode
    try:
        with os.fdopen(open_regular(folder / ROWS), "rb") as file:
            number = 0
            while line := file.readline(MOST_ROW):
                number += 1
                try:
                    row = decode(line)
                except UNREADABLE as error:
                    if not line.endswith(b"\n") and len(line) < MOST_ROW:
                        return
                    raise InputError(f"{folder / ROWS}: line {number}: {error}; the recording is damaged") from None
                yield row
    except OSError as error:
        raise InputError(f"{folder / ROWS}: {error.strerror}; the recording is not whole") from None


def missing(folder: Path) -> str:
    """The first file that a row names and that is not there; empty where all are."""
    for row in rows(folder):
        if row.sample is not None and row.sample.file and not _data(folder, row.sample.file).is_file():
            return f"{DATA}/{row.sample.file}"
    return ""


def sample_of(folder: Path, row: Sampled, later: float = 0.0) -> Sample:
    """The sample of a row, `later` by so many seconds of the monotonic clock. InputError for one that is damaged."""
    mono = row.mono + later
    if not row.file:
        return Text(row.text, row.at, mono, None, row.heard or row.read)
    path = _data(folder, row.file)
    try:
        raw = read_regular(path, MOST_PICTURE if path.suffix == ".png" else MOST_SOUND)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; the recording is not whole") from None
    if path.suffix == ".f32":
        if len(raw) % 4:
            raise InputError(f"{path}: {len(raw)} bytes are no 32-bit floats; the recording is damaged")
        import numpy as np

        return Audio(np.frombuffer(raw, "<f4"), row.at, mono, row.rate or 16_000, row.last, row.name)
    from edge_agent.pictures.read import decode

    return Frame(decode(raw), row.at, mono, row.name, row.decode_ms, row.played, row.cut)


def _data(folder: Path, name: str) -> Path:
    """A file in DATA. InputError for a name that is none of ours: it may point elsewhere."""
    if not NAME.fullmatch(name):
        raise InputError(f'{folder / ROWS}: "{name[:40]}" is no file of a recording; it is damaged')
    return folder / DATA / name


def events(folder: Path) -> list[bytes]:
    """Those that came of it, as JSON."""
    try:
        with os.fdopen(open_regular(folder / EVENTS), "rb") as file:
            return [line for line in file if line.endswith(b"\n")]
    except OSError as error:
        raise InputError(f"{folder / EVENTS}: {error.strerror}; the recording is not whole") from None


ASIDE = {"id", "epoch", "seq", "device", "at", "since", "age_ms", "spent_ms", "snapshot", "clip", "repeats"}
"""fields of events that hold times, numbers of the store and names of pictures"""


def plain(said: list[bytes]) -> dict[str, list[bytes]]:
    """Pipeline -> its events without times and ids: objects and events are numbered as they are first named there."""
    found: dict[str, list[bytes]] = {}
    named: dict[str, dict[str, str]] = {}
    of_event: dict[str, str] = {}
    for line in said:
        event = msgspec.json.decode(line)
        pipeline = event["pipeline"] if event["kind"] != "rule" else "rules"
        rows, names = found.setdefault(pipeline, []), named.setdefault(event["pipeline"], {})
        of_event[event["id"]] = f"{pipeline} {len(rows) + 1}"
        rows.append(msgspec.json.encode(_plain(event, names, of_event), order="sorted"))
    return found


def _plain(value: object, names: dict[str, str], of_event: dict[str, str]) -> object:
    """A value of an event without ASIDE."""
    if isinstance(value, list):
        return [_plain(one, names, of_event) for one in value]
    if not isinstance(value, dict):
        return value
    made = {key: _plain(one, names, of_event) for key, one in value.items() if key not in ASIDE}
    if isinstance(value.get("object"), str):
        made["object"] = names.setdefault(value["object"], f"object {len(names) + 1}")
    if "because" in value:
        made["because"] = [of_event.get(one, "") for one in value["because"]]
    return made


def differences(then: list[bytes], now: list[bytes]) -> list[str]:
    """Where the events of two runs are not the same, times and ids aside, a line each."""
    before, after = plain(then), plain(now)
    told = []
    for pipeline in sorted({*before, *after}):
        old, new = before.get(pipeline, []), after.get(pipeline, [])
        pairs = enumerate(zip(old, new, strict=False), 1)
        told += [f"{pipeline}: event {at}: {_first(a, b)}" for at, (a, b) in pairs if a != b]
        if len(old) != len(new):
            told.append(f"{pipeline}: {len(new)} events, not {len(old)}")
    return told


def _first(old: bytes, new: bytes) -> str:
    """The first field that is not the same."""
    before, after = msgspec.json.decode(old), msgspec.json.decode(new)
    key = next(key for key in [*before, *after] if before.get(key) != after.get(key))
    return f"{key} is {str(after.get(key))[:60]}, not {str(before.get(key))[:60]}"
