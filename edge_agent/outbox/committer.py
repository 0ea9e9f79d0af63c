"""The outbox's thread: it alone writes to the disk."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Callable

from edge_agent.events import Event
from edge_agent.outbox.entries import QUEUES, Entry, Lost, declaration
from edge_agent.outbox.journal import SYNC_EVERY, Journal
from edge_agent.outbox.numbering import HOMELESS, OPEN
from edge_agent.outbox.quota import keep_spare, make_room
from edge_agent.outbox.segments import Segment
from edge_agent.outbox.waiting import Waiting

log = logging.getLogger("edge_agent")

BATCH = 256
"""events written, and confirmed, at once"""
RETRY = 1.0
"""seconds between tries to reach a disk that refuses"""


class Committer:
    """Writes what was put, has the disk confirm it, strikes off what is done, makes room."""

    def __init__(
        self,
        journal: Journal,
        waiting: Waiting,
        declare: Callable[[Lost], int],
        decode: Callable[[bytes], Event],
        ready: Callable[[], object],
        noted: Callable[[], object],
    ) -> None:
        """`declare` puts a gap event and returns its number; `decode` reads one; `ready` is called when there is
        something to take, `noted` when some that were done were noted.
        """
        self.journal, self.waiting = journal, waiting
        self._declare, self._decode, self._ready, self._noted = declare, decode, ready, noted
        self.trouble = ""
        """why the disk refuses, one line; empty while it works"""
        self._condemned: list[tuple[int, Segment]] = []
        """segments that go once the gap event of this number is written"""
        self.thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def _run(self) -> None:
        ended = False
        while not ended:
            batch, held, closing = self._next()
            try:
                self._commit(batch, held, closing)
            except OSError as error:
                if not self.trouble:
                    log.error("outbox: %s: %s; events wait in RAM", self.journal.path, error.strerror)
                self.trouble = f"{error.strerror}"
                self._to_ram(batch)
                if not closing:
                    time.sleep(0.05)
            with self.waiting.state:
                if batch:
                    self.waiting.confirmed = max(self.waiting.confirmed, batch[-1].seq)
                self.waiting.state.notify_all()
                ended = closing and not self.waiting.pending and not self.waiting.done
            if batch:
                self._ready()
        self._finish()

    def _next(self) -> tuple[list[Entry], set[int], bool]:
        """Wait for something to do: what is to be written, the numbers of what was taken, whether it is the end."""
        waiting = self.waiting
        with waiting.state:
            busy = self.trouble or waiting.unwritten or self.journal.numbers.homeless
            wait = SYNC_EVERY / 4 if self.journal.dirty else RETRY if busy else None
            waiting.state.wait_for(lambda: waiting.pending or waiting.done or waiting.closing, wait)
            waiting.noting, waiting.done = waiting.done, []
            held = {record.seq for record in (*waiting.again, *waiting.taken)}
            return list(itertools.islice(waiting.pending, BATCH)), held, waiting.closing

    def _commit(self, batch: list[Entry], held: set[int], closing: bool) -> None:
        """Strike off, write, make room, confirm. Raises OSError as the disk does."""
        refused = self._strike()
        self.write(batch)
        self._pass()
        self._bury()
        for segment, lost in make_room(self.journal, held, self._decode):
            self._condemned.append((self._declare(lost) if lost else 0, segment))
        self.journal.confirm(now=closing)
        if refused is not None:
            raise refused
        if self.trouble:
            log.warning("outbox: the disk takes events again")
            keep_spare(self.journal.path)
            self.trouble = ""

    def _strike(self) -> OSError | None:
        """Strike off before anything is written: a full disk gets room by it, even where it refuses the notes."""
        try:
            self.journal.strike(self.waiting.noting)
        except OSError as error:
            return error
        finally:
            # noted or not: a disk that takes no notes is no reason to send nothing
            if self.waiting.noting:
                self.waiting.noting = []
                self._noted()
        return None

    def write(self, batch: list[Entry]) -> None:
        """Append a batch, after what waits in RAM; what was appended is no longer pending, even if the rest fails."""
        for kind in QUEUES:
            self._from_ram(kind)
        for kind in QUEUES:
            mine = [item for item in batch if item.kind == kind]
            if mine:
                self.journal.append(kind, mine)
                self.waiting.no_longer_pending(mine)
        self._note_last(batch)

    def _note_last(self, batch: list[Entry]) -> None:
        """Note how far the numbers went, and whether all of them are on disk."""
        if batch or self.trouble or self.journal.numbers.homeless:
            last = max(self.journal.numbers.mark.last, batch[-1].seq if batch else 0)
            # what is on its way from memory is as little safe as what waits there
            self.journal.numbers.note(last=last, state=HOMELESS if self.waiting.unwritten else OPEN)

    def _pass(self) -> None:
        """Move marks over what had no event, once the events before it are written."""
        with self.waiting.state:
            if self.waiting.unwritten:
                return
            for pipeline, (seq, mark) in list(self.waiting.passed.items()):
                if not self.waiting.pending or self.waiting.pending[0].seq > seq:
                    self.journal.marks[pipeline] = mark
                    del self.waiting.passed[pipeline]

    def _bury(self) -> None:
        """Delete the segments whose loss is written down."""
        while self._condemned and self._condemned[0][0] <= self.journal.numbers.mark.last:
            self.journal.bury(self._condemned[0][1])
            self._condemned.pop(0)

    def _from_ram(self, kind: str) -> None:
        """Put to disk what had to wait in RAM."""
        ram = self.waiting.ram[kind]
        with self.waiting.state:
            waiting = list(ram)
        for item in waiting:
            self.journal.unskip(kind, item.seq)
            self.journal.append(kind, [item])
            with self.waiting.state:
                if ram and ram[0] is item:
                    ram.popleft()
                else:  # taken meanwhile: it is on its way from RAM
                    self.journal.skip(kind, item.seq)

    def _to_ram(self, batch: list[Entry]) -> None:
        """The disk refused: keep the batch where it can still be sent from; what does not fit goes, declared."""
        if batch:  # before any of it can be sent
            with contextlib.suppress(OSError):  # a full disk still takes this: the blocks are there
                self.journal.numbers.note(last=batch[-1].seq, state=HOMELESS)
                if batch[-1].seq + BATCH > self.journal.numbers.mark.reserved:
                    self.journal.numbers.reserve(batch[-1].seq)
        with self.waiting.state:
            dropped = self.waiting.spill(batch)
        if dropped:
            why = f"the disk refuses ({self.trouble}) and memory is full"
            self._declare(declaration(dropped, why, self._decode))

    def _finish(self) -> None:
        """The last act of the committer: say in the mark that the store was closed in order."""
        homeless = self.waiting.unwritten
        if homeless:
            log.error("outbox: %s: %d events could not be written before the end", self.journal.path, homeless)
        try:
            self.journal.finish(whole=not homeless and not self.trouble)
        except OSError as error:
            log.error("outbox: %s: %s; closed without a clean mark", self.journal.path, error.strerror)
