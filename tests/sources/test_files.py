"""Pictures, folders, globs and videos, good and bad."""

from __future__ import annotations

import logging
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.errors import ConfigError, InputError, SourceError
from edge_agent.pictures.formats import claimed_size
from edge_agent.pictures.read import decode
from edge_agent.sources import open_source
from edge_agent.types import Frame, Pixels, StreamState
from edge_agent.uri import parse_uri
from tests.sources.servers import Seen, everything, running

rng = np.random.default_rng(11)


def noise(width: int, height: int) -> Pixels:
    return rng.integers(0, 255, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: object) -> Path:
    assert cv2.imwrite(str(path), image)  # type: ignore[call-overload]
    return path


def play(address: str) -> Seen:
    return everything(open_source(parse_uri(address)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames of noise at 40 a second as Motion JPEG."""
    path = tmp_path_factory.mktemp("clip") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 40.0, (64, 48))
    for _ in range(40):
        writer.write(noise(64, 48))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tiff", "gif"])
def test_a_picture_of_each_format(tmp_path: Path, suffix: str) -> None:
    image = cv2.resize(noise(4, 3), (64, 48), interpolation=cv2.INTER_CUBIC)
    path = save(tmp_path / f"a.{suffix}", image)
    seen = play(f"files:{path}")
    (frame,) = seen.frames
    assert (frame.name, frame.width, frame.height) == (f"a.{suffix}", 64, 48)
    assert np.abs(frame.image.astype(int) - image).mean() < (25 if suffix == "gif" else 12)
    assert frame.decode_ms > 0
    assert seen.states == ["ok", "ended"]
    assert claimed_size(path.read_bytes()) == (64, 48)


def test_grey_rgba_16_bit_and_one_pixel(tmp_path: Path) -> None:
    grey = noise(9, 7)[..., 0]
    rgba = np.dstack([noise(9, 7), np.zeros((7, 9), np.uint8)])
    deep = rng.integers(0, 65535, (7, 9), dtype=np.uint16)
    for name, image in {"1": noise(1, 1), "grey": grey, "rgba": rgba, "deep": deep}.items():
        save(tmp_path / f"{name}.png", image)
    one, deep_, grey_, rgba_ = play(f"files:{tmp_path}").frames
    assert (one.width, one.height) == (1, 1)
    assert (deep_.image == (deep // 256)[..., None]).all()
    assert (grey_.image == grey[..., None]).all()
    assert (rgba_.image == rgba[..., :3]).all()


def test_an_8000x6000_picture(tmp_path: Path) -> None:
    image = np.zeros((6000, 8000, 3), np.uint8)
    image[3000:, 4000:] = (10, 120, 240)
    (frame,) = play(f"files:{save(tmp_path / 'big.jpg', image)}").frames
    assert (frame.width, frame.height) == (8000, 6000)
    assert np.abs(frame.image[-1, -1].astype(int) - (10, 120, 240)).max() < 4


def exif(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment that states an orientation; TIFF 6.0, tag 274."""
    tiff = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:16, :16] = 255
    _, data = cv2.imencode(".jpg", image)
    (tmp_path / "turned.jpg").write_bytes(exif(data.tobytes(), 6))
    (frame,) = play(f"files:{tmp_path}/turned.jpg").frames
    assert (frame.width, frame.height) == (48, 64)
    assert frame.image[4, 44].min() > 200, "6: the camera's top left is the picture's top right"
    assert frame.image[4, 4].max() < 50


def test_a_folder_goes_by_name_and_skips_what_is_corrupt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "b.png", noise(8, 8)).rename(tmp_path / "B.PNG")
    for name in ("c.png", "a.png"):
        save(tmp_path / name, noise(8, 8))
    whole = save(tmp_path / "whole.jpg", noise(64, 64)).read_bytes()
    (tmp_path / "b-cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b-empty.jpg").write_bytes(b"")
    (tmp_path / "b-junk.png").write_bytes(os.urandom(500))
    (tmp_path / "b-short.jpg").write_bytes(whole[:11])
    (tmp_path / "note.txt").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    with caplog.at_level(logging.WARNING, "edge_agent"):
        seen = play(f"files:{tmp_path}")
    assert [frame.name for frame in seen.frames] == ["B.PNG", "a.png", "c.png", "whole.jpg"]
    assert seen.items[-1] == StreamState("ended", "4 unreadable skipped")
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "skipped, it is cut off before its end (1 skipped so far)",
        "skipped, it is empty (2 skipped so far)",
        "skipped, it is no picture that can be decoded (3 skipped so far)",
        "skipped, it is cut off before its end (4 skipped so far)",
    ]


def test_a_glob(tmp_path: Path, clip: Path) -> None:
    for name in ("1.png", "2.jpg", "3.txt"):
        save(tmp_path / f"{name}.png", noise(8, 8)).rename(tmp_path / name)
    (tmp_path / "9.avi").write_bytes(clip.read_bytes())
    assert [frame.name for frame in play(f"files:{tmp_path}/?.*").frames] == [
        "1.png",
        "2.jpg",
        *[f"9.avi#{index}" for index in range(40)],
    ]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_skipped_before_it_is_decoded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.png").write_bytes(bomb(60_000, 60_000))
    save(tmp_path / "b.png", noise(8, 8))
    with caplog.at_level(logging.WARNING, "edge_agent"):
        assert [frame.name for frame in play(f"files:{tmp_path}").frames] == ["b.png"]
    assert "it claims 60000×60000 pixels, more than 100 million" in caplog.text
    save(tmp_path / "c.png", noise(200, 100))
    with caplog.at_level(logging.WARNING, "edge_agent"):
        assert [frame.name for frame in play(f"files:{tmp_path}?megapixels=0.01").frames] == ["b.png"]
    assert "it claims 200×100 pixels, more than 0.01 million" in caplog.text


def test_sizes_that_headers_claim() -> None:
    assert claimed_size(b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + b"\xff\xff\0\x0f\x27\0") == (65536, 10000)
    lossless = (70 - 1) | (90 - 1) << 14
    assert claimed_size(b"RIFF\0\0\0\0WEBPVP8L" + bytes(4) + b"\x2f" + struct.pack("<I", lossless)) == (70, 90)
    tiff = b"MM\0*" + struct.pack(">IHHHIHHHHII", 8, 2, 256, 3, 1, 70, 0, 257, 4, 1, 90)
    assert claimed_size(tiff) == (70, 90)
    assert claimed_size(b"BM" + bytes(16) + struct.pack("<ii", 70, -90)) == (70, 90)
    for data in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n12", b"GIF89a", b"II*\0\xff\xff\xff\xff", b"BM"):
        assert claimed_size(data) is None


@pytest.mark.parametrize("seed", range(20))
def test_damaged_bytes_never_raise_anything_else(seed: int) -> None:
    chance = np.random.default_rng(seed)
    for suffix in (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"):
        data = bytearray(cv2.imencode(suffix, noise(24, 24))[1].tobytes())
        for _ in range(4):
            data[int(chance.integers(len(data)))] = int(chance.integers(256))
        try:
            image = decode(bytes(data[: int(chance.integers(len(data))) or None]))
        except InputError as error:
            assert str(error).isprintable()
        else:
            assert image.dtype == np.uint8 and image.ndim == 3


def test_a_video_gives_each_frame_once(clip: Path) -> None:
    seen = play(f"files:{clip}")
    assert [frame.name for frame in seen.frames] == [f"clip.avi#{index}" for index in range(40)]
    assert len({id(frame.image) for frame in seen.frames}) == 40
    assert all(frame.image.flags.owndata for frame in seen.frames)
    assert len({frame.image.tobytes() for frame in seen.frames}) == 40
    assert seen.states == ["ok", "ended"]


def test_the_street_video_has_795_frames(data: Path) -> None:
    run = open_source(parse_uri(f"files:{data / 'video' / 'vtest.avi'}")).run(threading.Event())
    names = [item.name for item in run if isinstance(item, Frame)]
    assert names == [f"vtest.avi#{index}" for index in range(795)]


def test_a_video_that_breaks_off_ends_with_the_reason(
    clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = clip.read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, "edge_agent"):
        seen = play(f"files:{tmp_path}/cut.avi")
    assert 10 < len(seen.frames) < 30
    assert seen.states == ["ok", "ended"]
    # the last of them is itself cut off
    said = f"breaks off behind {len(seen.frames) + 1} frames, after 0."
    assert said in caplog.text and "of its 1.0 s" in caplog.text and "skipped, it is cut off" in caplog.text


def test_a_film_of_jpegs_gives_none_that_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("simplejpeg")
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for _ in range(6):
        writer.write(noise(64, 48))
    writer.release()
    whole = path.read_bytes()
    first = play(f"files:{path}").frames
    begin = [i for i in range(len(whole)) if whole.startswith(b"\xff\xd8\xff", i)]
    assert len(first) == len(begin) == 6
    # the third picture ends half-way, in a place of the same size
    end = whole.index(b"\xff\xd9", begin[2])
    half = (begin[2] + end) // 2
    path.write_bytes(whole[:half] + b"\xff\xd9" + bytes(end - half) + whole[end + 2 :])
    with caplog.at_level(logging.WARNING, "edge_agent"):
        seen = play(f"files:{path}")
    assert [frame.name for frame in seen.frames] == [f"a.avi#{i}" for i in (0, 1, 3, 4, 5)]
    (record,) = caplog.records
    assert "frame 2 skipped, it is cut off" in record.getMessage()


def test_a_moving_gif_is_a_video(data: Path) -> None:
    seen = play(f"files:{data / 'video' / 'intel_store-aisle-detection.gif'}")
    assert len(seen.frames) == 67


def test_looped_and_paced_it_goes_on_until_stopped(tmp_path: Path, clip: Path) -> None:
    save(tmp_path / "a.png", noise(8, 8))
    with running(open_source(parse_uri(f"files:{tmp_path}?loop=true&fps=200"))) as seen:
        seen.until_frames(20)
        assert seen.states == ["ok"], "one picture again and again is not frozen"
    with running(open_source(parse_uri(f"files:{clip}?loop=true&fps=400"))) as seen:
        seen.until_frames(100)
        assert {frame.name for frame in seen.frames} == {f"clip.avi#{index}" for index in range(40)}
    with running(open_source(parse_uri(f"files:{clip}?loop=true"))) as seen:
        seen.until_frames(100)


def test_pace_is_kept(clip: Path) -> None:
    for options, seconds in (("pace=own", 39 / 40), ("fps=80", 39 / 80)):
        frames = play(f"files:{clip}?{options}").frames
        assert len(frames) == 40
        assert frames[-1].mono - frames[0].mono > seconds * 0.95


def matroska(times: list[int], whole: int, kept: int) -> bytes:
    """A film of noise as MJPEG in Matroska (RFC 9559), a frame at each of `times`, ms; `whole`: the length that its
    header states, ms; `kept`: how many of the frames are really there.
    """

    def element(number: int, body: bytes) -> bytes:
        return number.to_bytes((number.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body

    def whole_number(number: int, value: int) -> bytes:
        return element(number, value.to_bytes(4, "big"))

    head = element(0x4282, b"matroska") + whole_number(0x4287, 4) + whole_number(0x4285, 2)
    info = whole_number(0x2AD7B1, 1_000_000) + element(0x4489, struct.pack(">d", whole)) + element(0x4D80, b"test")
    size = whole_number(0xB0, 64) + whole_number(0xBA, 48)
    # a nominal rate of 25 a second, as writers of a varying one state it
    track = whole_number(0xD7, 1) + whole_number(0x73C5, 1) + whole_number(0x83, 1) + element(0x86, b"V_MJPEG")
    track += whole_number(0x23E383, 40_000_000) + element(0xE0, size)
    blocks = b""
    for at in times[:kept]:
        good, data = cv2.imencode(".jpg", noise(64, 48))
        assert good
        blocks += element(0xA3, b"\x81" + struct.pack(">hB", at, 0x80) + data.tobytes())
    body = element(0x1549A966, info) + element(0x1654AE6B, element(0xAE, track))
    body += element(0x1F43B675, whole_number(0xE7, 0) + blocks)
    return element(0x1A45DFA3, head) + element(0x18538067, body)


VARYING = [0, 40, 80, 120, 160, 560, 960, 1360]


def test_a_film_of_varying_rate_is_played_in_its_own_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mkv").write_bytes(matroska(VARYING, 1400, len(VARYING)))
    with caplog.at_level(logging.WARNING, "edge_agent"):
        frames = play(f"files:{tmp_path}/a.mkv?pace=own").frames
        assert len(play(f"files:{tmp_path}/a.mkv").frames) == len(VARYING)
    assert len(frames) == len(VARYING) and not caplog.records, "all of it came, though 1.4 s at 25 a second are more"
    assert frames[-1].mono - frames[-4].mono > 0.8, "not spread evenly"
    assert frames[-1].mono - frames[0].mono > 1.36 * 0.95


def test_a_film_of_varying_rate_that_breaks_off_says_when(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.mkv").write_bytes(matroska([*VARYING, 3000, 4000], 9000, len(VARYING)))
    with caplog.at_level(logging.WARNING, "edge_agent"):
        assert len(play(f"files:{tmp_path}/a.mkv").frames) == len(VARYING)
    assert "a.mkv: breaks off behind 8 frames, after 1.4 of its 9.0 s" in caplog.text


def test_live_videos_hold_back_what_is_dark_or_frozen(tmp_path: Path) -> None:
    path = tmp_path / "faulty.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 100.0, (64, 48))
    still = noise(64, 48)
    black = np.zeros((48, 64, 3), np.uint8)
    for image in [*[noise(64, 48) for _ in range(5)], *[black] * 5, *[still] * 40, noise(64, 48)]:
        writer.write(image)
    writer.release()
    seen = play(f"files:{path}?fps=100&frozen=0.1")
    assert seen.states == ["ok", "dark", "ok", "frozen", "ok", "ended"]
    assert [frame.name.split("#")[1] for frame in seen.frames] == ["0", "1", "2", "3", "4", "10", "50"]
    assert len(play(f"files:{path}?fps=1000&dark=off&frozen=off").frames) == 51
    assert len(play(f"files:{path}").frames) == 51, "unpaced, every frame is answered"


def test_a_loop_without_one_readable_picture_ends(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"junk")
    with pytest.raises(SourceError, match="not one picture in it can be read"):
        play(f"files:{tmp_path}?loop=true")
    assert play(f"files:{tmp_path}").states == ["ended"]


def test_pictures_have_no_pace_of_their_own(tmp_path: Path) -> None:
    save(tmp_path / "a.png", noise(8, 8))
    with pytest.raises(ConfigError, match="give fps=N"):
        play(f"files:{tmp_path}?pace=own")


def test_a_name_with_signs_in_it(tmp_path: Path, clip: Path) -> None:
    save(tmp_path / "a.png", noise(8, 8)).rename(tmp_path / "100%d [1]?.png")
    (tmp_path / "100%02d.avi").write_bytes(clip.read_bytes())
    assert len(play(f"files:{tmp_path}/100%d [1]?.png").frames) == 1
    assert len(play(f"files:{tmp_path}/100%02d.avi").frames) == 40


def test_a_picture_without_a_suffix(tmp_path: Path, clip: Path) -> None:
    save(tmp_path / "a.png", noise(8, 8)).rename(tmp_path / "picture")
    (tmp_path / "video").write_bytes(clip.read_bytes())
    assert len(play(f"files:{tmp_path}/picture").frames) == 1
    assert len(play(f"files:{tmp_path}/video").frames) == 40
