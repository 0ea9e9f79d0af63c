"""Events into PostgreSQL: a batch in one transaction, each event once, however often it comes (deploy/cloud/sql).

The only file that imports pg8000.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from edge_agent.config import secret
from edge_agent.consumer.rows import Odd, Row
from edge_agent.errors import LinkError, UsageError
from edge_agent.paths import carried

PUT = """
WITH given AS (
  SELECT * FROM unnest(:device ::text[], :epoch ::bigint[], :seq ::bigint[], :at ::timestamptz[], :pipeline ::text[],
                       :kind ::text[], :bytes ::integer[], :body ::text[])
    AS given (device, epoch, seq, at, pipeline, kind, bytes, body)
), fresh AS (
  INSERT INTO arrival (device, epoch, seq, at) SELECT device, epoch, seq, at FROM given ORDER BY device, epoch, seq
  ON CONFLICT DO NOTHING RETURNING device, epoch, seq
)
INSERT INTO event (device, epoch, seq, at, pipeline, kind, bytes, body)
SELECT device, epoch, seq, at, pipeline, kind, bytes, body::jsonb FROM given JOIN fresh USING (device, epoch, seq)
"""
LOCK = "SELECT pg_advisory_xact_lock(7300317)"
"""a number of ours: one at a time changes the tables"""
FIRST_YEAR = 2020
AHEAD = timedelta(days=62)
"""months before FIRST_YEAR or further ahead than this have no table of their own: a wrong clock makes no thousand"""
OF_DATA = ("22", "23")
"""classes of SQLSTATE that are the fault of a row"""
FOR_GOOD = ("28", "3D", "3F", "42", "0A")
"""that will not pass by themselves: no such user, no rights, other tables"""
LOCAL = ("localhost", "127.0.0.1", "::1", "")


class Postgres:
    """The sink. Of one thread."""

    def __init__(self, url: str, password_file: str | None) -> None:
        """UsageError for an address that cannot be, or where pg8000 is missing; does not connect."""
        try:
            import pg8000.native
        except ImportError:
            raise UsageError('writing to PostgreSQL needs pg8000: pip install "edge-agent-runtime[cloud]"') from None
        self._pg8000 = pg8000
        self._told, self._file = told_of(url), password_file
        self._connection: Any = None
        self._months: set[tuple[int, int]] = set()
        self.where = f"postgresql://{self._told['host'] or self._told['unix_sock'] or ''}/{self._told['database']}"

    def put(self, rows: Sequence[Row], odd: Sequence[Odd], numbers: Sequence[int] = ()) -> int:
        """Write all of it, and return how many rows were new, once it is committed.

        OSError where the database is away for now: nothing was written, or all of it. LinkError where it refuses us.
        """
        rows, odd = list(rows), list(odd)
        fresh = self._try(lambda: self._put(rows)) if rows else 0
        if isinstance(fresh, str):  # one of them cannot be taken: halves, until it is found
            if len(rows) == 1:
                odd.append(Odd(rows[0].body.encode(), fresh))
                fresh = 0
            else:
                middle = len(rows) // 2
                fresh = self.put(rows[:middle], ()) + self.put(rows[middle:], ())
        if odd:
            self._try(lambda: self._put_odd(odd))
        return fresh

    def close(self) -> None:
        """End the connection."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                connection.close()
        except (self._pg8000.Error, OSError):
            pass

    def _try(self, do: Callable[[], int]) -> int | str:
        """What it gives; a text where the rows are at fault. Raises OSError, LinkError."""
        try:
            if self._connection is None:
                self._connect()
            return do()
        except self._pg8000.DatabaseError as error:
            about = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
            code, said = str(about.get("C", "")), str(about.get("M", error))
            self.close()
            if code[:2] in OF_DATA:
                return said
            if code[:2] in FOR_GOOD:
                raise LinkError(f"{self.where}: {said}") from None
            raise OSError(f"{self.where}: {said}") from None
        except (self._pg8000.InterfaceError, OSError, ValueError, IndexError, AttributeError) as error:
            # a server that is killed in mid-sentence leaves the client with half an answer
            self.close()
            raise OSError(f"{self.where}: {error}") from None

    def _connect(self) -> None:
        password = secret(self._file, "--password-file") if self._file else None
        self._connection = self._pg8000.native.Connection(**self._told, password=password, timeout=60)
        self._months.clear()
        if not self._connection.run("SELECT to_regclass('event') IS NOT NULL AND to_regclass('odd') IS NOT NULL")[0][0]:
            self._change([carried("deploy", "cloud", "sql", "schema.sql").read_text(encoding="utf-8")])

    def _change(self, statements: Iterable[str]) -> None:
        for statement in ("BEGIN", LOCK, *statements, "COMMIT"):
            self._connection.run(statement)

    def _put(self, rows: Sequence[Row]) -> int:
        now = datetime.now(timezone.utc)
        for year, month in sorted({(row.at.year, row.at.month) for row in rows} - self._months):
            if year >= FIRST_YEAR and datetime(year, month, 1, tzinfo=timezone.utc) < now + AHEAD:
                self._month(year, month)
            self._months.add((year, month))
        columns = dict(zip(Row._fields, map(list, zip(*rows, strict=True)), strict=True))
        self._connection.run(PUT, **columns)
        return int(self._connection.row_count)

    def _month(self, year: int, month: int) -> None:
        """Make the table of a month, where there is none."""
        name = f"event_y{year}m{month:02}"
        if self._connection.run("SELECT to_regclass(:name) IS NOT NULL", name=name)[0][0]:
            return
        after = f"{year + month // 12}-{month % 12 + 1:02}-01"
        span = f"FROM ('{year}-{month:02}-01 00:00+00') TO ('{after} 00:00+00')"
        self._change([f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF event FOR VALUES {span}"])

    def _put_odd(self, odd: Sequence[Odd]) -> int:
        columns = {"payload": [one.payload for one in odd], "why": [one.why.replace("\0", "") for one in odd]}
        sql = "INSERT INTO odd (payload, why) SELECT * FROM unnest(:payload ::bytea[], :why ::text[])"
        self._connection.run(sql, **columns)
        return len(odd)


def told_of(url: str) -> dict[str, Any]:
    """``postgresql://user@host[:5432]/database?sslmode=…&sslrootcert=…`` as pg8000 takes it; `?host=/folder` for a
    socket. TLS with a checked name is the rule, but on this machine. UsageError for what is no such address.
    """
    parts, port, more = _split(url)
    host, folder = parts.hostname or "", more.get("host", "")
    mode = more.get("sslmode", "disable" if folder or host in LOCAL else "verify-full")
    return {
        "user": unquote(parts.username or ""),
        "database": unquote(parts.path[1:]),
        "host": None if folder else host or "127.0.0.1",
        "port": port,
        "unix_sock": str(Path(folder) / f".s.PGSQL.{port}") if folder else None,
        "ssl_context": _tls(mode, more.get("sslrootcert")),
    }


def _split(url: str) -> tuple[SplitResult, int, dict[str, str]]:
    """The parts of an address, its port, and what stands behind the ?. UsageError."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError as error:
        raise UsageError(f"--to: {error}; write postgresql://user@host/database") from None
    if parts.password is not None:
        raise UsageError("--to: no password in the address, as everybody on this machine can read it; --password-file")
    more = dict(parse_qsl(parts.query, keep_blank_values=True))
    odd = set(more) - {"sslmode", "sslrootcert", "host"}
    if odd or parts.scheme not in ("postgresql", "postgres") or not parts.username or len(parts.path) < 2:
        raise UsageError(f"--to {url}: write postgresql://user@host[:5432]/database[?sslmode=…&sslrootcert=…]")
    return parts, port, more


def _tls(mode: str, ca: str | None) -> ssl.SSLContext | None:
    if mode == "disable":
        return None
    if mode not in ("require", "verify-full"):
        raise UsageError(f"--to: sslmode={mode}; write disable, require or verify-full")
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise UsageError(f"--to: sslrootcert={ca}: {error.strerror or error}") from None
    if mode == "require":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
