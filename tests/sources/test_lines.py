"""Files that grow, rotate and are cut; FIFOs; standard input."""

from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.sources import Opened, lines, open_source
from edge_agent.sources.rotation import OFFSET
from edge_agent.sources.splitter import Splitter
from edge_agent.sources.text import LONGEST, cleaner
from edge_agent.types import Text
from edge_agent.uri import parse_uri
from tests.sources.servers import Seen, everything, running


def opened(path: Path | str, options: str = "", resume_at: int | None = None) -> Opened:
    return open_source(parse_uri(f"lines:{path}{'?' if options else ''}{options}"), resume_at=resume_at)


def marks(seen: Seen) -> list[int | None]:
    """The offsets in the marks."""
    found = [item.mark for item in seen.items if isinstance(item, Text)]
    return [None if mark is None else mark & OFFSET for mark in found]


def append(path: Path, text: str | bytes) -> None:
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_a_file_is_read_once_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\r\n\n  \t\ntwo\x00\x07\x1b[0m\tx\n\xef\xbb\xbfthree e\xcc\x81\nlast")
    seen = everything(opened(path, "follow=false"))
    assert seen.texts == ["one", "two\tx", "three é", "last"]
    assert marks(seen) == [4, 22, 35, 39]
    assert seen.states == ["ok", "ended"]


def test_a_growing_file_is_followed_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\nhal")
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == ["one"])
        append(path, "f a l")
        time.sleep(0.25)
        assert seen.texts == ["one"]
        append(path, "ine\nnext\n")
        seen.until(lambda: seen.texts == ["one", "half a line", "next"])
        assert marks(seen) == [4, 16, 21]


def test_only_what_comes_after_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old\nhalf of an old")
    with running(opened(path, "from=end")) as seen:
        seen.until_state("ok")
        time.sleep(0.25)
        append(path, " line\nnew\n")
        seen.until(lambda: seen.texts == ["new"])
        assert marks(seen) == [path.stat().st_size]


def test_a_missing_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "later.txt"
    with running(opened(path)) as seen:
        seen.until_state("reconnecting")
        assert seen.whys == [f"waiting for {path}: No such file or directory"]
        path.write_text("here\n")
        seen.until(lambda: seen.texts == ["here"])
        assert seen.states == ["reconnecting", "ok"]


def test_rotation_loses_and_doubles_nothing(tmp_path: Path) -> None:
    path, old = tmp_path / "log", tmp_path / "log.1"
    path.write_text("1\n2\n")
    with running(opened(path)) as seen:
        seen.until(lambda: len(seen.texts) == 2)
        writer, fresh = path.open("a"), tmp_path / "fresh"
        writer.write("3\n4 without its end")
        fresh.write_text("5\n6\n")
        path.rename(old)
        fresh.rename(path)
        # its writer had not been told yet
        writer.close()
        seen.until(lambda: len(seen.texts) == 6)
        assert seen.texts == ["1", "2", "3", "4 without its end", "5", "6"]
        append(path, "7\n")
        seen.until(lambda: len(seen.texts) == 7)
        assert marks(seen)[-1] == 6


def test_a_name_that_is_gone_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n")
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == ["1"])
        path.unlink()
        time.sleep(0.3)
        path.write_text("2\n")
        seen.until(lambda: seen.texts == ["1", "2"])


def test_a_file_that_is_cut_is_read_from_its_new_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a long first line\nhalf")
    with running(opened(path)) as seen:
        seen.until(lambda: len(seen.texts) == 1)
        time.sleep(0.3)
        os.truncate(path, 0)
        seen.until(lambda: len(seen.texts) == 2)
        append(path, "new\n")
        seen.until(lambda: seen.texts == ["a long first line", "half", "new"])
        assert marks(seen)[-1] == 4


@pytest.mark.parametrize(
    ("resume_at", "texts"),
    [
        (None, ["one", "two", "three"]),
        (0, ["one", "two", "three"]),
        (4, ["two", "three"]),
        (8, ["three"]),
        (14, []),
        (15, ["one", "two", "three"]),
        (5, ["one", "two", "three"]),
        (-3, ["one", "two", "three"]),
    ],
)
def test_it_goes_on_where_it_stopped(tmp_path: Path, resume_at: int | None, texts: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\nthree\n")
    assert everything(opened(path, "follow=false", resume_at)).texts == texts


def mark_of(path: Path) -> int | None:
    """Where a file that is read to its end is left."""
    seen = everything(opened(path, "follow=false"))
    return next(item.mark for item in reversed(seen.items) if isinstance(item, Text))


def test_another_file_under_the_name_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"temp {index:04}\n" for index in range(100)))
    mark = mark_of(path)
    append(path, "temp 0100\n")
    assert everything(opened(path, "follow=false", mark)).texts == ["temp 0100"], "it has grown"
    path.write_text("".join(f"temp {index:04}\n" for index in range(1000, 1150)))
    assert len(everything(opened(path, "follow=false", mark)).texts) == 150


@pytest.mark.parametrize(("name", "rotated"), [("log", "log.1"), ("a.log", "a-20260101.log"), ("a.log", "a.log.1")])
def test_the_rest_of_a_file_that_was_rotated_while_nobody_read(tmp_path: Path, name: str, rotated: str) -> None:
    path = tmp_path / name
    path.write_text("1\n2\n")
    mark = mark_of(path)
    append(path, "3\n4 without its end")
    path.rename(tmp_path / rotated)
    (tmp_path / "b.log.1").write_text("1\n2\nof another log\n")
    (tmp_path / f"{name}.2.gz").write_bytes(os.urandom(100))
    path.write_text("5\n")
    with running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts == ["3", "4 without its end", "5"])
    half = next(item.mark for item in seen.items if isinstance(item, Text))
    with running(opened(path, resume_at=half)) as seen:
        seen.until(lambda: seen.texts == ["4 without its end", "5"])
    last = next(item.mark for item in reversed(seen.items) if isinstance(item, Text))
    with running(opened(path, resume_at=last)) as seen:
        seen.until_state("ok")
        append(path, "6\n")
        seen.until(lambda: seen.texts == ["6"])


def test_a_mark_of_an_older_version_finds_no_rotated_file(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("a long line\nanother\n")
    path = tmp_path / "log"
    path.write_text("new\n")
    with running(opened(path, resume_at=12)) as seen:
        seen.until(lambda: seen.texts == ["new"])


def test_a_writer_that_stays_in_the_file_that_was_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GRACE", 0.0)
    path = tmp_path / "log"
    path.write_text("1\n")
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == ["1"])
        path.rename(tmp_path / "log.1")
        path.write_text("2\n")
        seen.until(lambda: seen.texts == ["1", "2"])
        append(tmp_path / "log.1", "late\nlater")
        seen.until(lambda: seen.texts == ["1", "2", "late"])
        assert marks(seen)[-1] == 2, "a restart goes on in the new file"
        append(path, "3\n")
        seen.until(lambda: seen.texts == ["1", "2", "late", "3"])


def test_a_folder_under_the_name_is_waited_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n")
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == ["1"])
        path.unlink()
        path.mkdir()
        seen.until_state("reconnecting")
        assert seen.whys[-1] == f"waiting for {path}: Is a directory"
        path.rmdir()
        path.write_text("2\n")
        seen.until(lambda: seen.texts == ["1", "2"])


def test_a_writer_that_keeps_its_place_in_a_file_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb", buffering=0) as writer, running(opened(path)) as seen:
        writer.write(b"x" * 99 + b"\n")
        writer.write((b"x" * 99 + b"\n") * 999)
        seen.until(lambda: len(seen.texts) == 1000)
        os.truncate(path, 0)
        time.sleep(0.3)
        writer.write(b"behind a hole of more than a line may have\n")
        seen.until(lambda: len(seen.texts) == 1001)
        assert seen.texts[-1] == "behind a hole of more than a line may have"


def test_restarts_at_any_line_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    wanted = [f"line {index} " + "x" * (index % 50) for index in range(400)]
    chance = random.Random(4)

    def write() -> None:
        rest = "".join(f"{line}\n" for line in wanted)
        while rest:
            size = chance.randrange(1, 200)
            append(path, rest[:size])
            rest = rest[size:]
            time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    got: list[str] = []
    mark: int | None = None
    end = time.monotonic() + 120
    while len(got) < len(wanted) and time.monotonic() < end:
        stop = threading.Event()
        for item in opened(path, "", mark).run(stop):
            if isinstance(item, Text):
                got.append(item.text)
                mark = item.mark
                if chance.random() < 0.05 or len(got) == len(wanted):
                    stop.set()
                    break
    writer.join()
    assert got == wanted


def test_a_fifo_and_its_writers(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with running(opened(path)) as seen:
        seen.until_state("ok")
        for words in ("one\ntwo without its end", "three\n"):
            before = len(seen.texts)
            with path.open("w") as file:
                file.write(words)
            seen.until(lambda before=before: len(seen.texts) > before and not seen.texts[-1].startswith("one"))  # type: ignore[misc]
        assert seen.texts == ["one", "two without its end", "three"]
        assert marks(seen) == [None] * 3
        assert seen.states == ["ok"]


@pytest.mark.parametrize("idle", [True, False], ids=["a writer holds the old one", "nobody does"])
def test_a_fifo_that_another_or_a_file_takes_the_place_of(tmp_path: Path, idle: bool) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with running(opened(path)) as seen:
        seen.until_state("ok")
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, b"one\n")
        if not idle:
            os.close(writer)
        seen.until(lambda: seen.texts == ["one"])
        os.mkfifo(tmp_path / "fresh")
        (tmp_path / "fresh").rename(path)
        append(path, "two\n")
        seen.until(lambda: seen.texts == ["one", "two"])
        (tmp_path / "file").write_text("three\n")
        (tmp_path / "file").rename(path)
        seen.until(lambda: seen.texts == ["one", "two", "three"])
        if idle:
            os.close(writer)


def test_a_stop_gives_what_was_written_into_a_fifo(tmp_path: Path) -> None:
    path, stop = tmp_path / "fifo", threading.Event()
    os.mkfifo(path)
    source = opened(path)
    run = source.run(stop)
    next(run)
    writer = os.open(path, os.O_RDWR)
    os.write(writer, "".join(f"{index}\n" for index in range(1000)).encode())
    first = next(run)
    assert source.left() == 999, "read, and lost if nobody asks for them"
    os.write(writer, b"written since\nhalf")
    stop.set()
    texts = [item.text for item in (first, *run) if isinstance(item, Text)]
    assert texts == [*map(str, range(1000)), "written since", "half"] and source.left() == 0
    os.close(writer)


def test_a_fifo_that_is_not_followed_ends_with_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    with running(opened(path, "follow=false")) as seen:
        seen.until_state("ok")
        with path.open("w") as file:
            file.write("only\n")
        seen.until_state("ended")
        assert seen.texts == ["only"]


READ_STDIN = """
import threading
from edge_agent.uri import parse_uri
from edge_agent.errors import SourceError
from edge_agent.sources import open_source
try:
    for item in open_source(parse_uri("lines:-")).run(threading.Event()):
        print(repr(getattr(item, "text", getattr(item, "condition", None))))
except SourceError as error:
    print(error)
"""


def test_standard_input_until_its_end(tmp_path: Path) -> None:
    whole = "'ok'\n'one'\n'two'\n'ended'\n"
    command = [sys.executable, "-c", READ_STDIN]
    piped = subprocess.run(command, input="one\n\ntwo", capture_output=True, text=True, timeout=60, check=True)
    assert piped.stdout == whole
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with (tmp_path / "a.txt").open() as file:
        assert subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=60).stdout == whole
    closed = subprocess.run(
        ["sh", "-c", 'exec "$0" "$@" <&-', *command], capture_output=True, text=True, timeout=60, check=True
    )
    assert "standard input is closed" in closed.stdout


def test_long_and_invalid_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1_000_000 + b"\n" + b"caf\xe9\n" * 12 + "é".encode() * 20_000 + b"\nend\n")
    with caplog.at_level(logging.WARNING, "edge_agent"):
        seen = everything(opened(path, "follow=false"))
    assert [len(text.encode()) for text in seen.texts[:1]] == [LONGEST]
    assert seen.texts[1:13] == ["caf\ufffd"] * 12
    assert seen.texts[13] == "é" * (LONGEST // 2)
    assert seen.texts[14] == "end"
    assert marks(seen)[-1] == path.stat().st_size
    said = [record.getMessage().split(": ", 1)[1] for record in caplog.records]
    assert said == [
        "a line of more than 32768 bytes was cut (1 so far)",
        "a line is not UTF-8; U+FFFD stands for what could not be read (1 so far)",
        "a line is not UTF-8; U+FFFD stands for what could not be read (10 so far)",
    ]


@pytest.mark.parametrize("sign", ["é", "語", "😀"])
@pytest.mark.parametrize("before", range(5))
def test_a_cut_never_leaves_half_a_character(sign: str, before: int) -> None:
    text = cleaner("test")(("x" * before + sign * LONGEST).encode()[: LONGEST + 1], 0)
    assert set(text) <= {"x", sign}
    assert LONGEST - 3 <= len(text.encode()) <= LONGEST


@settings(max_examples=60)
@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(data: bytes, steps: list[int]) -> None:
    whole = Splitter(100)
    wanted = whole.feed(data) + whole.rest()
    parts, got, at = Splitter(100), [], 0
    for step in steps * 300:
        got += parts.feed(data[at : at + step])
        at += step
    assert got + parts.rest() == wanted
    assert [line for line, _, _ in wanted] == [line.lstrip(b"\0") for line in data.replace(b"\r", b"\n").split(b"\n")][
        : len(wanted)
    ]
    ends = data.count(b"\n") + data.count(b"\r")
    assert all(data[mark - 101 : mark - 100] in (b"\n", b"\r") for _, _, mark in wanted[:ends])


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_become_a_clean_line(raw: bytes) -> None:
    text = cleaner("test")(raw, 0)
    assert not any(ord(sign) < 32 and sign != "\t" for sign in text)
    assert text == "" or not text.isspace()
    text.encode()


def test_what_parts_lines_elsewhere_parts_words() -> None:
    clean = cleaner("x")
    assert clean(b"10%\r20%\r\r", 0) == "10% 20% "
    assert clean("a\vb\fc\x85d".encode(), 0) == "a b c d"
    assert clean(b"end\r", 0) == "end" and clean(b"\r\v", 0) == ""


def test_rate_spreads_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{index}\n" for index in range(6)))
    texts = [item for item in everything(opened(path, "follow=false&rate=20")).items if isinstance(item, Text)]
    assert texts[-1].mono - texts[0].mono > 5 / 20 * 0.95
