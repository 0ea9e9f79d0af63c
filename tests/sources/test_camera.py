"""RTSP from a real server, and the addresses of cameras. No test machine has a V4L2 device."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.sources import open_source, tunnel
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, rtsp_server, running


def test_rtsp_hangs_dies_and_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    camera = Camera()
    with rtsp_server(camera) as server:
        address = f"rtsp://127.0.0.1:{server.port}/stream?channel=1#stall=0.8&frozen=0.3"
        with running(open_source(parse_uri(address))) as seen:
            seen.until_frames(5)
            assert seen.states[0] == "ok"
            assert (seen.frames[0].width, seen.frames[0].height) == (160, 96)

            camera.mode = "hang"
            seen.until_state("stalled")
            camera.mode = "live"
            seen.until(lambda: seen.states[-1] == "ok", "recovery from a hang")

            marked = len(seen.states)
            server.stop()
            seen.until_state("reconnecting", marked)
            seen.until(lambda: any("refused" in why for why in seen.whys), "the reason")
            camera.size = (64, 240)
            server.start()
            seen.until_state("ok", marked)
            seen.until(lambda: (seen.frames[-1].width, seen.frames[-1].height) == (64, 240), "another size")

            for mode, condition in (("black", "dark"), ("frozen", "frozen")):
                marked = len(seen.states)
                camera.mode = mode
                seen.until_state(condition, marked)
                camera.mode = "live"
                seen.until_state("ok", marked)
    assert capfd.readouterr().err == "", "FFmpeg is quiet"


def test_a_frame_belongs_to_its_holder() -> None:
    camera = Camera()
    with rtsp_server(camera) as server, running(open_source(parse_uri(f"rtsp://127.0.0.1:{server.port}/x"))) as seen:
        seen.until_frames(1)
        first = seen.frames[0]
        before = first.image.copy()
        seen.until_frames(10)
        assert (first.image == before).all()
        assert not any(first.image is frame.image for frame in seen.frames[1:])


def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    camera = Camera()
    with rtsp_server(camera) as server:
        server.stop()
        address = f"rtsp://me:secret@127.0.0.1:{server.port}/stream"
        with running(open_source(parse_uri(address))) as seen:
            seen.until_state("reconnecting")
            assert seen.whys == [f"127.0.0.1:{server.port}: Connection refused"]
            server.start()
            seen.until_frames(1)
            assert seen.states[-1] == "ok"


def test_a_camera_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    for address, said in (
        ("camera:97", "no camera at /dev/video97"),
        ("/dev/video98", "no camera at /dev/video98"),
        (f"camera:{tmp_path / 'file'}?width=640&height=480&fps=5&fourcc=MJPG", "is no camera"),
    ):
        (tmp_path / "file").write_text("no camera")
        with running(open_source(parse_uri(address))) as seen:
            seen.until_state("reconnecting")
            assert said in seen.whys[0]


def test_a_picture_that_lost_a_part_on_its_way_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("simplejpeg")

    class Lossy(Camera):
        def jpeg(self) -> bytes | None:
            data = super().jpeg() or b""
            return data if self.served % 2 else data[: len(data) // 2] + b"\xff\xd9"

    camera = Lossy()
    with rtsp_server(camera) as server, running(open_source(parse_uri(f"rtsp://127.0.0.1:{server.port}/x"))) as seen:
        seen.until_frames(10)
        assert len(seen.frames) <= camera.served // 2 + 2
        seen.until(lambda: "a frame was left out, it is cut off or damaged" in caplog.text, "the log")
    assert all(frame.image[-20:].std() > 10 for frame in seen.frames), "no grey lower half"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("megapixels=0.01", "claims 160×96 pixels, more than 0.01 million"),
        ("megabytes=0.01", "is larger than 0.01 MiB"),
    ],
)
def test_what_one_picture_of_a_stream_may_have(caplog: pytest.LogCaptureFixture, options: str, said: str) -> None:
    with rtsp_server(Camera()) as server:
        address = f"rtsp://127.0.0.1:{server.port}/x"
        with running(open_source(parse_uri(f"{address}#{options}"))) as seen:
            seen.until(lambda: said in caplog.text, said)
        assert not seen.frames
        with running(open_source(parse_uri(f"{address}#megapixels=1&megabytes=1"))) as seen:
            seen.until_frames(1)


def test_bytes_that_never_make_a_frame_are_not_taken_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "MOST_SINCE", 1 << 16)
    with (
        rtsp_server(Camera(640, 480)) as server,
        running(open_source(parse_uri(f"rtsp://127.0.0.1:{server.port}/x"))) as seen,
    ):
        seen.until_state("reconnecting")
        assert "more than 0.0625 MiB without a frame" in seen.whys[0]
