"""What the store remembers besides its events: marks.json, and marks.old, the one before.

Where each pipeline's source resumes, and which segments there are, so that one that was removed, emptied or cut by
someone else is missed. Both files are JSON with a checksum, because a mark that was hit must not send a source to a
wrong place. When marks.json cannot be read the older one serves: a source then resumes earlier, and some lines come
twice rather than never; of segments the older one tells nothing.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from pathlib import Path

import msgspec

from edge_agent.files import write_private

log = logging.getLogger("edge_agent")


class Marks(msgspec.Struct, frozen=True):
    """The marks of all events up to `seq`, pipeline -> mark."""

    seq: int = 0
    marks: dict[str, int] = {}
    live: dict[str, list[tuple[int, int, int]]] = {}
    """class -> its segments' first seq, bytes (0: it is appended to) and events, oldest first"""
    newest: dict[str, list[list[int]]] = {}
    """class -> the seqs in its newest segment as runs [first, last]; told when the store was closed in order"""
    crc: int = 0
    """CRC-32 of the JSON with crc = 0"""

    def checked(self) -> Marks:
        """The same with its checksum."""
        return msgspec.structs.replace(self, crc=zlib.crc32(msgspec.json.encode(self)))


def save(folder: Path, marks: Marks) -> None:
    """Replace marks.json. The disk confirms the contents; that of the names is the caller's. Raises OSError."""
    fresh = folder / "marks.new"
    write_private(fresh, msgspec.json.encode(marks.checked()), confirm=True)
    with contextlib.suppress(FileNotFoundError):
        (folder / "marks.json").replace(folder / "marks.old")
    fresh.replace(folder / "marks.json")


def _old_crc(marks: Marks) -> int:
    """The checksum as the first builds of 0.1.0 made it, which kept no list of segments; -2 where there is one."""
    if marks.live or marks.newest:
        return -2
    return zlib.crc32(msgspec.json.encode({"seq": marks.seq, "marks": marks.marks, "crc": 0}))


def load(folder: Path) -> Marks:
    """The newest marks that check out; none at all, said in the log, when there were some and none do."""
    damaged = False
    for name in ("marks.json", "marks.old"):
        try:
            marks = msgspec.json.decode((folder / name).read_bytes(), type=Marks)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.MsgspecError):
            marks = Marks(crc=-1)
        if marks.crc in (msgspec.structs.replace(marks, crc=0).checked().crc, _old_crc(marks)):
            if damaged:
                log.warning("outbox: %s: marks.json is damaged; sources resume at an earlier place", folder)
            if name == "marks.old":
                marks = msgspec.structs.replace(marks, live={}, newest={})
            return marks
        damaged = True
    if damaged:
        log.warning("outbox: %s: marks.json is damaged; sources resume where the kept events tell", folder)
    return Marks()
