"""Pictures, or lines of numbers, with one label each: a folder a label, or a table of files and labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import UsageError
from edge_agent.pictures.read import read_picture
from edge_agent.sources.listing import PICTURES
from edge_agent.types import Frame, Text
from edge_agent.workshop.data.texts import LABEL_NAMES, column, numbers_of, rows_of, spread, text_of

NUMBERS = (".txt", ".csv", ".bin")
"""files of numbers: a sample a line, or one recording as float32, low byte first"""
TABLES = (".csv", ".tsv", ".json")
INSIDE = tuple(f"labels{suffix}" for suffix in TABLES)
"""names under which a folder's table is looked for"""
FILE_NAMES = ("file", "file_name", "filename", "image", "path", "picture", "sample", "name", "numbers")
GIVE = "give a folder with a folder for each label in it, or a .csv, .tsv or .json file of file and label"


@dataclass(frozen=True, slots=True)
class LabelledSample:
    """One sample, not read yet."""

    name: str
    what: Path | str
    """a picture, a recording, or a line of numbers"""
    label: str | None

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture file."""
        return isinstance(self.what, Path) and self.what.suffix.lower() in PICTURES

    def read(self) -> Frame | Text:
        """InputError for a file that cannot be read."""
        if isinstance(self.what, str):
            return Text(self.what, 0.0, 0.0)
        if self.is_picture:
            return read_picture(self.what)
        return Text(" ".join(f"{x:.9g}" for x in numbers_of(self.what)), 0.0, 0.0)


def read_rows(data: Path, pictures: bool, limit: int = 0) -> list[LabelledSample]:
    """The samples of `data`, at most `limit` of them (0: all), spread evenly.

    A folder: its table (labels.csv, .tsv or .json), else a folder for each label in it, else its own files without
    labels. A table: a file and a label a row, the files beside it; for numbers the numbers themselves may stand there.
    JSON is a list of objects with these keys, or an object file -> label. `pictures`: whether these are pictures or
    numbers. UsageError, one line, for what is none of these, and for nothing.
    """
    rows = _rows(data, pictures)
    if not rows:
        what = "picture" if pictures else f"file of numbers ({', '.join(NUMBERS)})"
        raise UsageError(f"{data}: no {what} in it; {GIVE}")
    return [rows[i] for i in spread(len(rows), limit)]


def _rows(data: Path, pictures: bool) -> list[LabelledSample]:
    """All samples of `data`."""
    suffixes = tuple(PICTURES) if pictures else NUMBERS
    table = next(filter(Path.is_file, (data / name for name in INSIDE)), data)
    if table.suffix.lower() in TABLES:
        return _table(table, pictures)
    if data.is_dir():
        return _folder(data, suffixes)
    if data.is_file() and not pictures and data.suffix.lower() in suffixes:
        return list(_samples(data, None))
    there = "not such data" if data.exists() else "no such file or folder"
    raise UsageError(f"{data}: {there}; {GIVE}")


# ── folders ──────────────────────────────────────────────────────────────────────────────────────────────


def _folder(data: Path, suffixes: tuple[str, ...]) -> list[LabelledSample]:
    """The files of a folder for each label; where there is none (or `images` alone) those beside it, without labels."""
    folders = [path for path in sorted(filter(Path.is_dir, data.iterdir())) if path.name[0] != "."]
    inner: dict[str | None, list[Path]] = {folder.name: _files(folder.rglob("*"), suffixes) for folder in folders}
    if not any(inner.values()) or list(inner) == ["images"]:
        inner = {None: _files(data.iterdir(), suffixes) or inner.get("images", [])}
    return [one for label, paths in inner.items() for path in paths for one in _samples(path, label)]


def _files(paths: Iterator[Path], suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in suffixes and path.is_file())


def _samples(path: Path, label: str | None) -> Iterator[LabelledSample]:
    """A picture or a recording is one sample, of other files each line is."""
    if path.suffix.lower() not in (".txt", ".csv"):
        yield LabelledSample(path.name, path, label)
        return
    for number, line in enumerate(text_of(path, GIVE).splitlines(), 1):
        if line.strip():
            yield LabelledSample(f"{path.name}:{number}", line, label)


# ── tables ───────────────────────────────────────────────────────────────────────────────────────────────


def _table(path: Path, pictures: bool) -> list[LabelledSample]:
    pairs = _json(path) if path.suffix.lower() == ".json" else _columns(path)
    rows: list[LabelledSample] = []
    for number, (what, label) in enumerate(pairs, 1):
        file = path.parent / what if len(what) < 1024 and "\0" not in what else None
        if file is not None and file.is_file():
            rows += _samples(file, label) if not pictures else [LabelledSample(what, file, label)]
        elif pictures:
            raise UsageError(f"{path}: row {number}: {what[:80]} is not there; paths count from the table's folder")
        else:
            rows.append(LabelledSample(f"{path.name}:{number}", what, label))
    return rows


def _json(path: Path) -> list[tuple[str, str]]:
    try:
        found = msgspec.json.decode(text_of(path, GIVE))
    except msgspec.DecodeError as error:
        raise UsageError(f"{path}: broken JSON: {error}") from None
    if isinstance(found, dict) and "annotations" in found:
        raise UsageError(f"{path}: COCO's boxes are for detectors; {GIVE}")
    if isinstance(found, dict):
        found = [{"file": key, "label": value} for key, value in found.items()]
    pairs = []
    for number, row in enumerate(found if isinstance(found, list) else [None], 1):
        pair = _pair(row)
        if pair is None:
            raise UsageError(f'{path}: entry {number} names no file and label; write {{"file": …, "label": …}}')
        pairs.append(pair)
    return pairs


def _pair(row: Any) -> tuple[str, str] | None:
    """File (or numbers) and label of an entry; None where it has not both."""
    if not isinstance(row, dict):
        return None
    what, label = (next((row[key] for key in keys if key in row), None) for keys in (FILE_NAMES, LABEL_NAMES))
    if isinstance(what, list):
        what = " ".join(map(str, what))
    return (what, str(label)) if isinstance(what, str) and isinstance(label, str | int) else None


def _columns(path: Path) -> list[tuple[str, str]]:
    rows = rows_of(path, GIVE, path.suffix.lower() == ".tsv")
    head = rows[0] if rows else []
    file, label = column(head, FILE_NAMES), column(head, LABEL_NAMES)
    if file is None or label is None:
        raise UsageError(f'{path}: its first row names no columns "file" and "label"; {GIVE}')
    return [(row[file].strip(), row[label].strip()) for row in rows[1:]]
