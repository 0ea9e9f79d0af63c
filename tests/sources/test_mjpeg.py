"""MJPEG over HTTP from a real server that is stopped, started and made to fail."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

import cv2
import pytest

from edge_agent.errors import SourceError
from edge_agent.sources import feed, mjpeg, open_source
from edge_agent.sources.camera import address
from edge_agent.sources.parts import multipart
from edge_agent.uri import parse_uri
from tests.sources.servers import Camera, Server, mjpeg_server, running, talking


@pytest.fixture()
def camera() -> Camera:
    return Camera()


def at(server: Server, path: str = "video", options: str = "stall=0.6&frozen=0.3") -> str:
    return f"http://127.0.0.1:{server.port}/{path}#{options}"


def test_a_stream_that_hangs_dies_and_comes_back(camera: Camera) -> None:
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server)))) as seen:
        seen.until_frames(5)
        assert seen.states[0] == "ok"
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
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server, options="stall=60")))) as seen:
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
    """A reader is alive while it returns, with a picture or without one; the next is due in a quarter of an hour."""
    with mjpeg_server(camera) as server:
        uri = parse_uri(at(server, "snapshot", "fps=0.001&stall=0.2"))
        reader = mjpeg._pictures(mjpeg._Camera(*address(uri)))
        assert reader.read() is not None
        assert [reader.read() for _ in range(3)] == [None] * 3
        assert camera.served == 1


def test_fps_thins_the_stream(camera: Camera) -> None:
    camera.every = 0.005
    with mjpeg_server(camera) as server, running(open_source(parse_uri(at(server, options="fps=10")))) as seen:
        seen.until_frames(8)
        frames = seen.frames
        assert (frames[-1].mono - frames[0].mono) / (len(frames) - 1) > 0.05


def test_a_server_that_drips_is_a_stall(camera: Camera, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "OPENING", 2.0)
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
        for body in multipart(more, "test", 60.0, MOST):
            found.append(body)
        raise SourceError("over")
    return found


MOST = 32 << 20
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
        next(multipart(iter([b"--b\n\n", *[b"x" * (1 << 20)] * 40]).__next__, "test", 60.0, MOST))
    with pytest.raises(SourceError, match="a picture of more than 32 MiB"):
        next(multipart(iter([b"--b\nContent-Length: 99999999\n\n"]).__next__, "test", 60.0, MOST))


def test_who_is_slower_than_the_camera_gets_the_newest_whole_body() -> None:
    stream = b"".join(b"--b\r\n\r\n\xff\xd8%d\xff\xd9\r\n" % n for n in range(5))
    waiting = [stream[:5], stream[5:-8], stream[-8:]]
    found = multipart(lambda: waiting.pop(0), "test", 60.0, MOST, lambda: len(waiting) > 1)
    assert next(found) == b"\xff\xd83\xff\xd9\r", "0 to 2 are old, and of 4 only a part has come"
    assert next(found) == b"\xff\xd84\xff\xd9" and not waiting


def test_a_body_without_a_length_is_not_kept_until_the_next_one_comes(camera: Camera) -> None:
    waiting = [b"--b\n\n\xff\xd8", b"one", b"\xff\xd9\r\n"]
    found = multipart(lambda: waiting.pop(0), "test", 60.0, MOST, lambda: bool(waiting))
    assert next(found) == b"\xff\xd8one\xff\xd9"


# ── habits of real cameras ──────────────────────────────────────────────────────────────────────────────────


def part(data: bytes, delimiter: bytes = b"--frame", length: int | None = 0, newline: bytes = b"\r\n") -> bytes:
    """One part; `length`: what the stated one is wrong by, None for none."""
    stated = b"" if length is None else b"Content-Length: %d" % (len(data) + length) + newline
    return delimiter + newline + b"Content-Type: image/jpeg" + newline + stated + newline + data + newline


def joined(data: bytes) -> bytes:
    return data


MIXED = "Content-Type: multipart/x-mixed-replace;boundary=frame\r\n"
HABITS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "no dashes": (MIXED, lambda d: part(d, b"frame")),
    "no dashes, another name": (MIXED, lambda d: part(d, b"ThisIsIt")),
    "dashes in the header": (MIXED.replace("=frame", "=--frame"), part),
    "another name than stated": (MIXED, lambda d: part(d, b"--other")),
    "no kind": ("", part),
    "no kind, no length": ("", lambda d: part(d, length=None)),
    "text": ("Content-Type: text/plain\r\n", part),
    "bytes": ("Content-Type: application/octet-stream\r\n", part),
    "no delimiter at all": (MIXED, lambda d: part(d, b"")),
    "no delimiter and no length": (MIXED, lambda d: part(d, b"", length=None)),
    "an endless picture": ("Content-Type: image/jpeg\r\n", joined),
    "an endless picture of no kind": ("", joined),
    "an endless picture with something between": ("Content-Type: image/jpeg\r\n", lambda d: d + b"\r\n\0\0"),
    "300 bytes too short": (MIXED, lambda d: part(d, length=-300)),
    "200 bytes too long": (MIXED, lambda d: part(d, length=200)),
    "no end marker": (MIXED, lambda d: part(d[:-2])),
    "zeros for an end marker": (MIXED, lambda d: part(d[:-2] + bytes(64))),
    "no end marker and no length": (MIXED, lambda d: part(d[:-2], length=None)),
    "line feeds": (MIXED, lambda d: part(d, newline=b"\n", length=None)),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_camera_with_a_habit_is_understood(camera: Camera, habit: str) -> None:
    kind, sent = HABITS[habit]

    def serve(client: socket.socket, request: str) -> None:
        client.sendall(f"HTTP/1.1 200 OK\r\n{kind}\r\n".encode())
        while True:
            client.sendall(sent(camera.encode(camera.picture())))
            time.sleep(0.02)

    with talking(serve) as server, running(open_source(parse_uri(at(server, options="stall=60")))) as seen:
        seen.until_frames(6)
        assert seen.states == ["ok"]
        assert all((frame.width, frame.height) == (160, 96) for frame in seen.frames)


@pytest.mark.parametrize("habit", ["half with an end marker", "a hole", "cut before the next"])
def test_pictures_that_are_not_whole_are_never_given(camera: Camera, habit: str) -> None:
    pytest.importorskip("simplejpeg")
    sent: list[int] = []

    def one() -> bytes:
        data = camera.encode(camera.picture())
        if len(sent) % 2:
            return data
        third = len(data) // 3
        return {
            "half with an end marker": data[: len(data) // 2] + b"\xff\xd9",
            "a hole": data[:third] + data[third + 2000 :],
            "cut before the next": data[: 2 * third],
        }[habit]

    def serve(client: socket.socket, request: str) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n")
        while True:
            client.sendall(one())
            sent.append(1)
            time.sleep(0.02)

    with talking(serve) as server, running(open_source(parse_uri(at(server, options="stall=60")))) as seen:
        seen.until_frames(6)
        assert len(seen.frames) <= len(sent) // 2 + 1
        assert all(frame.image[-20:].std() > 10 for frame in seen.frames), "no grey lower half"


def test_one_picture_without_a_length_is_fetched_again(camera: Camera) -> None:
    def serve(client: socket.socket, request: str) -> None:
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + camera.encode(camera.picture()))

    with talking(serve) as server, running(open_source(parse_uri(at(server, options="fps=50&stall=60")))) as seen:
        seen.until_frames(5)
        assert seen.states == ["ok"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("megapixels=0.01", "claims 160×96 pixels, more than 0.01 million"),
        ("megabytes=0.01", "a picture of more than 0.01 MiB"),
    ],
)
def test_what_one_picture_may_have(camera: Camera, options: str, said: str) -> None:
    with mjpeg_server(camera) as server:
        with running(open_source(parse_uri(at(server, "snapshot", options)))) as seen:
            seen.until(lambda: any(said in why for why in seen.whys), said)
            assert not seen.frames
        with running(open_source(parse_uri(at(server, "snapshot", "megapixels=1&megabytes=1")))) as seen:
            seen.until_frames(1)


def test_only_what_cameras_send_is_decoded(camera: Camera) -> None:
    good, data = cv2.imencode(".bmp", camera.picture())
    assert good

    def serve(client: socket.socket, request: str) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: image/bmp\r\nContent-Length: %d\r\n\r\n" % len(data))
        client.sendall(data.tobytes())

    with talking(serve) as server, running(open_source(parse_uri(at(server)))) as seen:
        seen.until(lambda: any("is neither a JPEG nor a PNG" in why for why in seen.whys))
