"""Logs as rotations and other programs leave them: compressed, cut and refilled, in UTF-16, with CR, with colours."""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import SourceError
from edge_agent.programs import which
from edge_agent.sources import Opened, lines, open_source, packed, rotation
from edge_agent.sources.splitter import Splitter, width
from edge_agent.sources.text import cleaner
from edge_agent.types import Text
from edge_agent.uri import parse_uri
from tests.sources.servers import Seen, everything, running


def opened(path: Path, options: str = "", resume_at: int | None = None) -> Opened:
    return open_source(parse_uri(f"lines:{path}{'?' if options else ''}{options}"), resume_at=resume_at)


def last_mark(seen: Seen) -> int | None:
    return next((item.mark for item in reversed(seen.items) if isinstance(item, Text)), None)


def read_first(path: Path, count: int) -> int | None:
    """Follow a log until `count` texts have come; the last one's mark."""
    with running(opened(path)) as seen:
        seen.until(lambda: len(seen.texts) >= count)
    return last_mark(seen)


def zstd(data: bytes) -> bytes:
    program = which("zstd")
    if program is None:
        pytest.skip("zstd is not installed: apt install zstd")
    return subprocess.run([program, "-cq"], input=data, capture_output=True, check=True).stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("ending", PACKERS)
@pytest.mark.parametrize("size", [2, 20_000])
def test_a_log_that_was_rotated_and_compressed_while_nobody_read(tmp_path: Path, ending: str, size: int) -> None:
    path = tmp_path / "app.log"
    before, after = [f"line {n}" for n in range(size)], [f"late {n}" for n in range(size)]
    path.write_text("".join(f"{line}\n" for line in before))
    mark = read_first(path, size)
    whole = "".join(f"{line}\n" for line in before + after) + "without its end"
    (tmp_path / f"app.log.1{ending}").write_bytes(PACKERS[ending](whole.encode()))
    path.unlink()
    path.write_text("new\n")
    with running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["new"])
    assert seen.texts == [*after, "without its end", "new"]
    # stopped within it, it goes on there
    half = [item.mark for item in seen.items if isinstance(item, Text)][size // 2]
    with running(opened(path, resume_at=half)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["new"])
    assert seen.texts == [*after[size // 2 + 1 :], "without its end", "new"]


@pytest.mark.parametrize(
    "names", [["l.3.gz", "l.2", "l.1"], ["l-20260101.xz", "l-20260102.gz", "l-20260103"], ["l.12.gz", "l.11.gz", "l.2"]]
)
def test_each_of_several_rotations_is_read(tmp_path: Path, names: list[str]) -> None:
    path = tmp_path / "l"
    path.write_text("1\n2\n")
    mark = read_first(path, 2)
    texts = [b"1\n2\n3\n", b"4\n5\n", b"6\n"]
    for name, text in reversed(list(zip(names, texts, strict=True))):  # their times say nothing
        pack = PACKERS.get(Path(name).suffix, bytes)
        (tmp_path / name).write_bytes(pack(text))
    (tmp_path / "l.bak").write_text("a copy\n")
    (tmp_path / "l.20").write_text("older\n")
    path.write_text("7\n")
    with running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["7"])
    assert seen.texts == ["3", "4", "5", "6", "7"]


def test_what_is_compressed_while_it_is_looked_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    path.write_text("1\n")
    mark = read_first(path, 1)
    rotated.write_text("1\n2\n")
    (tmp_path / "log.save").write_text("1\n")
    path.write_text("3\n")
    siblings = rotation.siblings_of

    def then_compressed(of: Path) -> list[Path]:
        found = siblings(of)
        if rotated.exists():
            (tmp_path / "log.1.gz").write_bytes(gzip.compress(rotated.read_bytes()))
            rotated.unlink()
            (tmp_path / "log.save").unlink()
        return found

    monkeypatch.setattr(lines, "siblings_of", then_compressed)
    with running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["3"])
    assert seen.texts == ["2", "3"]


def test_a_copy_that_somebody_made_is_no_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n")
    mark = read_first(path, 1)
    (tmp_path / "log.1").write_text("1\n2\n")
    path.write_text("3\n")
    (tmp_path / "log.save").write_text("1\n")
    with running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["3"])
    assert seen.texts == ["2", "3"]


def test_two_rotations_within_a_moment_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "GRACE", 0.0)
    path = tmp_path / "log"
    path.write_text("1\n")
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == ["1"])
        (tmp_path / "new").write_text("3\n")
        (tmp_path / "log.1").write_text("2\n")
        path.rename(tmp_path / "log.2")
        (tmp_path / "new").rename(path)
        seen.until(lambda: seen.texts[-1:] == ["3"])
    assert seen.texts == ["1", "2", "3"]


def test_what_is_not_found_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    path.write_text("1\n")
    mark = read_first(path, 1)
    path.write_text("another\n")
    (tmp_path / "log.1.lz4").write_bytes(b"\x04\x22\x4d\x18rest")
    with caplog.at_level(logging.WARNING), running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts == ["another"])
    assert "is gone" in caplog.text and "log.1.lz4 is compressed with lz4" in caplog.text


def test_zstd_without_a_decoder_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "which", lambda name: None)

    def none(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(packed, "import_module", none)
    path = tmp_path / "log"
    path.write_text("1\n")
    mark = read_first(path, 1)
    path.write_text("another\n")
    (tmp_path / "log.1.zst").write_bytes(b"\x28\xb5\x2f\xfdrest")
    with caplog.at_level(logging.WARNING), running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts == ["another"])
    assert "apt install zstd" in caplog.text


@pytest.mark.parametrize("damage", [b"", b"\x1f\x8bnothing"])
def test_a_damaged_rotation_is_passed_over_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: bytes
) -> None:
    path = tmp_path / "log"
    path.write_text("1\n")
    mark = read_first(path, 1)
    whole = gzip.compress(b"1\n" + b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(10_000)))
    (tmp_path / "log.1.gz").write_bytes(damage or whole[: len(whole) // 2])
    path.write_text("another\n")
    with caplog.at_level(logging.WARNING), running(opened(path, resume_at=mark)) as seen:
        seen.until(lambda: seen.texts[-1:] == ["another"])
    assert ("is gone" if damage else "cannot be read to its end") in caplog.text
    assert damage or len(seen.texts) > 1000, "what can be read of it is"


@pytest.mark.parametrize("copy", [None, "log.1", "log.1.gz"])
def test_cut_and_refilled_at_once_to_the_same_size(tmp_path: Path, copy: str | None) -> None:
    path = tmp_path / "log"
    path.write_text("line 1\nline 2\n")
    with running(opened(path)) as seen:
        seen.until(lambda: len(seen.texts) == 2)
        if copy:
            data = b"line 1\nline 2\nlate\n"
            (tmp_path / copy).write_bytes(gzip.compress(data) if copy.endswith("gz") else data)
        with path.open("r+") as file:  # one write: no look can come in between
            file.write("line 3\nline 4\n")
        seen.until(lambda: seen.texts[-1:] == ["line 4"])
    assert seen.texts == ["line 1", "line 2", *(["late"] if copy else []), "line 3", "line 4"]


@pytest.mark.parametrize("options", ["", "follow=false"])
@pytest.mark.parametrize(
    "data", [b"first alarm\rsecond alarm\rthird alarm\r", b"first alarm\r\nsecond alarm\rthird alarm\n"]
)
def test_lines_that_end_in_cr(tmp_path: Path, data: bytes, options: str) -> None:
    path = tmp_path / "log"
    path.write_bytes(data)
    wanted = ["first alarm", "second alarm", "third alarm"]
    with running(opened(path, options)) as seen:
        seen.until(lambda: seen.texts == wanted)
    for number, item in enumerate(item for item in seen.items if isinstance(item, Text)):
        if not options:
            with running(opened(path, resume_at=item.mark)) as again:
                again.until(lambda number=number: again.texts == wanted[number + 1 :])  # type: ignore[misc]
                again.until_state("ok")


SCRIPTS = ["first line\r\nsecond läne\r\n", "第一行\n第二行\n", "строка\rвторая\r", "ab\nc\n"]


@pytest.mark.parametrize("text", SCRIPTS)
@pytest.mark.parametrize("code", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_with_and_without_its_mark(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "log"
    data = text.encode(code)
    path.write_bytes(data)
    wanted = text.splitlines()
    with running(opened(path)) as seen:
        seen.until(lambda: seen.texts == wanted)
        with path.open("ab") as file:  # half a character waits
            more = "später\n".encode(_bare(code))
            file.write(more[:3])
            file.flush()
            file.write(more[3:])
        seen.until(lambda: seen.texts == [*wanted, "später"])
    first = next(item.mark for item in seen.items if isinstance(item, Text))
    with running(opened(path, resume_at=first)) as seen:
        seen.until(lambda: seen.texts == [*wanted[1:], "später"])
    with running(opened(path, "from=end")) as seen:
        seen.until_state("ok")
        with path.open("ab") as file:
            file.write("neu\n".encode(_bare(code)))
        seen.until(lambda: seen.texts == ["neu"])


def _bare(code: str) -> str:
    return "utf-16-le" if code == "utf-16" else code


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        "plain läne\n".encode(),
        "语言\n".encode(),
        b"a\0b\n\0\0\0c\n",
        b"\0" * 256,
        b"x" * 255 + b"\0",
        b"\xff\xffx",
    ],
)
def test_what_is_no_utf16(data: bytes) -> None:
    assert width(data) == ""


def test_utf16_does_not_depend_on_how_the_bytes_arrive() -> None:
    data = "ab\r\nc中\u0a0d\u0d0a\n\nlast".encode("utf-16-be")
    whole = Splitter(0, "utf-16-be")
    wanted = whole.feed(data) + whole.rest()
    assert [raw.decode() for raw, _, _ in wanted] == ["ab", "", "c中\u0a0d\u0d0a", "", "last"]
    for step in range(1, 9):
        parts, got = Splitter(0, "utf-16-be"), []
        for at in range(0, len(data), step):
            got += parts.feed(data[at : at + step])
        assert got + parts.rest() == wanted


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\x1b[31mERROR\x1b[0m pump stopped", "ERROR pump stopped"),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        (b"\x1b[2K\x1b[1Gprogress 5%", "progress 5%"),
        (b"\x1b[38;5;196mred\x1b[m \x1b[1;4mbold\x1b(B", "red bold"),
        (b"#033[32mok#033[0m", "ok"),
        ("\x9b31mred".encode(), "red"),
        (b"\x1b]0;never closed", "0;never closed"),
        (b"array[31m] x#033", "array[31m] x#033"),
        (b"\x1b[", "["),
    ],
)
def test_what_is_meant_for_a_terminal_is_taken_out(raw: bytes, text: str) -> None:
    assert cleaner("x")(raw, 0) == text


def test_a_compressed_file_is_read_once_and_never_followed(tmp_path: Path) -> None:
    path = tmp_path / "old.log.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert everything(opened(path, "follow=false")).texts == ["one", "two"]
    with pytest.raises(SourceError, match=r"gzip.*follow=false"):
        opened(path)
