"""The program ffmpeg as a decoder: the real one on a file and on RTSP servers, and one that fails as it does."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.cli.places import places_of
from edge_agent.errors import ConfigError, SourceError
from edge_agent.sources import ffmpeg, open_source
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, certificate, rtsp_server, running, served_with, talking

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@needs_ffmpeg
def test_a_file_comes_at_its_own_speed_in_the_size_that_is_asked_for(data: Path) -> None:
    video = data / "video" / "vtest.avi"
    with running(open_source(parse_uri(f"ffmpeg:{video}#width=384&decoder=software"))) as seen:
        seen.until_frames(5)
    good, first = cv2.VideoCapture(str(video)).read()
    assert good and seen.frames[0].image.shape == (288, 384, 3)
    assert np.abs(seen.frames[0].image.astype(int) - cv2.resize(first, (384, 288))).mean() < 12


@needs_ffmpeg
def test_a_camera_is_read_and_its_password_is_in_no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    real = subprocess.Popen

    def noted(command: list[str], **options: object) -> object:
        started.append(command)
        return real(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", noted)
    camera = Camera()
    with rtsp_server(camera) as server:
        address = f"ffmpeg:rtsp://me:secret@127.0.0.1:{server.port}/it's?channel=1#stall=1&decoder=software&frozen=off"
        with running(open_source(parse_uri(address))) as seen:
            seen.until_frames(5)
            camera.mode = "hang"
            seen.until_state("stalled")
            camera.mode = "live"
            seen.until(lambda: seen.states[-1] == "ok")
    assert seen.frames[0].image.shape == (96, 160, 3)
    assert len(started) >= 2 and "secret" not in str(started) and "rtsp://" not in str(started)
    assert "secret" not in str(seen.whys)


@needs_ffmpeg
def test_a_certificate_is_checked_before_anything_is_said(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "IP:127.0.0.1")
    with rtsp_server(Camera(), served_with(cert, key)) as server:
        address = f"ffmpeg:rtsps://u:p@127.0.0.1:{server.port}/x#decoder=software"
        with running(open_source(parse_uri(address))) as seen:
            seen.until(lambda: any("certificate" in why.lower() for why in seen.whys))
            assert not seen.frames
        with running(open_source(parse_uri(f"{address}&ca={cert}"))) as seen:
            seen.until_frames(1)


@needs_ffmpeg
def test_a_camera_leads_nowhere_else() -> None:
    camera = Camera()
    with rtsp_server(camera) as other:

        def serve(client: socket.socket, request: str) -> None:
            client.sendall(
                f"RTSP/1.0 302 Found\r\nCSeq: 1\r\nLocation: rtsp://127.0.0.1:{other.port}/\r\n\r\n".encode()
            )

        with talking(serve) as server:
            address = f"ffmpeg:rtsp://u:p@127.0.0.1:{server.port}/x#decoder=software"
            with running(open_source(parse_uri(address))) as seen:
                seen.until(lambda: any("leads to another address" in why for why in seen.whys))
        assert not camera.served


@needs_ffmpeg
@pytest.mark.parametrize(
    "trick", ["ffconcat version 1.0\nfile 'secret.avi'\n", "#EXTM3U\n#EXTINF:1,\nsecret.avi\n", "x"]
)
def test_a_file_that_is_no_video_is_refused_in_words(trick: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(trick)
    with running(open_source(parse_uri(f"ffmpeg:{tmp_path}/list#decoder=software"))) as seen:
        seen.until(lambda: any("ended with exit status" in why for why in seen.whys))
    assert not seen.frames


STAND_IN = """#!{python}
import sys, os
if "-hwaccels" in sys.argv:
    print("Hardware acceleration methods:\\nvaapi")
elif "-hwaccel" in sys.argv:
    sys.exit("Device creation failed: -5.")
elif "-decoders" in sys.argv:
    print(" V..... h264 (codec h264)")
else:
    assert sys.stdin.read().startswith("ffconcat version 1.0\\nfile 'file:/")
    sys.stdout.buffer.write(b"YUV4MPEG2 W8 H8 F25:1 C420jpeg\\n")
    while True:
        sys.stdout.buffer.write(b"FRAME\\n" + os.urandom(96))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ffmpeg"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def test_a_decoder_of_the_board_that_fails_is_left_for_software(
    stand_in: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    row = ffmpeg.HARDWARE["vaapi"]._replace(device=stand_in)
    others = {name: each._replace(device=Path("/none")) for name, each in ffmpeg.HARDWARE.items()}
    monkeypatch.setattr(ffmpeg, "HARDWARE", {**others, "vaapi": row})
    opened = open_source(parse_uri("ffmpeg:film.mp4"))
    assert opened.about() == "decoded by vaapi"
    with running(opened) as seen:
        seen.until_frames(3)
    assert any("Device creation failed" in why for why in seen.whys)
    assert "now with decoder software" in caplog.text and opened.about() == "decoded by software"


def test_a_decoder_that_this_ffmpeg_lacks_is_named(stand_in: Path) -> None:
    with pytest.raises(SourceError, match="is built without v4l2m2m; leave decoder out"):
        open_source(parse_uri("ffmpeg:film.mp4#decoder=v4l2m2m"))


def test_without_ffmpeg_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match="sudo apt install ffmpeg"):
        open_source(parse_uri("ffmpeg:rtsp://h/x"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ffmpeg:", "give an address or a file"),
        ("ffmpeg://host/x", "as in ffmpeg:rtsp://host/path"),
        ("ffmpeg:concat://a", "is none of rtsp"),
        ("ffmpeg:rtsp://", "has no host"),
        ("ffmpeg:rtsp://u:p@h/a\nfile 'x'", "write a space"),
        ("ffmpeg:film.mp4\nfile x", "give an address or a file"),
        ("ffmpeg:rtsp://h/x#width=5", "give a number from 16"),
        ("ffmpeg:rtsp://h/x#width=101", "give an even width"),
        ("ffmpeg:rtsp://h/x#decoder=gpu", "give auto or software"),
        ("ffmpeg:rtsp://h/x#ca=a.pem", "are for https and rtsps"),
    ],
)
def test_a_wrong_address_is_one_line(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        open_source(parse_uri(address))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["ffmpeg:rtsp://u:secret@h/x", "ffmpeg:film.mp4", "rpicam:0", "jetson:0"])
def test_the_verb_detect_takes_it_for_an_address(address: str) -> None:
    (place,) = places_of(address)
    assert place.address == address and "secret" not in place.name
