"""A store at work in a process of its own that tells each change of its files to a log, and ends like one killed.

`python -m tests.faults.record STORE LOG SEED ROUNDS`: runs may follow one another on the same store and log, as an
agent that is killed and started again within one boot. The log is a stream of length-prefixed MessagePack arrays:

    create NAME · write NAME OFFSET BYTES · truncate NAME SIZE · sync NAME · rename OLD NEW · unlink NAME · folder
    clock SECONDS · put SEQ KIND MARK (put has returned) · taken SEQ · done SEQ PAYLOAD

Time, for the store, goes by the clock of this file: so many seconds an event, however slow the machine is.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.events import TextEvent
from edge_agent.outbox import journal, numbering
from edge_agent.outbox.entries import Record
from edge_agent.outbox.outbox import Outbox

STEP = 0.02
"""seconds of the store's clock that an event takes"""
MAX_BYTES = 1_000_000


class Clock:
    """Stands in for the module `time` in the journal."""

    now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_790_000_000.0 + self.now


class Recorder:
    """Wraps what the store changes its files with; one change at a time, each logged once it was made."""

    def __init__(self, store: Path, log: Path) -> None:
        self.store = str(store.resolve())
        self.lock = threading.RLock()
        self._write = os.write
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def tell(self, *what: object) -> None:
        raw = msgspec.msgpack.encode(what)
        with self.lock:
            self._write(self._log, len(raw).to_bytes(4, "little") + raw)

    def name(self, path: str | int | Path) -> str | None:
        """The name within the store of a path or a file descriptor; "" for the store's folder, None for others."""
        full = str(Path(f"/proc/self/fd/{path}").readlink() if isinstance(path, int) else Path(path).absolute())
        if full == self.store:
            return ""
        folder, _, name = full.rpartition("/")
        return name if folder == self.store else None

    def install(self) -> None:
        os.open = self.wrapped(os.open, self.open)
        os.write = self.wrapped(os.write, self.write)
        os.pwrite = self.wrapped(os.pwrite, self.pwrite)
        os.ftruncate = self.wrapped(os.ftruncate, self.ftruncate)
        os.fdatasync = self.wrapped(os.fdatasync, self.sync)
        os.fsync = self.wrapped(os.fsync, self.sync)
        Path.open = self.wrapped(Path.open, self.path_open)  # type: ignore[method-assign]
        Path.unlink = self.wrapped(Path.unlink, self.unlink)  # type: ignore[method-assign]
        Path.replace = self.wrapped(Path.replace, self.rename)  # type: ignore[method-assign]

    def wrapped(self, real: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                return ours(real, *args, **kwargs)

        return call

    def open(self, real: Callable[..., int], path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        fresh = bool(flags & os.O_CREAT) and not Path(path).exists()
        fd = real(path, flags, *args, **kwargs)
        name = self.name(path)
        if name and (fresh or flags & os.O_TRUNC):
            self.tell("create", name)
        return fd

    def path_open(self, real: Callable[..., Any], path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real(path, mode, *args, **kwargs)
        name = self.name(path)
        if name and "w" in mode:
            self.tell("create", name)
        return file

    def write(self, real: Callable[..., int], fd: int, data: Any) -> int:
        name = self.name(fd)
        at = os.fstat(fd).st_size if name else 0
        n = real(fd, data)
        if name:
            self.tell("write", name, at, bytes(data)[:n])
        return n

    def pwrite(self, real: Callable[..., int], fd: int, data: bytes, at: int) -> int:
        n = real(fd, data, at)
        if name := self.name(fd):
            self.tell("write", name, at, data[:n])
        return n

    def ftruncate(self, real: Callable[..., None], fd: int, size: int) -> None:
        real(fd, size)
        if name := self.name(fd):
            self.tell("truncate", name, size)

    def sync(self, real: Callable[..., None], fd: int) -> None:
        name = self.name(fd)
        if name and name.endswith(".new"):  # written through a Python file, whose writes are not seen here
            self.tell("write", name, 0, Path(self.store, name).read_bytes())
        real(fd)
        if name is not None:
            self.tell(*(("sync", name) if name else ("folder",)))

    def unlink(self, real: Callable[..., None], path: Path, missing_ok: bool = False) -> None:
        there = path.exists()
        real(path, missing_ok)
        if there and (name := self.name(path)):
            self.tell("unlink", name)

    def rename(self, real: Callable[..., Any], path: Path, target: Path) -> Any:
        moved = real(path, target)
        if name := self.name(path):
            self.tell("rename", name, Path(target).name)
        return moved


def settle(box: Outbox, seq: int) -> None:
    """Wait until the committer is through with everything up to `seq`."""
    with box._state:
        assert box._state.wait_for(lambda: box._waiting.confirmed >= seq, 30), "the committer does not get on"


def work(store: Path, log: Path, seed: int, rounds: int) -> None:
    """Put bursts of both kinds; online and offline by turns take, acknowledge and give back; then end at once."""
    rng = random.Random(seed)
    recorder = Recorder(store, log)
    clock = Clock()
    clock.now += 10_000.0 * seed
    vars(journal)["time"] = vars(numbering)["time"] = clock
    store.mkdir(exist_ok=True)
    recorder.install()
    box = Outbox(store, "d", max_bytes=MAX_BYTES)
    flying: list[Record] = []
    online = True
    for number in range(rounds):
        burst: list[tuple[int, str, int]] = []
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            clock.now += STEP
            kind = "alert" if rng.random() < 0.3 else "telemetry"
            mark = (seed * rounds + number) * 100 + len(burst)
            text = "w" * rng.randrange(20, 900)
            event = box.put(TextEvent(pipeline=kind, at="2026-01-01T00:00:00Z", text=text), kind, mark)
            burst.append((event.seq, kind, mark))
            if kind == "alert":
                recorder.tell("put", *burst.pop())
        settle(box, box.last)
        recorder.tell("clock", clock.now)
        for seq, kind, mark in burst:
            recorder.tell("put", seq, kind, mark)
        if rng.random() < 0.03:
            online = not online
            if not online:
                box.again()
                flying = []
        if online:
            taken = box.take(rng.randrange(20))
            for record in taken:
                recorder.tell("taken", record.seq)
            flying += taken
            for record in flying[: rng.randrange(len(flying) + 1)]:
                flying.remove(record)
                recorder.tell("done", record.seq, record.payload)
                box.done(record)
    os._exit(9)


if __name__ == "__main__":
    assert numbering.boot_id() != bytes(16), "the kernel tells no boot id"
    work(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
