"""Addresses: which source answers, and what is said about a wrong one."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_agent.errors import ConfigError, SourceError
from edge_agent.programs import which
from edge_agent.sources import SCHEMES, Here, Opened, microphone, open_source
from edge_agent.types import Audio, Frame, Sample, StreamState, Text
from edge_agent.uri import Uri, parse_uri
from tests.sources.servers import everything


def theirs(uri: Uri, here: Here) -> Opened:
    """Somebody else's source."""

    def run(stop: threading.Event) -> Iterator[Sample | StreamState]:
        yield Text(uri.rest, 0.0, 0.0, here.resume_at)

    return Opened(run, Text, live=False)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("file:photos", 'there is no source "file"; did you mean "files"?'),
        ("zigbee:1", "known are files, camera"),
        ("speaker:0", 'there is no source "speaker"'),
        ("files:", "give the path"),
        ("files:/tmp?fps=abc", "fps=abc: give a number from 0.001 to 1000"),
        ("files:/tmp?fps=nan", "fps=nan: give a number"),
        ("files:/tmp?fps=-1", "fps=-1: give a number"),
        ("files:/tmp?lop=true", 'unknown option "lop"; did you mean "loop"?'),
        ("files:/tmp?loop=perhaps", "loop=perhaps: give true or false"),
        ("files:/tmp?fps=3&pace=own", "either fps or pace=own"),
        ("files:/tmp?pace=fast", "pace=fast: give"),
        ("camera:front", "give the number of a camera"),
        ("camera:0?width=12.5", "width=12.5: give a whole number"),
        ("camera:0?fourcc=MJPEG", "four letters"),
        ("camera:0?stall=0", "stall=0: give a number from 0.1"),
        ("camera:0?dark=dim", "dark=dim: give true or false"),
        ("camera:0?frozen=ice", "frozen=ice: give a number"),
        ("rtsp:nowhere", "has no host"),
        ("rtsp://host:port/x", "is not rtsp://host[:port]/path"),
        ("http://host/x#fsp=5", 'did you mean "fps"?'),
        ("pipe:cat", "give width=W&height=H"),
        ("pipe:cat?width=3&height=2&format=yuv420p", "even width and height"),
        ("pipe:cat?width=2&height=2&format=rgba", "format=rgba: give bgr24 or"),
        ("pipe:cat 'x?width=2&height=2", "close each quote"),
        ("pipe:?width=2&height=2", "give a command"),
        ("lines:", 'or "lines:-" for standard input'),
        ("lines:x?from=middle", "from=middle: give start or end"),
        ("lines:x?rate=fast", "rate=fast: give a number"),
        ("mqtt:a/b?qos=2", "options of a topic stand behind #; write mqtt:a/b#qos=2"),
        ("mqtt:a/b#qos=2", 'unknown option "qos"'),
        ("mqtt:a/b#json=a..b", "write the steps to the text"),
        ("serial:ttyUSB0", "give the path of a port"),
        ("serial:/dev/ttyUSB0?baud=9", "baud=9: give a number from 50"),
        ("serial:/dev/ttyUSB0?parity=no", "parity=no: give none or even"),
        ("journal:", "name a unit"),
        ("journal:-x", "name a unit"),
        ("journal:a?since=1", 'unknown option "since"'),
        ("mqtt:a/b", "no broker is configured; set mqtt.url"),
        ("mqtt:", "is no topic filter"),
        ("mqtt:a/#/b", "is no topic filter"),
        ("mqtt:a/b+", "is no topic filter"),
        ("no.such.package:source:x", "cannot be loaded"),
        ("os.path:join:x", 'source "os.path:join" fails: TypeError: '),
        ("os.path:samefile:x", 'source "os.path:samefile" '),
        ("camera:256", "cameras have numbers from 0 to 255"),
        ("camera:99999999999999999999", "cameras have numbers from 0 to 255"),
    ],
)
def test_a_wrong_address_is_one_clear_line(address: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(parse_uri(address))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("lines:/dev/zero", "a device that has no lines"),
        ("files:{tmp}/none.jpg", "no such file or folder"),
        ("files:{tmp}", "no picture and no recording in this folder"),
        ("files:{tmp}/*.jpg", "no picture, video or recording matches"),
        ("files:{tmp}/note.txt", "no picture, video or recording"),
        ("files:{tmp}/fake.mp4", "no picture, video or recording"),
        ("files:/dev/null", "neither a file nor a folder"),
        ("pipe:no-such-program -x?width=2&height=2", "no-such-program is not installed"),
        ("lines:{tmp}", "is a folder"),
        ("lines:{tmp}/none.txt?follow=false", "no such file"),
    ],
)
def test_what_can_never_be_read_is_one_clear_line(address: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("not a picture")
    (tmp_path / "fake.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(SourceError) as caught:
        open_source(parse_uri(address.format(tmp=tmp_path)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_is_not_repeated() -> None:
    for address in ("rtsp://me:secret@host/x?password=secret#fps=abc", "https://me:secret@host/x#stal=3"):
        with pytest.raises(ConfigError) as caught:
            open_source(parse_uri(address))
        assert "secret" not in str(caught.value)


def test_somebody_elses_source() -> None:
    opened = open_source(parse_uri(f"{__name__}:theirs:hello"), resume_at=7)
    assert [item.mark for item in everything(opened).items if isinstance(item, Text)] == [7]
    assert everything(opened).texts == ["hello"]


def test_every_row_of_the_table_leads_to_a_source(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 255\n\1\2\3")
    addresses = {
        "files": f"files:{tmp_path}",
        "camera": "camera:0",
        "pipe": "pipe:cat?width=2&height=2",
        "lines": "lines:-",
        "mqtt": "mqtt:house/+/said",
        "serial": "serial:/dev/ttyUSB0",
        "journal": "journal:ssh",
        "ffmpeg": "ffmpeg:rtsp://127.0.0.1/x",
        "rpicam": "rpicam:0",
        "jetson": "jetson:0",
    }
    there = {scheme: where for scheme, where in SCHEMES.items() if scheme != "replay"}  # it needs a recording
    try:
        microphone._library()
    except ConfigError:
        # without PortAudio there is none
        del there["microphone"]
    needs = {
        "serial": find_spec("serial"),
        "journal": which("journalctl"),
        "rpicam": which("rpicam-vid"),
        "jetson": which("gst-launch-1.0"),
        "ffmpeg": which("ffmpeg"),
    }
    for scheme in there:
        if needs.get(scheme, True) is None:
            continue  # it says so in a test of its own
        address = addresses.get(scheme, f"{scheme}://127.0.0.1/x")
        opened = open_source(parse_uri(address), subscribe=lambda topic, on_message: lambda: None)
        assert opened.yields in (Frame, Text, Audio)
        assert opened.live == (scheme not in ("files", "lines", "serial", "journal", "mqtt"))
    assert open_source(parse_uri(f"files:{tmp_path}?fps=2")).live
    assert parse_uri("/dev/video3") == Uri("camera", "/dev/video3")


def test_text_sources_do_not_load_cv2() -> None:
    code = (
        "import sys; from edge_agent.uri import parse_uri; from edge_agent.sources import open_source;"
        "open_source(parse_uri('lines:-')); assert 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
