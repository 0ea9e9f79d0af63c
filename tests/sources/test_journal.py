"""A unit's messages, through journalctl on journals that systemd's own tool makes, and through one that fails."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.errors import SourceError
from edge_agent.sources import journal, open_source
from edge_agent.sources.journal import CHECKED
from edge_agent.types import Text
from edge_agent.uri import parse_uri
from tests.sources.servers import Seen, running

WRITER = "/lib/systemd/systemd-journal-remote"
BOOT = "0123456789abcdef0123456789abcdef"
AT = 1_790_000_000_000_000
"""microseconds since 1970: 2026-09-21"""
written = pytest.mark.skipif(
    not (Path(WRITER).exists() and shutil.which("journalctl")), reason="systemd-journal-remote is not installed"
)


class Journal:
    """A folder with a journal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, *entries: tuple[int, str, bytes], unit: str = "door.service") -> None:
        """Microseconds behind AT, unit and message of each, appended as systemd does."""
        blocks = b""
        for at, of, message in entries:
            size = len(message).to_bytes(8, "little")
            blocks += f"__REALTIME_TIMESTAMP={AT + at}\n__MONOTONIC_TIMESTAMP={at + 1}\n_BOOT_ID={BOOT}\n".encode()
            blocks += f"_SYSTEMD_UNIT={of or unit}\n".encode() + b"MESSAGE\n" + size + message + b"\n\n"
        command = [WRITER, "-o", str(self.folder / "x.journal"), "-"]
        subprocess.run(command, input=blocks, check=True, capture_output=True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PAUSE", 0.05)
    monkeypatch.setattr(journal, "QUIET_S", 0.2)


@pytest.fixture
def there(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def texts_of(seen: Seen) -> list[Text]:
    return [item for item in seen.items if isinstance(item, Text)]


@written
def test_messages_of_the_unit_come_with_their_time(there: Journal) -> None:
    there.add(
        (0, "", b"hello"), (1, "other.service", b"no"), (5, "", "zwei\nZeilen é".encode()), (6, "", b"raw \xff\x01")
    )
    with running(open_source(parse_uri(f"journal:door?from=start&directory={there.folder}"))) as seen:
        seen.until(lambda: len(seen.texts) == 3)
        there.add((1_000_000, "", b"x" * 40_000), (1_000_001, "", b"\x1b[31mlive\x1b[0m"))
        seen.until(lambda: len(seen.texts) == 5)
    assert seen.texts == ["hello", "zwei Zeilen é", "raw \ufffd", "x" * 32_768, "live"]
    first = texts_of(seen)[0]
    assert first.at == pytest.approx(AT / 1e6) and first.mark is not None and first.mark >> CHECKED == AT
    assert seen.states == ["ok"]


@written
def test_it_goes_on_behind_the_last_one_that_was_dealt_with(there: Journal) -> None:
    """Several in one microsecond among them, and what came while nobody looked."""
    there.add((0, "", b"a"), (7, "", b"b"), (7, "", b"c"), (7, "", b"d"), (8, "", b"e"))
    address = parse_uri(f"journal:door.service?from=start&directory={there.folder}")
    with running(open_source(address)) as seen:
        seen.until(lambda: len(seen.texts) == 5)
    marks = [text.mark for text in texts_of(seen)]
    there.add((9, "", b"f"))
    for at, mark in enumerate(marks):
        with running(open_source(address, resume_at=mark)) as later:
            later.until(lambda: "f" in later.texts)
        assert later.texts == [*"abcdef"][at + 1 :]
    with running(open_source(address, resume_at=((AT + 7) << CHECKED) + 0)) as later:
        later.until(lambda: "f" in later.texts)
    assert later.texts == [*"bcdef"], "of a journal that lacks it nothing of that time is left out"


@written
def test_a_mark_of_another_source_is_said_and_it_goes_on_from_now(
    there: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    there.add((0, "", b"old"))
    with running(open_source(parse_uri(f"journal:door?directory={there.folder}"), resume_at=4096)) as seen:
        seen.until_state("ok")
        now = int(time.time() * 1e6) + 1_000_000 - AT
        there.add((now, "", b"new"))
        seen.until(lambda: bool(seen.texts))
    assert seen.texts == ["new"]
    assert "journal:door: what was read last is no message of a journal; it goes on from now" in caplog.messages


# ── a stand-in for journalctl, which fails as the real one would only on a broken system ─────────────────


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    yield folder / "journalctl"


def entry(at: int, message: object) -> str:
    return json.dumps({"__CURSOR": f"c{at}", "__REALTIME_TIMESTAMP": str(AT + at), "MESSAGE": message})


def put(program: Path, text: str) -> None:
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)


def test_one_that_ends_is_started_again_behind_the_last_message(stand_in: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    put(stand_in, f"echo \"$@\" >> {asked}\necho '{entry(0, 'a')}'\necho '{entry(1, 'b')}'\necho it broke >&2\nexit 3")
    with running(open_source(parse_uri("journal:door?from=start&user=true"))) as seen:
        seen.until(lambda: asked.exists() and asked.read_text().count("\n") > 2)
    asked_for = asked.read_text().splitlines()
    assert "--user-unit=door" in asked_for[0] and asked_for[0].endswith("--since=@0.000000")
    assert asked_for[1].endswith(f"--since=@{AT // 10**6}.000001")
    assert any("journalctl ended with exit status 3: it broke" in why for why in seen.whys)


def test_one_that_is_not_allowed_to_see_says_so(stand_in: Path) -> None:
    hint = "Hint: You are currently not seeing messages from other users and the system."
    put(stand_in, f"echo '{hint}' >&2\nexec sleep 60")
    with running(open_source(parse_uri("journal:door"))) as seen:
        seen.until_state("stalled")
    assert "not seeing messages" in seen.whys[-1] and "systemd-journal" in seen.whys[-1]


def test_what_is_no_message_is_counted_and_the_rest_is_read(stand_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = ["no json", "[]", "{}", entry(1, None), entry(2, [256]), entry(3, [104, 105]), entry(4, {"a": 1})]
    rows += [
        '{"__CURSOR":"c","__REALTIME_TIMESTAMP":"x","MESSAGE":"m"}',
        entry(10**400, "far"),
        "x" * 3_000_000,
        entry(5, "end"),
    ]
    rows.insert(0, entry(10**400, "far"))
    (stand_in.parent / "rows").write_text("\n".join(rows) + "\n")
    put(stand_in, f"cat {stand_in.parent}/rows\nexec sleep 60")
    with caplog.at_level(logging.WARNING), running(open_source(parse_uri("journal:door?from=start"))) as seen:
        seen.until(lambda: "end" in seen.texts)
    assert seen.texts == ["hi", "end"]
    assert caplog.messages[0].endswith("no message can be read in what journalctl says (1 so far)")


def test_without_journalctl_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="journalctl is not installed"):
        open_source(parse_uri("journal:door"))
