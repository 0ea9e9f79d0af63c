"""Pictures that are not whole, and the ones that only look so; which way is up; what is known before decoding."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.errors import InputError
from edge_agent.pictures import formats
from edge_agent.pictures.read import FILES, Limits, decode
from edge_agent.types import Pixels

pytest.importorskip("simplejpeg", reason="without it a scan with a hole is not noticed")

END = b"\xff\xd9"


def photo(demo_pictures: Path, name: str = "coffee.png") -> Pixels:
    image = cv2.imread(str(demo_pictures / name))
    assert image is not None
    return np.asarray(image, np.uint8)


def encoded(image: Pixels, suffix: str = ".jpg", *options: int) -> bytes:
    good, data = cv2.imencode(suffix, image, list(options))
    assert good
    return bytes(data.tobytes())


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def begin_of_scan(data: bytes) -> int:
    frame = formats.jpeg_frame(data)
    assert frame is not None
    return frame.scan


@pytest.fixture(params=["plain", "grey", "restarts", "progressive"])
def whole(request: pytest.FixtureRequest, demo_pictures: Path) -> bytes:
    """A good JPEG of each kind."""
    image = photo(demo_pictures)
    options = {"restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 16], "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]}
    grey = request.param == "grey"
    return encoded(image[..., 0] if grey else image, ".jpg", *options.get(request.param, []))


def test_a_good_jpeg_has_the_pixels_that_cv2_gives(whole: bytes) -> None:
    assert (decode(whole) == cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_COLOR)).all()


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.95])
def test_a_cut_jpeg_with_an_end_marker_is_refused(
    whole: bytes, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    other = encoded(np.full((32, 32, 3), 90, np.uint8))
    begin = begin_of_scan(whole)
    at = begin + int((len(whole) - begin) * share)
    for tail in (b"", END, other, other[-60:], whole[-2000:], b"\0" * 64 + END):
        with pytest.raises(InputError, match="is cut off"):
            decode(whole[:at] + tail)
    assert capfd.readouterr().err == "", "the decoder's own lines go nowhere"


@pytest.mark.parametrize("lost", [1400, 4000, 8000])
def test_a_jpeg_that_lost_bytes_in_the_middle_is_refused(
    whole: bytes, lost: int, capfd: pytest.CaptureFixture[str]
) -> None:
    begin = begin_of_scan(whole)
    for share in (0.2, 0.35, 0.6):
        at = begin + int((len(whole) - begin) * share)
        with pytest.raises(InputError, match=r"is damaged|is cut off"):
            decode(whole[:at] + whole[at + lost :])
    assert capfd.readouterr().err == ""


def test_a_progressive_jpeg_that_ends_between_two_scans_is_refused(demo_pictures: Path) -> None:
    data = encoded(photo(demo_pictures), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    scans = [i for i in range(len(data)) if data.startswith(b"\xff\xda", i)]
    assert len(scans) > 4
    for at in scans[1:]:
        # a table for the next scan may stand before it; either way each scan that is there is whole
        with pytest.raises(InputError, match="is cut off before its end"):
            decode(data[:at] + END)
    assert decode(data).shape == (400, 600, 3)


def test_what_cameras_leave_out_or_add_is_no_damage(demo_pictures: Path) -> None:
    data = encoded(photo(demo_pictures))
    pixels = decode(data)
    bare = data[: -len(END)]
    for odd in (
        bare,
        bare + bytes(64),
        bare + bytes(500) + END,
        bare + b"\xff\xff" + END,
        bare + b"\x12\x34\x56" + END,
        data + b"\0\0\0\x18ftypmp42 a film behind it",
        data.replace(b"JFIF\0\1", b"JFIF\0\7", 1),
    ):
        assert (decode(odd) == pixels).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".gif", ".bmp", ".tiff", ".ppm", ".avif", ".jp2"])
def test_a_cut_picture_of_another_kind_is_refused(demo_pictures: Path, suffix: str) -> None:
    try:
        data = encoded(photo(demo_pictures), suffix)
    except (cv2.error, AssertionError):
        pytest.skip(f"this cv2 writes no {suffix} here: of some it needs a file under /tmp")
    assert decode(data).shape == (400, 600, 3)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(InputError, match="is cut off"):
            decode(data[: int(len(data) * share)])


def test_a_png_is_read_without_what_makes_no_pixels(demo_pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = (demo_pictures / "coffee.png").read_bytes()
    # a profile that libpng complains of, a gamma, and a text that unpacks to 50 MB
    odd = chunk(b"iCCP", b"x\0\0" + zlib.compress(b"junk")) + chunk(b"gAMA", struct.pack(">I", 100_000))
    odd += chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    assert (decode(data[:33] + odd + data[33:]) == photo(demo_pictures)).all()
    at = data.index(b"IDAT") + 2000
    with pytest.raises(InputError, match="is damaged"):
        decode(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert capfd.readouterr().err == ""


AVIF = {
    5: "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD/bWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcG"
    "l0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAEnAAAATwAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAAB+aX"
    "BycAAAAF1pcGNvAAAAFGlzcGUAAAAAAAAACAAAABAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAAAlpcm"
    "90AQAAAAlpbWlyAAAAABlpcG1hAAAAAAAAAAEAAQYBAoMEhYYAAABXbWRhdBIACggYCP+0QENBoTJBE8eHhmUBhhh+EAAAAPybDorjmcjxRaTkYF"
    "Dn/AA5uMWJ9sz54mfilrStCkvK2fAFY6KCVzX9SM7McZ6l393vg6A=",
    6: "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUIAAAD1bWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAAAAAAAOcG"
    "l0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAEdAAAATgAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEAAGF2MDFDb2xvcgAAAAB0aX"
    "BycAAAAFRpcGNvAAAAFGlzcGUAAAAAAAAACAAAABAAAAAQcGl4aQAAAAADCAgIAAAADGF2MUOBAAwAAAAAE2NvbHJuY2x4AAEADQAGgAAAAAlpcm"
    "90AwAAABhpcG1hAAAAAAAAAAEAAQUBAoMEhQAAAFZtZGF0EgAKCBgI/7RAQ0GhMkATx4eGZQGGGH4QAAAA/JsOiuOUBs5YO9/9dd7eyavGUupNBo"
    "prb5TG6/0u5/1YA/fVi6bzz3xsN9218Z1Qx/Go",
}
"""8x16 pixels as stored, with irot, and irot and imir; red, green, blue and black from the top left once upright"""


@pytest.mark.parametrize("orientation", sorted(AVIF))
def test_an_avif_stands_upright(orientation: int) -> None:
    data = base64.b64decode(AVIF[orientation])
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is None:
        pytest.skip("this cv2 reads no AVIF")
    image = decode(data)
    assert image.shape == (8, 16, 3)
    corners = [image[2, 3], image[2, 12], image[6, 3], image[6, 12]]
    for seen, right in zip(corners, ([0, 0, 255], [0, 255, 0], [255, 0, 0], [0, 0, 0]), strict=True):
        assert np.abs(seen.astype(int) - right).max() < 60


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_way_to_hold_a_camera(orientation: int) -> None:
    """EXIF 2.32, tag 274: where the stored first row and first column are seen."""
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = 250, 160, 80
    held: dict[int, Callable[[Pixels], Pixels]] = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2), 6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    data = encoded(np.ascontiguousarray(held[orientation](upright)), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 100)
    body = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)
    image = decode(data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:])
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() < 8


def test_limits_are_known_before_anything_is_decoded(demo_pictures: Path) -> None:
    image = photo(demo_pictures)
    data = encoded(image, ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    many = data[:-2] + 400 * last + END
    with pytest.raises(InputError, match=r"has 41\d scans of 600×400 pixels"):
        decode(many, Limits(pixels=240_000))
    with pytest.raises(InputError, match=r"claims 600×400 pixels, more than 0\.2 million"):
        decode(data, Limits(pixels=200_000))
    camera = Limits(any_kind=False)
    assert decode(data, camera).shape == decode(encoded(image, ".png"), camera).shape == image.shape
    for suffix in (".bmp", ".webp", ".tiff", ".gif"):
        with pytest.raises(InputError, match="is neither a JPEG nor a PNG"):
            decode(encoded(image, suffix), camera)
    assert FILES.any_kind


def test_the_cases(data: Path) -> None:
    folder = data.parent / "cases" / "vision" / "jpeg-cut"
    if not folder.is_dir():
        pytest.skip(f"no cases at {folder}")
    for name in ("half_eoi.jpg", "hole.jpg"):
        with pytest.raises(InputError, match="is cut off or damaged"):
            decode((folder / name).read_bytes())
    assert decode((folder / "exif6.avif").read_bytes()).shape == (576, 768, 3)
