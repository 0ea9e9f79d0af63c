"""Texts with labels: tables of tabs or commas, ATIS's .iob, or plain lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, UsageError
from edge_agent.files import read_regular

TEXT_NAMES = ("text", "sentence", "content", "utterance", "query", "question", "message", "review", "phrase", "line")
LABEL_NAMES = ("label", "labels", "intent", "class", "category", "target", "sentiment", "y")


GIVE = "give a .tsv, .csv, .iob or .txt file"
MOST_BYTES = 256_000_000
"""of a file of texts or numbers: it is read whole, and its lines take several times as much memory"""


@dataclass(frozen=True, slots=True)
class Texts:
    """Lines of text; `labels` of the same length, or None where there are none."""

    texts: list[str]
    labels: list[str] | None
    how: str
    """how the file was read, for people"""
    skipped: int = 0
    """rows without a text"""

    def notes(self) -> list[str]:
        """How the file was read and what was left out, for people."""
        return [self.how, f"{self.skipped} rows without text are left out"] if self.skipped else [self.how]


def read_texts(path: Path, limit: int = 0) -> Texts:
    """Read a file as its shape says; `limit`: so many rows at most, spread evenly.

    A line ``BOS words EOS<tab>tags intent`` is ATIS's; of joined intents (a#b) the first counts. A table has a header
    that names a text and a label column, or two columns of which the one with fewer different (else shorter) values is
    the label. Other files are one text a line. UsageError, one line, for what cannot be read or told apart, and for
    an empty file.
    """
    raw = text_of(path, GIVE)
    lines = [line for line in raw.replace("\r\n", "\n").split("\n") if line.strip()]
    if not lines:
        raise UsageError(f"{path}: no text in it; there is nothing to measure")
    read = _by_shape(path, lines)
    keep = [i for i, text in enumerate(read.texts) if text.strip()]
    if not keep:
        raise UsageError(f"{path}: no text in it; there is nothing to measure")
    picked = [keep[i] for i in spread(len(keep), limit)]
    labels = None if read.labels is None else _at(read.labels, picked)
    return Texts(_at(read.texts, picked), labels, read.how, len(read.texts) - len(keep))


def _at(values: Sequence[str], places: Sequence[int]) -> list[str]:
    return [values[place].strip() for place in places]


def _by_shape(path: Path, lines: list[str]) -> Texts:
    """The rows of a file; `lines`: those that are not blank."""
    if is_atis(lines):
        rows = [(" ".join(words[1:-1]), tags[-1].partition("#")[0]) for words, tags in atis(path, lines)]
        how = 'ATIS: words, tags and intent (the first of those joined by "#")'
        return Texts([text for text, _ in rows], [label for _, label in rows], how)
    tabs = path.suffix.lower() != ".csv" and all("\t" in line for line in lines)
    if tabs or path.suffix.lower() in (".csv", ".tsv"):
        return _table(path, rows_of(path, GIVE, tabs or path.suffix.lower() == ".tsv"))
    return Texts(lines, None, "one text a line")


def text_of(path: Path, give: str) -> str:
    """What a text file holds. UsageError, which ends in `give`, for one that is not UTF-8, or above MOST_BYTES."""
    try:
        return read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); {give}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no UTF-8 text (byte {error.start}); {give}") from None


def numbers_of(path: Path) -> npt.NDArray[np.float32]:
    """The float32, low byte first, of a file. InputError, without the path, for none, or a file above MOST_BYTES."""
    try:
        return np.frombuffer(read_regular(path, MOST_BYTES), "<f4")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"cannot be read as float32 numbers ({why})") from None


def is_atis(lines: Sequence[str]) -> bool:
    """Whether they are ATIS's ``BOS words EOS<tab>tags intent``."""
    return bool(lines) and lines[0].startswith("BOS ") and "\t" in lines[0]


def atis(path: Path, lines: Sequence[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Words, BOS and EOS among them, and tags of each line, with the intent in the place of the last one."""
    for line in filter(str.strip, lines):
        words, tags = (part.split() for part in (line.partition("\t")[::2]))
        if words[:1] != ["BOS"] or words[-1:] != ["EOS"] or not tags:
            raise UsageError(f'{path}: "{line[:40]}" is no line BOS words EOS<tab>tags intent')
        yield words, tags


def rows_of(path: Path, give: str, tabs: bool) -> list[list[str]]:
    """The rows of a table that are not blank, parted by tabs, else by commas with cells in quotation marks.

    UsageError, which ends in `give`, for what is none, and where a row is not as long as the first.
    """
    text = io.StringIO(text_of(path, give), newline="")
    try:
        every = csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(text)
        rows = [row for row in every if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{path}: broken table: {error}") from None
    odd = next((at for at, row in enumerate(rows, 1) if len(row) != len(rows[0])), None)
    if odd is not None:
        raise UsageError(
            f"{path}: row {odd} has {len(rows[odd - 1])} columns, the first has {len(rows[0])}; quote or mend it"
        )
    return rows


def _table(path: Path, rows: list[list[str]]) -> Texts:
    named = _named_columns(rows[0]) if rows else None
    rows = rows[1:] if named else rows
    if not rows:
        raise UsageError(f"{path}: a header and no row; there is nothing to measure")
    text, label = named or _likely_columns(path, rows)
    texts = [row[text] for row in rows]
    if label is None:
        return Texts(texts, None, "one text a row")
    return Texts(texts, [row[label] for row in rows], f"text is column {text + 1}, label column {label + 1}")


Columns = tuple[int, int | None]
"""numbers of the text's and, where there is one, of the label's"""


def _named_columns(header: Sequence[str]) -> Columns | None:
    """Those that a header names; of two columns one name says it of both. None where it is no header."""
    text, label = column(header, TEXT_NAMES), column(header, LABEL_NAMES)
    if len(header) == 2 and label is not None:
        return 1 - label, label
    if len(header) == 2 and text is not None:
        return text, 1 - text
    return None if text is None or (label is None and len(header) > 1) else (text, label)


def column(header: Sequence[str], names: Sequence[str]) -> int | None:
    """The number of the column that a header names by one of `names`, the first ones first; None where it does not."""
    head = [cell.strip().casefold() for cell in header]
    return next((head.index(name) for name in names if name in head), None)


def _likely_columns(path: Path, rows: Sequence[Sequence[str]]) -> Columns:
    """Those of a table without a header: of two columns the text has more different values, else more letters."""
    width = len(rows[0])
    if width > 2:
        raise UsageError(f'{path}: {width} columns and no header that names two of them "text" and "label"; add it')
    if width == 1:
        return 0, None
    one, two = ((len({row[i] for row in rows}), sum(len(row[i]) for row in rows)) for i in (0, 1))
    if one == two:
        raise UsageError(f'{path}: which column is the text? add a first row of "text" and "label"')
    return (0, 1) if one > two else (1, 0)


def spread(count: int, limit: int) -> list[int]:
    """Indices of at most `limit` (0: all) of `count`, spread evenly, the first and the last among them."""
    if not limit or limit >= count:
        return list(range(count))
    return sorted({int(i) for i in np.linspace(0, count - 1, limit).round()})
