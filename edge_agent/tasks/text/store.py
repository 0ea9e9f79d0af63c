"""Sentences and their vectors on disk, searched from end to end.

A store is a folder with three files. `rows.N`: for each sentence four bytes of scale (float32) and its vector as int8,
value = number * scale. `texts.N`: for each sentence a line of JSON. `index.json`: the format's version, the model, how
many sentences and how many bytes of `texts.N` count, and N. Who adds appends to both, then replaces the index: what is
behind the numbers in the index does not count, so a store is as it was or as it should be, whenever the power fails.
Who takes away writes files of the next N. Little-endian.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent import files
from edge_agent.errors import ConfigError, InputError
from edge_agent.types import Floats

VERSION = 1
MOST = 1_000_000
"""sentences of a store"""
MOST_INDEX = 4096
"""bytes"""
CHUNK = 1024
"""rows that are widened to float32 at once: they stay in the processor's cache"""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Index(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What counts of the other files."""

    version: int
    model: str
    """its name, for people"""
    sha256: str
    """of the model's most precise network, whose variants give the same vectors"""
    dims: int
    count: int
    bytes: int
    """of the texts"""
    number: int
    """N"""


@dataclass(slots=True)
class Store:
    """The sentences of one name."""

    folder: Path
    model: str
    sha256: str
    _index: Index | None = None
    _seen: tuple[int, int] = (0, 0)
    _rows: npt.NDArray[Any] | None = None
    _texts: mmap.mmap | None = None
    _ends: npt.NDArray[np.int64] | None = None

    @property
    def count(self) -> int:
        """Sentences that are stored now."""
        self._refresh()
        return self._index.count if self._index else 0

    def nearest(self, vector: Floats, top: int) -> list[tuple[float, str]]:
        """Cosine and text of the stored sentences most like a vector of length 1, the best first."""
        self._refresh()
        if self._rows is None or self._index is None or not self._index.count:
            return []
        self._check_dims(len(vector))
        count = self._index.count
        cosine, part = np.empty(count, np.float32), np.empty((CHUNK, len(vector)), np.float32)
        for begin in range(0, count, CHUNK):
            rows = self._rows[begin : begin + CHUNK]
            wide = part[: len(rows)]
            np.copyto(wide, rows["vector"])
            np.dot(wide, vector, out=cosine[begin : begin + len(rows)])
        cosine *= self._rows["scale"][:count]
        best = np.argpartition(-cosine, min(top, count) - 1)[:top]
        return [(float(np.clip(cosine[i], -1, 1)), self.text(int(i))) for i in best[np.argsort(-cosine[best])]]

    def text(self, number: int) -> str:
        """One of the stored sentences."""
        assert self._texts is not None and self._ends is not None
        begin = int(self._ends[number - 1]) + 1 if number else 0
        return str(msgspec.json.decode(self._texts[begin : int(self._ends[number])]))

    def texts(self) -> list[str]:
        """All of them, in the order in which they were added."""
        return [self.text(number) for number in range(self.count)]

    def add(self, texts: Sequence[str], vectors: Floats) -> int:
        """Store sentences and their vectors (n, d) of length 1; how many were new. InputError where it is full."""
        with self._writing() as old:
            here = set(self.texts())
            new = {text: n for n, text in enumerate(texts) if text not in here}
            if not new:
                return 0
            if old.count + len(new) > MOST:
                raise InputError(f"{self.folder.name}: a store holds at most {MOST} sentences; take some away")
            if old.count:
                self._check_dims(vectors.shape[1])
            self._append(old, list(new), vectors[list(new.values())])
            return len(new)

    def remove(self, texts: Sequence[str]) -> int:
        """Take sentences away; how many were there."""
        with self._writing() as old:
            away = set(texts)
            keep = [n for n in range(old.count) if self.text(n) not in away]
            if len(keep) == old.count:
                return 0
            fresh = msgspec.structs.replace(old, number=old.number + 1, count=len(keep), bytes=0)
            assert self._rows is not None
            told = b"".join(msgspec.json.encode(self.text(n)) + b"\n" for n in keep)
            files.write_private(self._file("rows", fresh), self._rows[keep].tobytes(), confirm=True)
            files.write_private(self._file("texts", fresh), told, confirm=True)
            self._count_from(msgspec.structs.replace(fresh, bytes=len(told)))
            for kind in ("rows", "texts"):
                self._file(kind, old).unlink(missing_ok=True)
            return old.count - len(keep)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, old: Index, texts: Sequence[str], vectors: Floats) -> None:
        rows = quantized(vectors)
        told = b"".join(msgspec.json.encode(text) + b"\n" for text in texts)
        for kind, kept, data in (
            ("rows", old.count * rows.dtype.itemsize, rows.tobytes()),
            ("texts", old.bytes, told),
        ):
            path = self._file(kind, old)
            with contextlib.suppress(FileNotFoundError):
                os.truncate(path, kept)  # what a write that failed left behind
            files.write_private(path, data, append=True, confirm=True)
        self._count_from(
            msgspec.structs.replace(
                old, dims=vectors.shape[1], count=old.count + len(texts), bytes=old.bytes + len(told)
            )
        )

    def _count_from(self, index: Index) -> None:
        part = self.folder / ".index.json"
        files.write_private(part, msgspec.json.encode(index), confirm=True)
        part.replace(self.folder / "index.json")
        files.sync(self.folder)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Index]:
        """The index, while nobody else writes."""
        files.folder(self.folder, files.PRIVATE)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._refresh()
            yield self._index or Index(VERSION, self.model, self.sha256, 0, 0, 0, 1)
        finally:
            os.close(handle)

    def _refresh(self) -> None:
        """Look whether another index stands there. ConfigError for a store of another model or version, or a damaged
        one.
        """
        try:
            at = (self.folder / "index.json").stat()
        except OSError:
            return
        if (at.st_mtime_ns, at.st_ino) == self._seen:
            return
        index = self._read_index()
        rows, texts = self._file("rows", index), self._file("texts", index)
        kind = row_type(index.dims)
        try:
            if min(rows.stat().st_size - index.count * kind.itemsize, texts.stat().st_size - index.bytes) < 0:
                raise ConfigError(f"{self.folder}: the store is cut short; delete it and add its sentences anew")
            self._rows = np.memmap(rows, kind, "r", shape=(index.count,)) if index.count else None
            handle = files.open_regular(texts)
            try:
                self._texts = mmap.mmap(handle, index.bytes, prot=mmap.PROT_READ) if index.bytes else None
            finally:
                os.close(handle)
        except OSError as error:
            raise ConfigError(f"{self.folder}: the store cannot be read ({error.strerror or error})") from None
        raw = np.frombuffer(self._texts, np.uint8) if self._texts is not None else np.zeros(0, np.uint8)
        self._ends = np.flatnonzero(raw == 10)
        if len(self._ends) != index.count:
            raise ConfigError(f"{self.folder}: the store is damaged; delete it and add its sentences anew")
        self._index, self._seen = index, (at.st_mtime_ns, at.st_ino)

    def _read_index(self) -> Index:
        try:
            index = msgspec.json.decode(files.read_regular(self.folder / "index.json", MOST_INDEX), type=Index)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"{self.folder}/index.json: no index of a store ({error})") from None
        if index.version != VERSION:
            raise ConfigError(f"{self.folder}: a store of version {index.version}; this program reads {VERSION}")
        if not (0 <= index.count <= MOST and 0 <= index.dims <= 65_536 and index.bytes >= 0 and index.number >= 0):
            raise ConfigError(f"{self.folder}/index.json: numbers that no store has")
        if index.sha256 != self.sha256:
            raise ConfigError(
                f"{self.folder}: its vectors are of {index.model} {index.sha256[:12]}, which is not the "
                f"{self.model} {self.sha256[:12]} that is asked now; name another store, or add its sentences anew"
            )
        return index

    def _check_dims(self, dims: int) -> None:
        if self._index is not None and self._index.count and self._index.dims != dims:
            raise ConfigError(f"{self.folder}: its vectors have {self._index.dims} numbers, not {dims}")

    def _file(self, kind: str, index: Index) -> Path:
        return self.folder / f"{kind}.{index.number}"


def row_type(dims: int) -> np.dtype[Any]:
    """How one sentence's vector lies in the file."""
    return np.dtype([("scale", "<f4"), ("vector", "i1", (dims,))])


def quantized(vectors: Floats) -> npt.NDArray[Any]:
    """Vectors (n, d) as rows of the file."""
    scale = np.maximum(np.abs(vectors).max(axis=1), 1e-12) / 127
    rows = np.empty(len(vectors), row_type(vectors.shape[1]))
    rows["scale"], rows["vector"] = scale, np.rint(vectors / scale[:, None])
    return rows


def store_of(home: Path, name: str, model: str, sha256: str) -> Store:
    """The store of a name. ConfigError for a name that is none."""
    if not NAME.fullmatch(name):
        raise ConfigError(f'store "{name}": a name has 1 to 64 letters, digits, _ and -')
    return Store(home / "sentences" / name, model, sha256)
