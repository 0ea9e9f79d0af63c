"""What a disk may hold after a power cut, rebuilt from the log of a store at work (tests/faults/record.py).

The model is the strictest that POSIX allows. What a file's last fdatasync covered is there. Each write after it is
there, absent or cut at a sector, each for itself and in any order; where a later one is there and an earlier one is
not, zeros stand between. Names made, changed or deleted since the folder's last fsync may be so or not yet.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

SECTOR = 512

Change = tuple[Any, ...]


@dataclass
class File:
    """One file's bytes that are safe, and its changes that are not yet."""

    safe: bytes = b""
    changes: list[Change] = field(default_factory=list)

    def content(self, changes: list[Change]) -> bytes:
        raw = bytearray(self.safe)
        for change in changes:
            if change[0] == "truncate":
                del raw[change[1] :]
                raw.extend(bytes(change[1] - len(raw)))
            else:
                _, at, data = change
                raw.extend(bytes(max(0, at - len(raw))))
                raw[at : at + len(data)] = data
        return bytes(raw)

    def survives(self, rng: random.Random) -> bytes:
        """The file as one power cut may leave it."""
        how = rng.choice(("all", "none", "first ones", "any"))
        kept: list[Change] = []
        for change in self.changes:
            if how == "none" or (how == "any" and rng.random() < 0.5):
                continue
            if how == "first ones" and rng.random() < 0.3:
                if change[0] == "write":  # the last one is torn
                    cut = rng.randrange(0, len(change[2]) + 1)
                    kept.append((*change[:2], change[2][: cut if rng.random() < 0.5 else cut // SECTOR * SECTOR]))
                break
            kept.append(change)
        return self.content(kept)


class Disk:
    """A folder of files, followed change by change."""

    def __init__(self) -> None:
        self.names: dict[str, File] = {}
        self.safe: dict[str, File] = {}
        self.renames: list[tuple[str, str, File | None]] = []
        """changes of names since the folder's last fsync: ("set" or "rename FROM" or "unset", name, file)"""

    def apply(self, op: list[Any]) -> None:
        """One entry of the log; what tells no change of a file is passed over."""
        what = op[0]
        if what == "create":
            self.names[op[1]] = File()
            self.renames.append(("set", op[1], self.names[op[1]]))
        elif what == "write":
            self.names[op[1]].changes.append(("write", op[2], op[3]))
        elif what == "truncate":
            self.names[op[1]].changes.append(("truncate", op[2]))
        elif what == "sync":
            file = self.names[op[1]]
            file.safe, file.changes = file.content(file.changes), []
        elif what == "rename":
            self.names[op[2]] = self.names.pop(op[1])
            self.renames.append((f"rename {op[1]}", op[2], self.names[op[2]]))
        elif what == "unlink":
            del self.names[op[1]]
            self.renames.append(("unset", op[1], None))
        elif what == "folder":
            self.safe, self.renames = dict(self.names), []

    def image(self, rng: random.Random) -> dict[str, bytes]:
        """Name -> contents after one possible power cut now."""
        names = dict(self.safe)
        how = rng.choice(("all", "first ones", "any"))
        for what, name, file in self.renames:
            if how == "first ones" and rng.random() < 0.2:
                break
            if how == "any" and rng.random() < 0.5:
                continue
            if what.startswith("rename "):
                names.pop(what.removeprefix("rename "), None)
            if file is None:
                names.pop(name, None)
            else:
                names[name] = file
        return {name: file.survives(rng) for name, file in names.items()}

    def killed(self) -> dict[str, bytes]:
        """Name -> contents as a killed process leaves them: every write is there."""
        return {name: file.content(file.changes) for name, file in self.names.items()}


@dataclass
class Facts:
    """What the world outside the store knows at one moment."""

    clock: float = 0.0
    put: dict[int, tuple[str, float]] = field(default_factory=dict)
    """seq -> kind and the store's clock when `put` had returned"""
    marks: dict[str, int] = field(default_factory=dict)
    """pipeline -> highest mark of an event whose `put` had returned"""
    given: int = 0
    """highest number that anyone outside has seen"""
    done: dict[int, bytes] = field(default_factory=dict)

    def learn(self, op: list[Any]) -> None:
        """One entry of the log."""
        if op[0] == "clock":
            self.clock = op[1]
        elif op[0] == "put":
            _, seq, kind, mark = op
            self.put[seq] = kind, self.clock
            self.marks[kind] = max(mark, self.marks.get(kind, -1))
            if kind == "alert":
                self.given = max(self.given, seq)
        elif op[0] == "taken":
            self.given = max(self.given, op[1])
        elif op[0] == "done":
            self.done[op[1]] = op[2]


def read_log(path: Path) -> Iterator[list[Any]]:
    """The entries of a log, oldest first; one that the end cut short is left out."""
    raw, at = path.read_bytes(), 0
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        body = raw[at + 4 : at + 4 + size]
        if len(body) < size:
            return
        yield msgspec.msgpack.decode(body)
        at += 4 + size


def lay_out(image: dict[str, bytes], folder: Path) -> Path:
    """Write an image into a fresh folder."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)
    return folder
