"""Letterbox, input tensors, back-mapping, NMS and drawing, each against slow arithmetic of its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_agent.errors import InputError, RefusedError, UsageError
from edge_agent.manifest import Input
from edge_agent.pictures.boxes import NMS_CANDIDATES, fit, letterbox, nms, preparer, to_frame
from edge_agent.pictures.draw import colour, draw, jpeg, save_jpeg
from edge_agent.types import Detections, Floats, Pixels, TensorSpec

PLACES = ("top-left", "center", "stretch")
Place = Literal["top-left", "center", "stretch"]
side = st.integers(1, 9000)
canvas_side = st.integers(1, 1280)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    """A picture that may not be written to."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image.flags.writeable = False
    return image


# ── where the picture lies ───────────────────────────────────────────────────────────────────────────────


@settings(max_examples=300)
@given(side, side, canvas_side, canvas_side, st.sampled_from(PLACES))
@example(1, 1, 416, 416, "top-left")
@example(3, 5000, 416, 416, "center")
@example(8000, 6000, 640, 640, "center")
@example(5000, 3, 320, 320, "top-left")
def test_the_picture_fills_the_canvas_one_way_and_keeps_its_aspect(
    w: int, h: int, cw: int, ch: int, how: Place
) -> None:
    place = fit(w, h, Input(cw, ch, letterbox=how))
    assert place.left >= 0 and place.top >= 0 and place.width >= 1 and place.height >= 1
    assert place.left + place.width <= cw and place.top + place.height <= ch
    assert place.width == cw or place.height == ch
    if how == "stretch":
        assert (place.width, place.height) == (cw, ch)
        return
    ratio = min(cw / w, ch / h)
    assert abs(place.width - w * ratio) <= max(0.5 + 1e-6, 1 - w * ratio)
    assert abs(place.height - h * ratio) <= max(0.5 + 1e-6, 1 - h * ratio)
    right, bottom = cw - place.left - place.width, ch - place.top - place.height
    if how == "top-left":
        assert (place.left, place.top) == (0, 0)
    else:
        assert right - place.left in (0, 1) and bottom - place.top in (0, 1)


@settings(max_examples=300)
@given(st.data(), side, side, canvas_side, canvas_side, st.sampled_from(PLACES))
def test_boxes_go_onto_the_canvas_and_back(draws: st.DataObject, w: int, h: int, cw: int, ch: int, how: Place) -> None:
    """The round trip is exact but for float32's rounding of a canvas coordinate (2^-24 of it), scaled up again."""
    place = fit(w, h, Input(cw, ch, letterbox=how))
    x = sorted(draws.draw(st.lists(st.floats(0, w), min_size=2, max_size=2)))
    y = sorted(draws.draw(st.lists(st.floats(0, h), min_size=2, max_size=2)))
    box = np.array([x[0], y[0], x[1], y[1]])
    scale = np.array([place.width / w, place.height / h] * 2)
    on_canvas = box * scale + [place.left, place.top] * 2
    back = to_frame(on_canvas[None].astype(np.float32), place)[0]
    assert back.dtype == np.float32
    tolerance = 2.0**-23 * (max(cw, ch) / scale + box)
    assert (abs(back - box) <= tolerance).all()


def test_boxes_are_clipped_to_the_frame() -> None:
    place = fit(200, 100, Input(100, 100))
    wild = np.array([[-1e9, -50, 1e9, 500], [10, 30, 20, 40]], np.float32)
    assert to_frame(wild, place).tolist() == [[0, 0, 200, 100], [20, 10, 40, 30]]
    assert to_frame(np.zeros((0, 4), np.float32), place).shape == (0, 4)


@pytest.mark.parametrize("how", PLACES)
@pytest.mark.parametrize(("w", "h"), [(1, 1), (3, 5000), (5000, 3), (100, 100), (97, 53), (640, 480), (40000, 2)])
def test_the_canvas_holds_the_picture_and_grey_around_it(w: int, h: int, how: Place) -> None:
    spec = Input(96, 64, letterbox=how, pad=77)
    canvas = np.full((64, 96, 3), 200, np.uint8)
    image = np.full((h, w, 3), (10, 20, 30), np.uint8)
    image.flags.writeable = False
    place = letterbox(image, spec, canvas)
    want = np.full((64, 96, 3), 77, np.uint8)
    want[place.top : place.top + place.height, place.left : place.left + place.width] = (10, 20, 30)
    assert (canvas == want).all()


@pytest.mark.parametrize("how", PLACES)
def test_a_mark_in_the_picture_is_where_its_box_maps_to(how: Place) -> None:
    """Pixels and boxes take the same way: a painted square is found within a pixel of its mapped corners."""
    spec = Input(320, 256, letterbox=how, pad=0)
    for w, h in ((640, 480), (333, 777), (1920, 1080), (64, 48)):
        image = np.zeros((h, w, 3), np.uint8)
        box = np.array([w // 4, h // 3, w // 4 + w // 2, h // 3 + h // 3])
        image[box[1] : box[3], box[0] : box[2]] = 255
        canvas = np.empty((256, 320, 3), np.uint8)
        place = letterbox(image, spec, canvas)
        rows, columns = np.nonzero(canvas[:, :, 0] > 127)
        found = np.array([[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]], np.float32)
        step = max(w / place.width, h / place.height)
        assert abs(to_frame(found, place)[0] - box).max() <= 0.75 * step


@pytest.mark.parametrize(("layout", "dtype"), list(itertools.product(("NCHW", "NHWC"), ("float32", "uint8"))))
def test_a_new_picture_leaves_nothing_of_the_last(layout: Literal["NCHW", "NHWC"], dtype: str) -> None:
    """Whatever came before it, a picture becomes what it becomes in buffers of its own."""
    spec = Input(64, 64, letterbox="center", layout=layout, scale=1 / 255 if dtype == "float32" else 1.0)
    tensor = TensorSpec("x", (1, 3, 64, 64) if layout == "NCHW" else (1, 64, 64, 3), dtype)
    prepare = preparer(spec, tensor)
    for seed, (h, w) in enumerate([(20, 64), (20, 64), (64, 20), (64, 64), (64, 20), (64, 20), (20, 64), (10, 32)]):
        image = noise(h, w, seed=seed)
        assert (prepare(image)[0] == preparer(spec, tensor)(image)[0]).all()


@pytest.mark.parametrize(("w", "h"), [(640, 480), (1920, 1080), (767, 431), (96, 64), (97, 200), (1600, 70)])
def test_by_area_nothing_fine_becomes_a_pattern(w: int, h: int) -> None:
    """Held against the mean of the pixels that each one covers, counted out."""
    image, spec = noise(h, w), Input(96, 64, letterbox="stretch", resize="area")
    canvas: Pixels = np.empty((64, 96, 3), np.uint8)
    letterbox(image, spec, canvas)

    def shares(fine: int, coarse: int) -> npt.NDArray[np.float64]:
        ends = np.arange(fine + 1) * coarse / fine
        return np.array([np.diff(np.clip(ends, i, i + 1)) for i in range(coarse)])

    mean = np.einsum("yh,hwc,xw->yxc", shares(h, 64), image, shares(w, 96), optimize=True)
    # halving shares out the pixels on an edge evenly, instead of by what lies on either side
    assert np.abs(canvas - mean).mean() < 6, "of noise, which is the worst there is"
    linear: Pixels = np.empty((64, 96, 3), np.uint8)
    letterbox(image, Input(96, 64, letterbox="stretch"), linear)
    if w > 200 and h > 200:
        assert linear.std() > 1.5 * canvas.std(), "four pixels of noise are still noise"


def test_a_picture_that_is_too_small_is_enlarged_as_ever() -> None:
    image = noise(20, 30)
    both: list[Pixels] = [np.empty((64, 96, 3), np.uint8) for _ in range(2)]
    letterbox(image, Input(96, 64), both[0])
    letterbox(image, Input(96, 64, resize="area"), both[1])
    assert (both[0] == both[1]).all()


def test_a_picture_without_pixels_is_bad_input() -> None:
    with pytest.raises(InputError, match="0x5 pixels"):
        letterbox(np.empty((5, 0, 3), np.uint8), Input(8, 8), np.empty((8, 8, 3), np.uint8))


# ── the input tensor ─────────────────────────────────────────────────────────────────────────────────────

NORMS = {
    "plain": {},
    "unit": {"scale": 1 / 255},
    "imagenet": {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "centred": {"scale": 1 / 127.5, "mean": (1.0, 1.0, 1.0)},
}


@pytest.mark.parametrize(
    ("layout", "channels", "norm"), list(itertools.product(("NCHW", "NHWC"), ("BGR", "RGB"), NORMS.values()))
)
@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("float32", 0.0, 0), ("float16", 0.0, 0), ("uint8", 0.0, 0), ("uint8", 0.02, 114), ("int8", 0.01, -7)],
)
def test_the_tensor_is_what_the_manifest_says(
    layout: Literal["NCHW", "NHWC"],
    channels: Literal["BGR", "RGB"],
    norm: dict[str, Any],
    dtype: str,
    scale: float,
    zero: int,
) -> None:
    spec = Input(20, 12, layout=layout, channels=channels, letterbox="stretch", **norm)
    shape = (1, 3, 12, 20) if layout == "NCHW" else (1, 12, 20, 3)
    image = noise(12, 20)
    tensor, _ = preparer(spec, TensorSpec("x", shape, dtype, scale, zero))(image)
    x = image[:, :, ::-1] if channels == "RGB" else image
    real = (x.astype(np.float64) * spec.scale - spec.mean) / spec.std
    if layout == "NCHW":
        real = real.transpose(2, 0, 1)
    assert tensor.shape == shape
    if dtype.startswith("float"):
        assert tensor.dtype == np.float32
        assert np.allclose(tensor[0], real, rtol=1e-5, atol=1e-5)
    else:
        assert tensor.dtype == dtype
        info = np.iinfo(np.dtype(dtype))
        want = np.clip(np.rint(real / (scale or 1) + zero), info.min, info.max)
        off = abs(tensor[0].astype(int) - want)
        assert off.max() <= 1 and (off > 0).mean() < 0.01  # a tie may round either way


def test_pixels_go_straight_into_a_quantized_tensor_that_means_pixels() -> None:
    """SSD: real = (q - 128) / 128 and the manifest asks for x / 128 - 1, so q is x itself."""
    spec = Input(20, 12, layout="NHWC", channels="BGR", letterbox="stretch", scale=1 / 128, mean=(1.0, 1.0, 1.0))
    image = noise(12, 20)
    tensor, _ = preparer(spec, TensorSpec("x", (1, 12, 20, 3), "uint8", 1 / 128, 128))(image)
    assert (tensor[0] == image).all()


def test_dynamic_axes_take_the_manifests_size() -> None:
    tensor, _ = preparer(Input(20, 12), TensorSpec("x", (None, 3, None, None), "float32"))(noise(5, 5))
    assert tensor.shape == (1, 3, 12, 20)


@pytest.mark.parametrize(
    ("shape", "dtype", "said"),
    [
        ((1, 3, 12, 24), "float32", r'"x" is \[1, 3, 12, 24\], not \[1, 3, 12, 20\]; correct width, height or layout'),
        ((1, 12, 20, 3), "float32", "correct width, height or layout"),
        ((None, 4), "float32", r"\['\?', 4\]"),
        ((1, 3, 12, 20), "int64", "holds int64; pictures go in as"),
    ],
)
def test_a_tensor_that_is_no_such_picture_is_refused(shape: tuple[int | None, ...], dtype: str, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        preparer(Input(20, 12), TensorSpec("x", shape, dtype))


# ── NMS ──────────────────────────────────────────────────────────────────────────────────────────────────


def slow_nms(xyxy: Floats, score: Floats, label: npt.NDArray[np.int32], iou: float) -> list[int]:
    """Greedy, every pair, one number at a time."""
    kept: list[int] = []
    for i in sorted(range(len(score)), key=lambda i: -score[i]):
        a = [float(v) for v in xyxy[i]]
        for j in kept:
            b = [float(v) for v in xyxy[j]]
            width = min(a[2], b[2]) - max(a[0], b[0])
            height = min(a[3], b[3]) - max(a[1], b[1])
            common = max(width, 0.0) * max(height, 0.0)
            both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
            if label[i] == label[j] and common > iou * both:
                break
        else:
            kept.append(i)
    return kept


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 5), st.floats(0.05, 0.95))
def test_nms_keeps_what_the_slow_one_keeps(seed: int, n: int, classes: int, iou: float) -> None:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-60, 100, (n, 2))
    xyxy = np.concatenate([corner, corner + rng.uniform(1, 80, (n, 2))], axis=1).astype(np.float32)
    score = (rng.permutation(n) / max(n, 1)).astype(np.float32)
    label = rng.integers(0, classes, n).astype(np.int32)
    assert nms(xyxy, score, label, iou).tolist() == slow_nms(xyxy, score, label, iou)


def test_boxes_of_different_classes_never_suppress_each_other() -> None:
    box = np.array([[10, 10, 50, 50]] * 4, np.float32)
    score = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert nms(box, score, np.array([0, 0, 0, 0], np.int32), 0.5).tolist() == [0]
    assert nms(box, score, np.array([0, 1, 0, 79], np.int32), 0.5).tolist() == [0, 1, 3]


def test_absurd_boxes_do_not_blur_the_classes_of_the_others() -> None:
    """One box as large as float32 goes must not eat the precision that keeps classes apart."""
    xyxy = np.array([[-1e30, -1e30, 1e30, 1e30], [10, 10, 50, 50], [11, 11, 51, 51], [300, 300, 340, 340]], np.float32)
    score = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    assert nms(xyxy, score, np.array([5, 70, 71, 71], np.int32), 0.5).tolist() == [0, 1, 2, 3]
    assert nms(xyxy, score, np.array([5, 70, 70, 70], np.int32), 0.5).tolist() == [0, 1, 3]


def test_a_flood_of_boxes_is_cut_to_the_best() -> None:
    n = NMS_CANDIDATES + 500
    corner = np.stack([np.arange(n) * 2.0, np.zeros(n)], axis=1)
    xyxy = np.concatenate([corner, corner + 1], axis=1).astype(np.float32)
    score = (np.random.default_rng(0).permutation(n) / n).astype(np.float32)
    kept = nms(xyxy, score, np.zeros(n, np.int32), 0.5)
    assert len(kept) == NMS_CANDIDATES
    assert (kept == np.argsort(-score)[:NMS_CANDIDATES]).all()


# ── pictures for people ──────────────────────────────────────────────────────────────────────────────────


def found(*boxes: tuple[float, float, float, float], names: dict[int, str] | None = None) -> Detections:
    n = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4),
        np.linspace(0.9, 0.3, n).astype(np.float32),
        np.arange(n, dtype=np.int32),
        names or {},
    )


def test_drawing_marks_the_boxes_and_leaves_the_frame_alone() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    image.flags.writeable = False
    picture = draw(image, found((50, 60, 150, 200), names={0: "person"}))
    assert picture.shape == image.shape and not image.any()
    paint = colour(0)
    for x, y in ((50, 60), (149, 60), (50, 199), (149, 199), (100, 60), (50, 130)):
        assert tuple(picture[y, x]) == paint
    assert not picture[62:198, 152:].any() and not picture[70:190, 60:140].any()
    tag = picture[40:60, 50:]
    assert (tag == paint).all(axis=2).sum() > 100 and (tag != paint).any()


@pytest.mark.parametrize("shape", [(1, 1), (2, 500), (500, 2), (3000, 4000)])
def test_any_size_and_any_name_can_be_drawn(shape: tuple[int, int]) -> None:
    height, width = shape
    boxes = found(
        (0, 0, width, height), (0, 0, 0.2, 0.2), (width - 1, height - 1, width, height), names={0: "Führer 狗"}
    )
    assert draw(noise(height, width), boxes).shape == (height, width, 3)
    assert (draw(noise(height, width), found()) == noise(height, width)).all()


def test_classes_have_colours_of_their_own() -> None:
    assert len({colour(i) for i in range(80)}) == 80
    for i in range(79):
        assert sum(abs(a - b) for a, b in zip(colour(i), colour(i + 1), strict=True)) > 60


def test_jpegs_are_read_back(tmp_path: Path) -> None:
    image = np.full((30, 40, 3), (30, 120, 200), np.uint8)
    save_jpeg(image, tmp_path / "out.jpg")
    back = cv2.imread(str(tmp_path / "out.jpg"))
    assert back is not None and back.shape == image.shape and abs(back.astype(int) - image).max() < 6
    assert len(jpeg(noise(200, 200), 20)) < len(jpeg(noise(200, 200), 95))


def test_what_cannot_be_saved_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"out\.jpg: cannot be written \(No such file or directory\)"):
        save_jpeg(np.zeros((2, 2, 3), np.uint8), tmp_path / "gone" / "out.jpg")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="no regular file"):  # /dev/null would be a file from then on, for all
        save_jpeg(np.zeros((2, 2, 3), np.uint8), tmp_path / "fifo")
    assert (tmp_path / "fifo").is_fifo() and sorted(path.name for path in tmp_path.iterdir()) == ["fifo"]
    with pytest.raises(InputError, match="does not fit into a JPEG"):
        jpeg(np.zeros((1, 70_000, 3), np.uint8))
