"""MJPEG over HTTP from a real server that is stopped, started and made to fail."""

from __future__ import annotations

import logging

import pytest

from edge_agent.config import parse_uri
from edge_agent.errors import SourceError
from edge_agent.sources import open_source
from edge_agent.sources.mjpeg import multipart

from .servers import Camera, Server, mjpeg_server, running


@pytest.fixture()
def camera() -> Camera:
    return Camera()


def at(server: Server, path: str = "video", options: str = "stall=0.6&frozen=0.3") -> str:
    return f"http://127.0.0.1:{server.port}/{path}#{options}"


def test_a_stream_that_hangs_dies_and_comes_back(camera: Camera) -> None:
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server)))) as seen:
        seen.until_frames(5)
        assert seen.states == ["ok"]
        frame = seen.frames[0]
        assert (frame.width, frame.height) == (160, 96)
        assert frame.decode_ms > 0
        assert frame.image.flags.owndata

        camera.mode = "hang"
        seen.until_state("stalled")
        seen.until_state("reconnecting")
        camera.mode = "live"
        seen.until(lambda: seen.states[-1] == "ok", "recovery from a hang")

        marked = len(seen.states)
        server.stop()
        seen.until_state("reconnecting", marked)
        seen.until(lambda: any("refused" in why for why in seen.whys), "the reason")
        server.start()
        seen.until_state("ok", marked)
        camera.size = (64, 240)
        seen.until(lambda: (seen.frames[-1].width, seen.frames[-1].height) == (64, 240), "another size")
        assert seen.states[-1] == "ok"


def test_black_flat_and_frozen_pictures_are_never_given(camera: Camera) -> None:
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server, "bare")))) as seen:
        seen.until_frames(2)
        for mode, condition in (("black", "dark"), ("frozen", "frozen"), ("flat", "dark")):
            marked = len(seen.states)
            camera.mode = mode
            seen.until_state(condition, marked)
            given, served = len(seen.frames), camera.served
            seen.until(lambda served=served: camera.served > served + 10, "more of the same")  # type: ignore[misc]
            assert len(seen.frames) == given
            camera.mode = "live"
            seen.until_state("ok", marked)
        assert all(frame.image.std() > 10 for frame in seen.frames)


def test_a_corrupt_part_is_left_out(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    camera.mode = "corrupt"
    caplog.set_level(logging.WARNING, "edge_agent")
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server)))) as seen:
        seen.until_frames(12)
        seen.until(lambda: camera.served > 30)
        assert seen.states == ["ok"]
        assert len(seen.frames) < camera.served - 10
    assert "bytes was left out, it is cut off before its end (1 so far)" in caplog.text
    assert len(caplog.records) <= 3, "what happens often is said seldom"


def test_refusals_say_why(camera: Camera) -> None:
    with mjpeg_server(camera) as server:
        for path, said in (
            ("gone", "HTTP 404"),
            ("page", "answers text/html, not pictures"),
            ("private", "HTTP 401 Unauthorized; put user:password@ before the host"),
        ):
            with running(open_source(parse_uri(at(server, path)))) as seen:
                seen.until(lambda said=said, seen=seen: any(said in why for why in seen.whys), said)  # type: ignore[misc]
                assert set(seen.states) == {"reconnecting"}


def test_user_and_password_of_the_address(camera: Camera) -> None:
    with mjpeg_server(camera) as server:
        for user, good in (("me:secret", True), ("me:wrong", False)):
            with running(open_source(parse_uri(f"http://{user}@127.0.0.1:{server.port}/private"))) as seen:
                seen.until(lambda seen=seen: bool(seen.states))  # type: ignore[misc]
                assert (seen.states[0] == "ok") is good
                assert not any("me:" in why or "secret" in why for why in seen.whys)
                assert good or "the user or the password is wrong" in seen.whys[0]


def test_single_pictures_are_fetched_again_and_again(camera: Camera) -> None:
    with mjpeg_server(camera) as server:
        with running(open_source(parse_uri(at(server, "snapshot", "fps=50&frozen=0.3")))) as seen:
            seen.until_frames(3)
            camera.mode = "frozen"
            seen.until_state("frozen")
        assert server.connections > 3


def test_a_picture_that_is_not_due_is_no_stall(camera: Camera) -> None:
    with (
        mjpeg_server(camera) as server,
        running(open_source(parse_uri(at(server, "snapshot", "fps=2&stall=0.2")))) as it,
    ):
        it.until_frames(4)
        assert it.states == ["ok"]


def test_fps_thins_the_stream(camera: Camera) -> None:
    camera.every = 0.005
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server, options="fps=10")))) as seen:
        seen.until_frames(8)
        frames = seen.frames
        assert (frames[-1].mono - frames[0].mono) / (len(frames) - 1) > 0.05


def test_a_server_that_drips_is_a_stall(camera: Camera) -> None:
    camera.every = 0.05
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server, "drip", "stall=0.2")))) as seen:
        seen.until_state("stalled")
        seen.until(lambda: server.connections > 1, "another try")
        assert seen.frames == []


def bodies(stream: bytes, step: int) -> list[bytes]:
    chunks = iter([stream[begin : begin + step] for begin in range(0, len(stream), step)])

    def more() -> bytes:
        chunk = next(chunks, None)
        if chunk is None:
            raise SourceError("over")
        return chunk

    found = []
    with pytest.raises(SourceError, match="over"):
        for body in multipart(more, "test", 60.0):
            found.append(body)
        raise SourceError("over")
    return found


PARTS = [b"\xff\xd8one\r\n\r\n\xff\xd9", b"\xff\xd8" + b"two--" * 500 + b"\xff\xd9", b"\xff\xd83\n--\xff\xd9"]


@pytest.mark.parametrize(("step", "parts"), [(1, PARTS), (7, PARTS), (64, PARTS), (100_000, PARTS[-1:])])
def test_multipart_is_cut_right_wherever_the_network_cuts_it(step: int, parts: list[bytes]) -> None:
    stated = b"".join(b"--b\r\nX: y\r\ncontent-LENGTH:  %d\r\n\r\n%s\r\n" % (len(part), part) for part in PARTS)
    assert bodies(b"\r\n" + stated + b"--b--\r\n", step) == parts
    bare = b"".join(b"--b\r\nX: y\r\n\r\n%s\r\n" % part for part in PARTS)
    assert [body.rstrip(b"\r\n") for body in bodies(bare + b"--b--\r\n", step)] == parts


def test_multipart_finds_its_feet_after_a_wrong_length() -> None:
    stream = b"--b\nContent-Length: 3\n\nABCDEF\n--b\nContent-Length: 2\n\nGH\n--b--\n"
    assert bodies(stream, 5) == [b"ABC", b"GH"]


def test_a_part_without_end_is_bounded() -> None:
    with pytest.raises(SourceError, match="a picture of more than 32 MiB"):
        next(multipart(iter([b"--b\n\n", *[b"x" * (1 << 20)] * 40]).__next__, "test", 60.0))
    with pytest.raises(SourceError, match="a picture of 95 MiB"):
        next(multipart(iter([b"--b\nContent-Length: 99999999\n\n"]).__next__, "test", 60.0))


def test_who_is_slower_than_the_camera_gets_the_newest_whole_body() -> None:
    stream = b"".join(b"--b\r\n\r\n\xff\xd8%d\xff\xd9\r\n" % n for n in range(5))
    waiting = [stream[:5], stream[5:-8], stream[-8:]]
    found = multipart(lambda: waiting.pop(0), "test", 60.0, lambda: len(waiting) > 1)
    assert next(found) == b"\xff\xd83\xff\xd9\r", "0 to 2 are old, and of 4 only a part has come"
    assert next(found) == b"\xff\xd84\xff\xd9" and not waiting


def test_a_body_without_a_length_is_not_kept_until_the_next_one_comes(camera: Camera) -> None:
    waiting = [b"--b\n\n\xff\xd8", b"one", b"\xff\xd9\r\n"]
    found = multipart(lambda: waiting.pop(0), "test", 60.0, lambda: bool(waiting))
    assert next(found) == b"\xff\xd8one\xff\xd9"
