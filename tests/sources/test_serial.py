"""A serial port, which is a pseudo terminal here: lines, unplugged and back, busy, noise."""

from __future__ import annotations

import os
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.errors import SourceError
from edge_agent.sources import open_source, serial
from edge_agent.sources.text import LONGEST
from edge_agent.uri import parse_uri
from tests.sources.servers import running

pytest.importorskip("serial", reason="the extra [serial] is not installed")


class Cable:
    """A device that is plugged in under a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug()

    def plug(self) -> None:
        self.end, port = os.openpty()
        tty.setraw(port)
        self.path.symlink_to(os.ttyname(port))
        self._port = port

    def unplug(self) -> None:
        self.path.unlink()
        os.close(self._port)
        os.close(self.end)

    def say(self, what: bytes) -> None:
        while what:
            what = what[os.write(self.end, what) :]


@pytest.fixture
def cable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cable:
    monkeypatch.setattr(serial, "PAUSE", 0.05)
    return Cable(tmp_path / "ttyUSB0")


def test_lines_of_all_ends_are_read_as_of_a_file(cable: Cable, caplog: pytest.LogCaptureFixture) -> None:
    uri = parse_uri(f"serial:{cable.path}?baud=115200&parity=even&bits=8&stop=2")
    with running(open_source(uri)) as seen:
        seen.until_state("ok")
        cable.say(b"one\r\ntwo\nthree\rcaf\xc3\xa9 \x1b[1mbold\x1b[0m\n\n  \nlatin \xe9\n")
        seen.until(lambda: len(seen.texts) == 5)
        cable.say(b"y" * (LONGEST + 10) + b"\nend\nhalf a li")
        seen.until(lambda: "end" in seen.texts)
    assert seen.texts == ["one", "two", "three", "café bold", "latin \ufffd", "y" * LONGEST, "end"]
    assert any("a line that has not ended is dropped" in message for message in caplog.messages)
    assert seen.states == ["ok"]


def test_it_is_waited_for_when_it_is_unplugged_and_comes_back(cable: Cable) -> None:
    with running(open_source(parse_uri(f"serial:{cable.path}"))) as seen:
        seen.until_state("ok")
        cable.say(b"before\n")
        seen.until(lambda: "before" in seen.texts)
        cable.unplug()
        seen.until(lambda: any("is not there; plug it in" in why for why in seen.whys))
        count = len(seen.states)
        cable.plug()
        seen.until_state("ok", behind=count)
        cable.say(b"after\n")
        seen.until(lambda: "after" in seen.texts)
    assert seen.texts == ["before", "after"]
    assert seen.states.count("ok") == 2


def test_a_port_that_somebody_has_is_said_once_and_waited_for(cable: Cable) -> None:
    from serial import Serial

    other = Serial(str(cable.path), exclusive=True)
    with running(open_source(parse_uri(f"serial:{cable.path}"))) as seen:
        seen.until_state("reconnecting")
        assert "another program has it" in seen.whys[0]
        other.close()
        seen.until_state("ok")
    assert seen.states == ["reconnecting", "ok"]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("no port"), "cannot be opened as it is set"),
        (lambda path: None, "is not there; plug it in"),
    ],
)
def test_what_is_no_port_is_said_in_a_line(make: Callable[[Path], object], why: str, tmp_path: Path) -> None:
    path = tmp_path / "port"
    make(path)
    with running(open_source(parse_uri(f"serial:{path}"))) as seen:
        seen.until_state("reconnecting")
    assert why in seen.whys[0] and "\n" not in seen.whys[0]


def test_a_port_that_may_not_be_opened_names_the_group(cable: Cable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may open any, so the refusal is made here."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("serial.Serial", refuse)
    with running(open_source(parse_uri(f"serial:{cable.path}"))) as seen:
        seen.until_state("reconnecting")
    assert "sudo usermod -aG dialout" in seen.whys[0]


def test_noise_is_said_and_text_after_it_too(cable: Cable) -> None:
    """As it comes at a wrong rate."""
    noise = bytes((7 * n * n + 13 * n) % 256 for n in range(512)).replace(b"\n", b"\x80").replace(b"\r", b"\x81")
    with running(open_source(parse_uri(f"serial:{cable.path}?baud=1200"))) as seen:
        seen.until_state("ok")
        cable.say(noise + b"\n")
        seen.until_state("stalled")
        assert "most of what comes is no text; is baud=1200 right" in seen.whys[-1]
        for number in range(400):
            cable.say(b"temperature %d, humidity %d, all of it is text\n" % (number, number))
        seen.until(lambda: seen.states[-1] == "ok")
    assert seen.states == ["ok", "stalled", "ok"]


def test_without_pyserial_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "serial", None)
    with pytest.raises(SourceError, match=r'pip install "edge-agent-runtime\[serial\]"'):
        open_source(parse_uri("serial:/dev/ttyUSB0"))
