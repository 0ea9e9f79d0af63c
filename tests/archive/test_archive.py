"""The archive: what goes in comes out, by number, time, place and label; what is deleted is gone from the disk."""

from __future__ import annotations

import logging
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from edge_agent.archive.archive import NAME, Archive
from edge_agent.archive.said import said
from edge_agent.archive.wanted import ALL, Wanted
from edge_agent.errors import StoreError
from tests.archive.made import DAY, START, event


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / NAME)


def numbers(archive: Archive, wanted: Wanted = ALL, **how: int) -> list[int]:
    return [kept.number for kept in archive.events(wanted, **how)]


def test_events_come_back_by_cursor_forwards_and_backwards_and_once_each(archive: Archive) -> None:
    events = [event(number, text=f"line {number}") for number in range(1, 8)]
    assert archive.add(events) == 7
    assert archive.add(events[3:]) == 0, "the same id again is the same event"
    assert numbers(archive, limit=3) == [7, 6, 5]
    assert numbers(archive, before=5, limit=3) == [4, 3, 2]
    assert numbers(archive, after=0, limit=3) == [1, 2, 3]
    assert numbers(archive, after=5) == [6, 7] and numbers(archive, after=7) == []
    assert [kept.body()["text"] for kept in archive.events(after=5)] == ["line 6", "line 7"]
    assert archive.events(limit=1)[0].body()["id"] == "edge/1/7"


def test_a_number_is_never_used_again(archive: Archive) -> None:
    archive.add([event(1), event(2)])
    archive.remove(Wanted())
    archive.add([event(3)])
    assert numbers(archive) == [3]


def test_filters(archive: Archive) -> None:
    archive.add(
        [
            event(1, "object", label="person", entered=["gate"], zones=["gate"]),
            event(2, "object", label="car", pipeline="yard", loiters=["drive"]),
            event(3, "scores", label="open", pipeline="yard"),
            event(4, "text", text="hello"),
        ]
    )
    assert numbers(archive, Wanted(labels=["person", "open"])) == [3, 1]
    assert numbers(archive, Wanted(zones=["drive"])) == [2]
    assert numbers(archive, Wanted(pipelines=["yard"], kinds=["scores"])) == [3]
    assert numbers(archive, Wanted(since=START + 2, until=START + 4)) == [3, 2]
    assert numbers(archive, Wanted(labels=["person' OR 1 --"])) == []
    archive.review([1, 4])
    assert numbers(archive, Wanted(reviewed=True)) == [4, 1] and numbers(archive, Wanted(reviewed=False)) == [3, 2]
    assert archive.values("label") == ["car", "open", "person"] and archive.values("zone") == ["drive", "gate"]
    assert archive.values("pipeline") == ["door", "yard"]


def test_what_is_deleted_by_time_or_label_is_gone_from_the_files(archive: Archive) -> None:
    archive.add([event(number, text=f"zebrafish{number} swims") for number in range(1, 400)])
    archive.add([event(400, "object", label="person"), event(401, text="stays")])
    assert archive.remove(Wanted(since=START + 100, until=START + 400)) == 300
    assert archive.remove(Wanted(labels=["person"])) == 1
    assert archive.count() == 100
    raw = b"".join(path.read_bytes() for path in archive.path.parent.iterdir())
    assert b"zebrafish99 " in raw and b"zebrafish100" not in raw and b"zebrafish399" not in raw
    assert b"edge/1/250" not in raw and b"person" not in raw


def test_it_is_bounded_by_days_and_by_bytes(tmp_path: Path) -> None:
    archive = Archive(tmp_path / NAME, days=2, max_bytes=1_000_000)
    archive.add([event(1, at=START), event(2, at=START + 3 * DAY), event(3, at=START + 3.5 * DAY)])
    assert archive.prune(START + 4 * DAY) == 1 and numbers(archive) == [3, 2]
    archive.add([event(number, at=START + 4 * DAY, text=f"{number} {'long ' * 50}") for number in range(4, 4000)])
    assert archive.size > 1_000_000
    archive.prune(START + 4 * DAY)
    assert archive.size <= 1_000_000 and archive.path.stat().st_size <= 1_000_000
    left = numbers(archive, limit=10_000)
    assert left == list(range(3999, left[-1] - 1, -1)), "the oldest went"
    assert len(left) > 800, "and no more than was too much"


def test_only_the_owner_may_read_it(archive: Archive) -> None:
    archive.add([event(1)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in archive.path.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_a_damaged_archive_is_set_aside_and_a_new_one_begun(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_bytes(b"no database, but long enough to be read as one" * 100)
    with caplog.at_level(logging.ERROR):
        archive = Archive(tmp_path / NAME)
    assert "is damaged" in caplog.text and (tmp_path / f"{NAME}.damaged").exists()
    assert archive.add([event(1)]) == 1


def test_who_only_asks_makes_and_mends_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no archive there; write \[archive\]"):
        Archive(tmp_path / NAME, new=False)
    (tmp_path / NAME).write_bytes(b"no database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="no archive of this program"):
        Archive(tmp_path / NAME, new=False)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_an_archive_of_a_later_version_is_refused(tmp_path: Path) -> None:
    Archive(tmp_path / NAME).close()
    db = sqlite3.connect(tmp_path / NAME)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="version 99; this program reads 1"):
        Archive(tmp_path / NAME)


def test_it_is_read_by_others_while_it_is_written(archive: Archive) -> None:
    reader, seen = Archive(archive.path, new=False), list[int]()

    def read() -> None:
        while not seen or seen[-1] < 300:
            seen.append(reader.count())

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(1, 301):
        archive.add([event(number)])
    thread.join(120)
    assert seen[-1] == 300 and seen == sorted(seen)


def test_the_words_of_events(archive: Archive) -> None:
    words = {
        "person comes into view, enters gate": event(1, "object", entered=["gate"], zones=["gate"]),
        "2 person, dog": event(
            2,
            "detections",
            detections=[
                {"label": label, "class_id": 0, "score": 0.5, "box": [0, 0, 1, 1]}
                for label in ("person", "dog", "person")
            ],
        ),
        "nothing in view": event(3, "detections"),
        "open": event(4, "scores", label="open"),
        "light: lamp on": event(5, "scores", label="light", text="lamp on"),
        "unusual": event(6, "anomaly", unusual=True),
    }
    archive.add(words.values())
    assert [kept.text for kept in archive.events(after=0)] == list(words)
    assert archive.events(Wanted(labels=["dog"]))[0].number == 2


def test_a_kind_that_is_not_known_has_the_words_that_it_has() -> None:
    found = said(
        {"kind": "later", "pipeline": "p", "label": "cat", "text": "two  lines", "why": "so", "n": 3, "zones": "z"}
    )
    assert found.text == "cat. two lines. so" and found.labels == ("cat",) and found.place == "p z"
