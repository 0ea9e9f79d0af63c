"""Events into DuckDB, or into Parquet files by day. The only file that imports duckdb.

DuckDB has one writer. Parquet has as many as there are: each batch is a file of its own, named by the numbers in the
stream that it holds and renamed into place once it is on disk. A batch that comes again is written again; `compact`
leaves each event once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.consumer.rows import Odd, Row
from edge_agent.errors import InputError, LinkError, UsageError

COLUMNS = (
    "{device: 'VARCHAR', epoch: 'BIGINT', seq: 'BIGINT', 'at': 'TIMESTAMPTZ', pipeline: 'VARCHAR', kind: 'VARCHAR', "
    "bytes: 'INTEGER', body: 'VARCHAR', arrived: 'TIMESTAMPTZ'}"
)
SCHEMA = """
CREATE TABLE IF NOT EXISTS event (device VARCHAR, epoch BIGINT, seq BIGINT, "at" TIMESTAMPTZ, pipeline VARCHAR,
  kind VARCHAR, bytes INTEGER, body JSON, arrived TIMESTAMPTZ, PRIMARY KEY (device, epoch, seq));
CREATE TABLE IF NOT EXISTS odd (arrived TIMESTAMPTZ, why VARCHAR, payload BLOB);
"""
DAY, ODD = "day={:%Y-%m-%d}", "odd"
"""folders: of each day (UTC) of the events' own time, and of what is none"""
WRITTEN = "*.parquet"


def duckdb() -> Any:
    """The library. UsageError where it is missing."""
    try:
        import duckdb
    except ImportError:
        raise UsageError('writing to DuckDB or Parquet needs duckdb: pip install "edge-agent-runtime[cloud]"') from None
    return duckdb


def _connect(place: str) -> Any:
    """A connection that fetches nothing from anywhere."""
    library = duckdb()
    try:
        connection = library.connect(place, config={"autoinstall_known_extensions": "false"})
        connection.execute("SET TimeZone = 'UTC'")  # among the settings above 1.5, which Python 3.10 has, refuses it
        return connection
    except library.IOException as error:
        taken = "lock" in str(error).lower()
        mend = "another process has it open: DuckDB has one writer" if taken else str(error).splitlines()[0]
        raise LinkError(f"duckdb:{place}: {mend}") from None


@contextlib.contextmanager
def _lines(rows: Sequence[Row]) -> Iterator[str]:
    """The rows as a file of JSON lines, which DuckDB reads faster than one by one."""
    arrived = datetime.now(timezone.utc)
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        for row in rows:
            file.write(msgspec.json.encode({**row._asdict(), "arrived": arrived}) + b"\n")
        file.flush()
        yield f"read_json('{file.name}', format='newline_delimited', columns={COLUMNS}, maximum_object_size=4194304)"


class DuckDb:
    """The sink ``duckdb:FILE``."""

    def __init__(self, path: Path) -> None:
        """LinkError where another process writes there."""
        self.where = f"duckdb:{path}"
        self._connection = _connect(str(path))
        self._connection.execute(SCHEMA)

    def put(self, rows: Sequence[Row], odd: Sequence[Odd], numbers: Sequence[int] = ()) -> int:
        """As of Postgres."""
        library = duckdb()
        try:
            self._connection.execute("BEGIN")
            ((before,),) = self._connection.execute("SELECT count(*) FROM event").fetchall()
            if rows:
                with _lines(rows) as table:
                    self._connection.execute(f"INSERT OR IGNORE INTO event BY NAME SELECT * FROM {table}")
            for one in odd:
                self._connection.execute("INSERT INTO odd VALUES (now(), ?, ?)", [one.why, one.payload])
            ((after,),) = self._connection.execute("SELECT count(*) FROM event").fetchall()
            self._connection.execute("COMMIT")
        except library.Error as error:
            with contextlib.suppress(library.Error):
                self._connection.execute("ROLLBACK")
            raise OSError(f"{self.where}: {str(error).splitlines()[0]}") from None
        return int(after - before)

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._connection.close()


class Parquet:
    """The sink ``parquet:DIR``."""

    def __init__(self, folder: Path) -> None:
        self.where, self.folder = f"parquet:{folder}", folder
        self._connection = _connect(":memory:")

    def put(self, rows: Sequence[Row], odd: Sequence[Odd], numbers: Sequence[int] = ()) -> int:
        """As of Postgres, but that what came before is written once more; `numbers`: of the messages in the stream."""
        days: dict[str, list[Row]] = {}
        for row in rows:
            days.setdefault(DAY.format(row.at), []).append(row)
        for day, some in days.items():
            self._write(self.folder / day, _name(numbers, some), some)
        if odd:
            self._keep_odd(odd)
        return len(rows)

    def _write(self, folder: Path, name: str, rows: Sequence[Row]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with _lines(rows) as table:
            self._copy(f"SELECT * FROM {table}", folder / name)

    def _copy(self, query: str, path: Path) -> None:
        """Write what a query gives to a file that is there whole or not at all, and on disk once this returns."""
        hidden = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            self._connection.execute(f"COPY ({query}) TO '{_quoted(hidden)}' (FORMAT parquet, COMPRESSION zstd)")
            _on_disk(hidden)
            hidden.replace(path)
            _on_disk(path.parent)
        except duckdb().Error as error:
            raise OSError(f"{self.where}: {str(error).splitlines()[0]}") from None
        finally:
            hidden.unlink(missing_ok=True)

    def _keep_odd(self, odd: Sequence[Odd]) -> None:
        folder = self.folder / ODD
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        with path.open("wb") as file:
            file.writelines(msgspec.json.encode({"why": one.why, "payload": one.payload}) + b"\n" for one in odd)
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        """Nothing is left to be written."""
        self._connection.close()


def _name(numbers: Sequence[int], rows: Sequence[Row]) -> str:
    """Of the batch: first and last number in the stream (0 where there are none), and a hash of what it holds, so that
    another batch between the same two never takes its place.
    """
    told = hashlib.sha256(repr([row.key for row in rows]).encode()).hexdigest()[:12]
    return f"{min(numbers, default=0):020}-{max(numbers, default=0):020}-{told}.parquet"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _on_disk(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def compact(folder: Path) -> list[tuple[str, int, int]]:
    """Make one file of each day but today's (UTC), each event once: (day, rows before, rows after).

    A crash leaves the old files, or the new one beside them: the next time mends that. InputError for a folder without
    days.
    """
    sink, told = Parquet(folder), []
    days = sorted(day for day in folder.glob("day=*") if day.is_dir())
    if not days:
        raise InputError(
            f"{folder}: no folder of a day in it, such as day=2026-01-31; give the DIR of --to parquet:DIR"
        )
    for day in days:
        files = sorted(day.glob(WRITTEN))
        if day.name >= DAY.format(datetime.now(timezone.utc)) or len(files) < 2:
            continue
        told.append((day.name, *_compacted(sink, day, files)))
    sink.close()
    return told


def _compacted(sink: Parquet, day: Path, files: Sequence[Path]) -> tuple[int, int]:
    names = ", ".join(f"'{_quoted(file)}'" for file in files)
    whole = f"read_parquet([{names}], hive_partitioning=false)"
    once = f"SELECT * FROM {whole} QUALIFY row_number() OVER (PARTITION BY device, epoch, seq ORDER BY arrived) = 1"
    digest = hashlib.sha256(names.encode()).hexdigest()[:12]
    made = day / f"compact-{digest}.parquet"
    sink._copy(f"{once} ORDER BY device, epoch, seq", made)
    count = sink._connection.execute
    ((before,),) = count(f"SELECT count(*) FROM {whole}").fetchall()
    ((after,),) = count(f"SELECT count(*) FROM read_parquet('{_quoted(made)}', hive_partitioning=false)").fetchall()
    for file in files:
        file.unlink()
    return int(before), int(after)
