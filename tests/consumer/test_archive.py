"""Events of many devices in PostgreSQL, DuckDB and Parquet: each once, whatever comes twice or in pieces."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import publish

from edge_agent.cli import main
from edge_agent.config import Mqtt
from edge_agent.consumer.archive import keep
from edge_agent.consumer.crew import CALM_S, LAG, Scale
from edge_agent.consumer.rows import Message, Odd, Row, row_of, sorted_rows
from edge_agent.errors import LinkError, UsageError
from tests.broker import broker, until
from tests.conftest import ROOT
from tests.consumer.postgres import Server, server
from tests.consumer.storm import storm
from tests.consumer.stream import stream

SQL = ROOT / "deploy" / "cloud" / "sql"


def event(seq: int, device: str = "d", epoch: int = 1, at: str | None = None, **more: Any) -> bytes:
    told = {"device": device, "epoch": epoch, "seq": seq, "pipeline": "p", "kind": "text", "text": "the door"}
    at = at or datetime.now(timezone.utc).isoformat()
    return json.dumps({**told, "at": at, "id": f"{device}/{epoch}/{seq}", **more}).encode()


def messages(*payloads: bytes) -> list[Message]:
    return [Message(payload, number + 1, number) for number, payload in enumerate(payloads)]


def put(sink: Any, *payloads: bytes) -> int:
    rows, odd = sorted_rows(messages(*payloads))
    return int(sink.put(rows, odd, range(1, len(payloads) + 1)))


JUNK = [
    b"",
    b"x",
    b"[1]",
    b"\xff",
    b"[" * 100_000,
    event(-1),
    event(2**63),
    event(1, device="a\x00b"),
    event(1, device=""),
]
JUNK += [event(1, at="yesterday"), event(1, at="0001-01-01T00:00:00+10:00"), b'{"device": "d"}']


def test_what_is_no_event_is_kept_apart_with_the_reason() -> None:
    found = [row_of(one) for one in JUNK]
    assert all(
        isinstance(one, Odd) and one.why and one.payload == payload for one, payload in zip(found, JUNK, strict=True)
    )
    row = row_of(event(7, at="2026-05-31T23:30:00-02:00", text="a\x00b"))
    assert (
        isinstance(row, Row)
        and row.at == datetime(2026, 6, 1, 1, 30, tzinfo=timezone.utc)
        and "\\u0000" not in row.body
    )
    rows, odd = sorted_rows(messages(event(2), event(1), event(2), b"x"))
    assert [row.seq for row in rows] == [1, 2] and len(odd) == 1


def test_workers_come_with_the_lag_and_go_once_it_is_gone() -> None:
    scale = Scale(1, 3)
    assert [scale(pending, at) for at, pending in enumerate([0, LAG + 1, 3 * LAG, 9 * LAG, 9 * LAG])] == [1, 2, 3, 3, 3]
    assert scale(0, 4 + CALM_S) == 3 and scale(0, 5 + CALM_S) == 2
    assert scale(2 * LAG, 6 + CALM_S) == 2  # what two can do is left to two
    assert scale(0, 7 + 2 * CALM_S) == 1 and scale(0, 9 + 9 * CALM_S) == 1


# ── DuckDB and Parquet ───────────────────────────────────────────────────────────────────────────────────


def test_duckdb_has_each_event_once_and_one_writer(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    from edge_agent.consumer.duck import DuckDb

    sink = DuckDb(tmp_path / "events.duckdb")
    assert put(sink, event(1), event(2), event(2), *JUNK) == 2
    assert put(sink, event(2), event(3)) == 1
    sink.close()
    with duckdb.connect(str(tmp_path / "events.duckdb")) as connection:
        assert connection.execute("SELECT seq, body->>'text' FROM event ORDER BY seq").fetchall() == [
            (1, "the door"),
            (2, "the door"),
            (3, "the door"),
        ]
        assert connection.execute("SELECT count(*) FROM odd").fetchall() == [(len(JUNK),)]


def test_parquet_by_day_is_compacted_to_each_event_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    duckdb = pytest.importorskip("duckdb")
    from edge_agent.consumer.duck import Parquet

    sink = Parquet(tmp_path / "it's")
    days = ["2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z"]
    put(sink, event(1, at=days[0]), event(2, at=days[0]), event(3, at=days[1]), b"x")
    put(sink, event(1, at=days[0]), event(2, at=days[0]), event(3, at=days[1]), b"x")  # the very same: the same files
    put(sink, event(2, at=days[0]), event(4, at=days[0]))
    now = datetime.now(timezone.utc)
    put(sink, event(5, at=now.isoformat()))
    put(sink, event(5, at=now.isoformat()), event(6, at=now.isoformat()))
    sink.close()
    folder = tmp_path / "it's"
    assert [len(list((folder / f"day={day[:10]}").iterdir())) for day in days] == [2, 1]
    assert json.loads(next((folder / "odd").iterdir()).read_text())["payload"] == "eA=="

    def seqs() -> list[int]:
        query = (
            f"SELECT seq FROM read_parquet('{str(folder).replace(chr(39), chr(39) * 2)}/day=*/*.parquet') ORDER BY seq"
        )
        return [seq for (seq,) in duckdb.connect().execute(query).fetchall()]

    assert seqs() == [1, 2, 2, 3, 4, 5, 5, 6]
    assert main(["archive", "--compact", "--to", f"parquet:{folder}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told[0] == {"day": "day=2026-03-01", "before": 4, "after": 3}
    rest = [] if datetime.now(timezone.utc).date() == now.date() else [5]  # a run across midnight
    assert seqs() in ([1, 2, 3, 4, 5, 5, 6], [1, 2, 3, 4, 5, 6]) and len(told) == 1 + len(rest)


def test_a_batch_that_is_another_never_takes_the_place_of_one(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    from edge_agent.consumer.duck import Parquet

    sink = Parquet(tmp_path)
    rows, _ = sorted_rows(messages(*(event(seq, at="2026-03-01T12:00:00Z") for seq in (1, 2, 3))))
    sink.put(rows, (), (1, 2, 3))
    sink.put([rows[0], rows[2]], (), (1, 3))
    assert len(list((tmp_path / "day=2026-03-01").iterdir())) == 2
    sink.close()


# ── PostgreSQL ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    with server() as made:
        yield made


def sink_of(postgres: Server) -> Any:
    from edge_agent.consumer.postgres import Postgres

    return Postgres(postgres.url, None)


def test_postgres_has_each_event_once_by_month_and_counts_what_is_missing(postgres: Server) -> None:
    sink = sink_of(postgres)
    gap = event(6, kind="gap", first=2, last=4, count=3, why="the disk was full", pipeline="agent")
    assert put(sink, event(1), event(1), event(5), gap, *JUNK) == 3
    ((first, last, received, declared, missing),) = postgres.ask(
        "SELECT first, last, received, declared, missing FROM account WHERE device = 'd'"
    )
    assert (first, last, received, declared, missing) == (1, 6, 3, 3, 0)
    assert put(sink, event(3), event(5)) == 1  # one that was declared lost comes late
    assert postgres.ask("SELECT open, late, closed FROM gap") == [[2, 1, False]]
    put(sink, event(2), event(4), event(9))
    assert postgres.ask("SELECT open, late, closed FROM gap") == [[0, 3, True]]
    assert postgres.ask("SELECT missing FROM account WHERE device = 'd'") == [[2]]
    # a month has a table of its own, a clock that is years off does not
    put(
        sink,
        event(10, at="2026-02-28T23:59:59Z"),
        event(11, at="2026-03-01T00:00:00Z"),
        event(12, at="2199-01-01T00:00:00Z"),
    )
    tables = dict(postgres.ask("SELECT tableoid::regclass::text, count(*) FROM event WHERE seq > 9 GROUP BY 1"))
    assert tables == {"event_y2026m02": 1, "event_y2026m03": 1, "event_elsewhen": 1}
    # what a column does not take is kept apart, and what came with it is kept
    odd = postgres.ask("SELECT count(*) FROM odd")[0][0]
    assert put(sink, event(20), event(21).replace(b'"the door"', b"1e999999"), event(22)) == 2
    assert postgres.ask("SELECT count(*) FROM odd")[0][0] == odd + 1
    assert put(sink, event(23, text="a\x00b")) == 1
    sink.close()


def test_each_query_that_people_ask_runs(postgres: Server) -> None:
    now = datetime.now(timezone.utc)
    sink, boxes = sink_of(postgres), [{"label": "person", "score": 0.5, "box": [0, 0, 1, 1]}]
    old = now - timedelta(days=9)
    rows = [
        event(n, "cam", at=(now if n % 2 else old).isoformat(), kind="detections", detections=boxes)
        for n in range(1, 203)
    ]
    put(sink, *rows, event(203, "cam", kind="anomaly", unusual=True, name="x"))
    sink.close()
    told = (SQL / "queries.sql").read_text().split(";")
    queries = [query for query in told if "SELECT" in query]
    assert len(queries) == 12
    results = [postgres.ask(query) for query in queries]
    assert {row[0] for row in results[0]} >= {"cam"} and any("person" in row for row in results[1])
    assert next(row for row in results[5] if row[0] == "cam")[2:] == ["person", 0.5, 0.5, 202]
    assert results[8][0][1] == "cam"
    panels = json.loads((SQL.parent / "grafana" / "archive.json").read_text())["panels"]
    for panel in panels:
        sql = panel["targets"][0]["rawSql"].replace("$__timeFilter(at)", "at > now() - interval '1 day'")
        assert postgres.ask(sql.replace("$__timeFilter(arrived)", "arrived > now() - interval '1 day'")) is not None


class Fed:
    """A feed out of a list, that notes what was acknowledged."""

    where = "list"

    def __init__(self, some: Sequence[Message], stop: threading.Event) -> None:
        self.some, self.stop, self.acknowledged = list(some), stop, list[int]()

    def take(self, most: int, seconds: float) -> list[Message]:
        taken, self.some = self.some[:most], self.some[most:]
        if not taken:
            self.stop.set()
        return taken

    def done(self, taken: Sequence[Message]) -> None:
        self.acknowledged += [one.handle for one in taken]

    def pending(self) -> int:
        return len(self.some)

    def close(self) -> None: ...


def test_nothing_is_acknowledged_while_the_database_is_away(postgres: Server) -> None:
    stop, said = threading.Event(), list[str]()
    feed = Fed(messages(*(event(n, "away") for n in range(1, 301))), stop)
    sink = sink_of(postgres)
    postgres.kill()
    worker = threading.Thread(target=keep, args=(feed, sink, 100, stop, said.append))
    worker.start()
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)
    assert said and "tried again until it works" in said[0] and feed.acknowledged == []
    postgres.start()
    worker.join(120)
    assert feed.acknowledged == list(range(300))
    assert postgres.ask("SELECT count(*) FROM event WHERE device = 'away'") == [[300]]


def test_a_database_that_refuses_us_is_told_at_once(postgres: Server) -> None:
    from edge_agent.consumer.postgres import Postgres

    with pytest.raises(LinkError, match='database "nowhere" does not exist'):
        put(Postgres(postgres.url.replace("/postgres", "/nowhere"), None), event(1))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--to", "mysql://x"], "give postgresql://"),
        (["--to", "parquet:"], "give postgresql://"),
        (["--to", "postgresql://u:secret@h/d"], "no password in the address"),
        (["--to", "postgresql://h/d"], "write postgresql://"),
        (["--to", "postgresql://u@h/d?sslmode=maybe"], "write disable, require or verify-full"),
        (["--from", "kafka://x", "--to", "parquet:x"], "give nats://"),
        (["--from", "nats://u:p@x", "--to", "parquet:x"], "no user or password in the address"),
        (["--to", "parquet:x", "--workers", "4-1"], "give a number, or two as 1-4"),
        (["--to", "duckdb:x", "--compact"], "--compact works on --to parquet:DIR"),
        (["--to", "parquet:x"], None),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    given: list[str], says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("nats", "duckdb", "pg8000"):
        pytest.importorskip(module)
    given = given if "--from" in given or "--compact" in given or says is None else ["--from", "nats://x", *given]
    assert main(["archive", *given]) == 2
    told = capsys.readouterr().err.strip()
    assert (says or "give --from nats://") in told and "secret" not in told and "\n" not in told


def test_where_a_library_is_missing_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from edge_agent.consumer.nats import Login, Nats

    monkeypatch.setitem(sys.modules, "nats", None)
    with pytest.raises(UsageError, match=r"edge-agent-runtime\[cloud\]"):
        Nats("nats://x", Login())


# ── end to end ───────────────────────────────────────────────────────────────────────────────────────────


def test_from_a_stream_into_the_database(postgres: Server, tmp_path: Path) -> None:
    from edge_agent.consumer.nats import Login, Nats

    with stream(tmp_path) as source:
        source.publish([*(event(n, "stream") for n in range(1, 51)), event(7, "stream"), b"junk"])
        feed, sink, stop = Nats(source.url, Login()), sink_of(postgres), threading.Event()
        assert feed.pending() == 52
        nowhere = Nats(f"{source.url}/NOWHERE", Login())
        with pytest.raises(LinkError, match="no stream NOWHERE; make it"):
            nowhere.take(1, 0.5)
        nowhere.close()
        taken = feed.take(10, 5)
        again = feed.take(100, 5)
        feed.done([*taken, *again])
        sink.put(*sorted_rows([*taken, *again]))
        assert feed.pending() == 0 and [one.number for one in [*taken, *again]] == list(range(1, 53))
        stop.set()
        assert keep(feed, sink, 10, stop, print).events == 0
        feed.close()
        sink.close()
    assert postgres.ask("SELECT count(*) FROM event WHERE device = 'stream'") == [[50]]


def test_workers_part_what_a_broker_of_mqtt_hands_out(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    from edge_agent.consumer.duck import Parquet
    from edge_agent.consumer.shared import Shared

    with broker(tmp_path) as hub:
        feeds = [Shared(Mqtt(url=hub.url), str(number)) for number in range(2)]
        for feed in feeds:
            until(lambda feed=feed: feed.take(1, 0.3) == [] and feed.ready, "a worker has subscribed")  # type: ignore[misc]
        some: list[Any] = [{"topic": "edge/v1/d/p/events", "payload": event(n), "qos": 1} for n in range(1, 31)]
        publish.multiple(some, "127.0.0.1", hub.port)
        seen: list[list[Message]] = [[], []]
        until(lambda: _taken(feeds, seen) >= 30, "all events come")
        assert min(map(len, seen)) > 0 and len(seen[0]) + len(seen[1]) == 30
        # the second worker dies before it acknowledged anything, the first one did; what was not comes again
        feeds[0].done(seen[0])
        feeds[0].close()
        feeds[1].close()
        again = Shared(Mqtt(url=hub.url), "1")
        sink, kept = Parquet(tmp_path / "rows"), list[Message]()
        until(lambda: kept.extend(again.take(100, 0.5)) or len(kept) >= len(seen[1]), "it comes again")  # type: ignore[func-returns-value]
        assert {one.payload for one in kept} == {one.payload for one in seen[1]}
        assert sink.put(*sorted_rows(kept)) == len(kept)
        again.done(kept)
        again.close()
        sink.close()


def _taken(feeds: Sequence[Any], seen: list[list[Message]]) -> int:
    for feed, some in zip(feeds, seen, strict=True):
        some.extend(feed.take(100, 0.2))
    return sum(map(len, seen))


@pytest.mark.slow
def test_a_storm_of_kills_leaves_each_event_once(tmp_path: Path) -> None:
    with server() as database, stream(tmp_path) as source:
        told = storm(source, database, kills=12, workers=2, events=1200)
    assert (told["lost"], told["twice"]) == (0, 0) and told["of the database"] > 0


@pytest.mark.slow
def test_workers_are_led_by_the_lag(postgres: Server, tmp_path: Path) -> None:
    with stream(tmp_path) as source:
        source.publish(event(n, "led") for n in range(1, 501))
        told = ["archive", "--from", source.url, "--to", postgres.url, "--workers", "2-3", "--batch", "20"]
        leader = subprocess.Popen([sys.executable, "-m", "edge_agent", *told], stderr=subprocess.PIPE)
        count = "SELECT count(*) FROM event WHERE device = 'led'"
        until(lambda: postgres.ask(count) == [[500]], "all events are there", 120)
        leader.terminate()
        assert leader.wait(120) == 0
