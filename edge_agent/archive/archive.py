"""The archive: one SQLite file with each event, its words (FTS5), its labels and zones, and what was reviewed.

Events that say the same words share one row of `texts`, which is searched. What is deleted is overwritten
(`secure_delete`), and the index of words is written anew, so that no copy of them stays in the file.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import files
from edge_agent.archive.said import said
from edge_agent.archive.wanted import ALL, Kept, Wanted, where_of
from edge_agent.errors import StoreError
from edge_agent.events import Event, TextEvent

log = logging.getLogger("edge_agent")

NAME = "archive.db"
VERSION = 1
ROOM = 0.9
"""share of `max_bytes` down to which is deleted once there are more"""
WAIT_S = 5.0
"""seconds that another process may write before this one gives up"""
SCHEMA = """
CREATE TABLE events (
    n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, at REAL NOT NULL, pipeline TEXT NOT NULL,
    kind TEXT NOT NULL, t INTEGER NOT NULL, reviewed INTEGER NOT NULL DEFAULT 0, body BLOB NOT NULL);
CREATE INDEX events_at ON events (at);
CREATE INDEX events_t ON events (t, at);
CREATE TABLE tags (what TEXT NOT NULL, value TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (what, value, n))
    WITHOUT ROWID;
CREATE INDEX tags_n ON tags (n);
CREATE TABLE texts (t INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB UNIQUE NOT NULL, text TEXT NOT NULL,
    place TEXT NOT NULL, vector BLOB);
CREATE VIRTUAL TABLE words USING fts5 (text, place, content='texts', content_rowid='t',
    tokenize='porter unicode61 remove_diacritics 2');
CREATE TRIGGER texts_in AFTER INSERT ON texts BEGIN
    INSERT INTO words (rowid, text, place) VALUES (new.t, new.text, new.place); END;
CREATE TRIGGER texts_out AFTER DELETE ON texts BEGIN
    INSERT INTO words (words, rowid, text, place) VALUES ('delete', old.t, old.text, old.place); END;
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Archive:
    """May be used from any thread; several processes may have it open."""

    def __init__(self, path: Path, *, days: float | None = None, max_bytes: int | None = None, new: bool = True):
        """`days`, `max_bytes`: what is older, or too much, is deleted by `prune`. `new`: make it where there is none,
        and begin anew, with the old one set aside, where it is damaged.

        StoreError, one line, where it cannot be opened.
        """
        self.path, self.days, self.max_bytes = path, days, max_bytes
        self._lock = threading.RLock()
        try:
            self._db = self._open(new)
        except sqlite3.OperationalError as error:
            raise StoreError(f"{path}: {error}; check the disk, and who owns the file") from None
        except sqlite3.DatabaseError as error:
            if not new:
                raise StoreError(f"{path}: no archive of this program ({error})") from None
            aside = path.with_name(f"{path.name}.damaged")
            log.error("%s is damaged (%s): it is set aside as %s, and a new one is begun", path, error, aside.name)
            for tail in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    path.with_name(path.name + tail).replace(aside.with_name(aside.name + tail))
            self._db = self._open(new)

    def _open(self, new: bool) -> sqlite3.Connection:
        if not new and not self.path.exists():
            raise StoreError(f"{self.path}: no archive there; write [archive] into the config and run the agent")
        with contextlib.suppress(OSError):
            files.folder(self.path.parent, files.PRIVATE)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            self._ready(db)
        except BaseException:
            db.close()
            raise
        return db

    def _ready(self, db: sqlite3.Connection) -> None:
        """Make its tables where there are none. sqlite3.DatabaseError where it is no archive."""
        db.execute("PRAGMA secure_delete = ON")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION:
            raise StoreError(f"{self.path}: an archive of version {version}; this program reads {VERSION}")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("SELECT count(*) FROM words WHERE words MATCH 'a'").fetchone()

    def close(self) -> None:
        """Nothing is to be asked of it afterwards."""
        with self._lock:
            self._db.close()

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────────

    def add(self, events: Iterable[Event]) -> int:
        """Archive events, all or none; how many were new. One that is there already is left as it is. StoreError where
        the disk does not take it.
        """
        new = 0
        with self._writing() as db:
            for event in events:
                new += self._add(db, event)
        return new

    def _add(self, db: sqlite3.Connection, event: Event) -> int:
        if isinstance(event, TextEvent) and event.embedding is not None:
            event = msgspec.structs.replace(event, embedding=None)
        raw = msgspec.json.encode(event)
        words = said(msgspec.json.decode(raw))
        told = (event.id, _seconds(event.at), event.pipeline, str(event.__struct_config__.tag), raw)
        if db.execute("SELECT 1 FROM events WHERE id = ?", (event.id,)).fetchone():
            return 0
        key = hashlib.blake2b(f"{words.text}\0{words.place}".encode(), digest_size=12).digest()
        db.execute("INSERT OR IGNORE INTO texts (key, text, place) VALUES (?, ?, ?)", (key, words.text, words.place))
        insert = "INSERT INTO events (id, at, pipeline, kind, body, t) SELECT ?, ?, ?, ?, ?, t FROM texts WHERE key = ?"
        number = db.execute(insert, (*told, key)).lastrowid
        tags = [("label", value, number) for value in words.labels] + [("zone", value, number) for value in words.zones]
        db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", tags)
        return 1

    # ── what is asked ────────────────────────────────────────────────────────────────────────────────────

    def events(
        self, wanted: Wanted = ALL, *, after: int | None = None, before: int | None = None, limit: int = 100
    ) -> list[Kept]:
        """With `after`: the first `limit` events behind this number, oldest first, as they were archived. Else the last
        `limit`, newest first; `before`: of those before this number.
        """
        where, values = where_of(wanted)
        if after is not None:
            where, values = f"{where} AND n > ?", [*values, after]
        if before is not None:
            where, values = f"{where} AND n < ?", [*values, before]
        order = "ASC" if after is not None else "DESC"
        return self.kept(f"WHERE {where} ORDER BY n {order} LIMIT ?", [*values, limit])

    def kept(self, clause: str, values: Sequence[object]) -> list[Kept]:
        """Events by the end of a SELECT."""
        select = "SELECT n, at, reviewed, text, body FROM events JOIN texts USING (t)"
        rows = self.rows(f"{select} {clause}", values)
        return [Kept(n, at, bool(seen), text, msgspec.Raw(body)) for n, at, seen, text, body in rows]

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """What a SELECT gives. StoreError where the file cannot be read."""
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}; check the disk") from None

    def count(self, wanted: Wanted = ALL) -> int:
        """How many there are."""
        where, values = where_of(wanted)
        return int(self.rows(f"SELECT count(*) FROM events WHERE {where}", values)[0][0])

    def values(self, what: str) -> list[str]:
        """All that is known: of "label" or "zone" tags, or of the column "pipeline" or "kind"."""
        if what in ("label", "zone"):
            rows = self.rows("SELECT DISTINCT value FROM tags WHERE what = ? ORDER BY value", [what])
        else:
            assert what in ("pipeline", "kind")
            rows = self.rows(f"SELECT DISTINCT {what} FROM events ORDER BY {what}")
        return [str(row[0]) for row in rows]

    # ── what changes ─────────────────────────────────────────────────────────────────────────────────────

    def review(self, numbers: Iterable[int], reviewed: bool = True) -> None:
        """Note that somebody has looked at these events."""
        with self._writing() as db:
            db.executemany("UPDATE events SET reviewed = ? WHERE n = ?", [(reviewed, number) for number in numbers])

    def remove(self, wanted: Wanted) -> int:
        """Delete events, so that nothing of them stays in the file; how many."""
        where, values = where_of(wanted)
        gone = self._remove(f"WHERE {where}", values)
        if gone:
            self._forget()
        return gone

    def prune(self, now: float | None = None) -> int:
        """Delete what is older than `days`, and the oldest of what is more than `max_bytes`; how many."""
        gone = 0
        if self.days is not None:
            gone = self._remove("WHERE at < ?", [(now or time.time()) - self.days * 86_400])
        if gone:
            self._forget()
        limit = self.max_bytes
        while limit is not None and (size := self.size) > limit and (count := self.count()):
            # the share of them that fills what is too much, and some more
            gone += self._remove("ORDER BY n LIMIT ?", [int(count * (1 - ROOM * limit / size)) + 1])
            self._forget()
        return gone

    @property
    def size(self) -> int:
        """Bytes in use; what was deleted does not count."""
        (pages,), (free,), (each,) = (
            self.rows(f"PRAGMA {name}")[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * each)

    def _remove(self, clause: str, values: Sequence[object]) -> int:
        with self._writing() as db:
            db.execute(f"CREATE TEMP TABLE gone AS SELECT n FROM events {clause}", values)
            try:
                db.execute("DELETE FROM tags WHERE n IN gone")
                count = db.execute("DELETE FROM events WHERE n IN gone").rowcount
                db.execute("DELETE FROM texts WHERE t NOT IN (SELECT t FROM events)")
            finally:
                db.execute("DROP TABLE temp.gone")
        return count

    def _forget(self) -> None:
        """Take what was deleted out of the index of words and the journal, and give its room back."""
        with self._writing() as db:
            db.execute("INSERT INTO words (words) VALUES ('optimize')")
        with self._lock, contextlib.suppress(sqlite3.Error):  # another process reads: the next one does it
            self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE);")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing. StoreError where the disk does not take it."""
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"{self.path}: {error}; free or remount the disk") from None

    # ── vectors ──────────────────────────────────────────────────────────────────────────────────────────

    def without_vector(self, model: str, limit: int) -> list[tuple[int, str]]:
        """Number and words of texts that this model (its SHA-256) has not read, the newest first; what another model
        made of them is forgotten.
        """
        if not self._is_of(model):
            with self._writing() as db:
                db.execute("UPDATE texts SET vector = NULL")
                db.execute("INSERT OR REPLACE INTO about VALUES ('encoder', ?)", (model,))
        rows = self.rows("SELECT t, text FROM texts WHERE vector IS NULL ORDER BY t DESC LIMIT ?", [limit])
        return [(int(t), str(text)) for t, text in rows]

    def set_vectors(self, vectors: Iterable[tuple[int, bytes]]) -> None:
        """Keep vectors of texts, each by its number."""
        with self._writing() as db:
            db.executemany("UPDATE texts SET vector = ? WHERE t = ?", [(vector, t) for t, vector in vectors])

    def vectors(self, model: str, limit: int, before: int | None = None) -> list[tuple[int, bytes]]:
        """The newest vectors that this model made, each with the number of its text; `before`: of texts before it."""
        if not self._is_of(model):
            return []
        where = "vector IS NOT NULL AND t < ?"
        values = [1 << 62 if before is None else before, limit]
        return self.rows(f"SELECT t, vector FROM texts WHERE {where} ORDER BY t DESC LIMIT ?", values)

    def unread(self, model: str) -> int:
        """How many texts this model has not read."""
        where = "WHERE vector IS NULL" if self._is_of(model) else ""
        return int(self.rows(f"SELECT count(*) FROM texts {where}")[0][0])

    def _is_of(self, model: str) -> bool:
        return self.rows("SELECT value FROM about WHERE key = 'encoder'") == [(model,)]


def _seconds(at: str) -> float:
    """RFC 3339 as seconds since 1970; 0 for what is none, as of a gap that has no time."""
    try:
        return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
