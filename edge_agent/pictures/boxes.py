"""Pictures and boxes: letterbox, the input tensor, back into the frame, non-maximum suppression.

Coordinates are continuous: a picture w pixels wide spans 0..w, and the
first pixel covers 0..1, so that scaling a picture and scaling its boxes are one multiplication.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, RefusedError
from edge_agent.manifest import Input
from edge_agent.pictures.read import cv2
from edge_agent.types import Floats, Ints, Pixels, TensorSpec

NMS_CANDIDATES = 5000
"""the best-scored boxes that enter NMS: bounds its time where a threshold lets everything through"""

TINY = np.float32(1e-30)
"""a score that is as good as none"""

# of this process: a resize is over before OpenCV's own threads are awake, which then wait in circles for the next one
cv2.setNumThreads(1)

Reals = npt.NDArray[np.float64]


class Fit(msgspec.Struct, frozen=True):
    """Where a frame lies on the canvas of the network, all in whole pixels."""

    frame_width: int
    frame_height: int
    left: int
    top: int
    width: int
    height: int


def fit(frame_width: int, frame_height: int, spec: Input) -> Fit:
    """Place a frame on the canvas as `spec.letterbox` says, keeping its aspect ratio except for "stretch".

    The picture is at least one pixel wide and high. "center" rounds as Ultralytics does (LetterBox: left and top take
    round(pad - 0.1)), so that an odd pad puts its extra pixel to the right and below.
    """
    if spec.letterbox == "stretch":
        return Fit(frame_width, frame_height, 0, 0, spec.width, spec.height)
    ratio = min(spec.width / frame_width, spec.height / frame_height)
    width = min(spec.width, max(1, round(frame_width * ratio)))
    height = min(spec.height, max(1, round(frame_height * ratio)))
    if spec.letterbox == "top-left":
        return Fit(frame_width, frame_height, 0, 0, width, height)
    left = round((spec.width - width) / 2 - 0.1)
    top = round((spec.height - height) / 2 - 0.1)
    return Fit(frame_width, frame_height, left, top, width, height)


def letterbox(image: Pixels, spec: Input, canvas: Pixels, last: Fit | None = None) -> Fit:
    """Resize `image` (h, w, 3) into `canvas` (spec.height, spec.width, 3), grey around it. `image` is only read.

    `last`: where the picture that lies on the canvas stands; the grey around one in the same place is already there.
    """
    height, width = image.shape[:2]
    if not height or not width:
        raise InputError(f"a picture of {width}x{height} pixels has nothing to look at; it is skipped")
    place = fit(width, height, spec)
    bottom, right = place.top + place.height, place.left + place.width
    if place != last:
        canvas[: place.top] = spec.pad
        canvas[bottom:] = spec.pad
        canvas[place.top : bottom, : place.left] = spec.pad
        canvas[place.top : bottom, right:] = spec.pad
    inside = canvas[place.top : bottom, place.left : right]
    if (place.width, place.height) == (width, height):
        np.copyto(inside, image)
    else:
        _resize(image, inside, spec.resize)
    return place


def _resize(image: Pixels, into: Pixels, how: str) -> None:
    """Fill `into` with the whole of `image`.

    Linear: INTER_LINEAR, whose pixels differ between processors (on Arm a fifth of them by one level of 255), so no
    threshold may hang on a single one. Area: the mean of what each pixel covers, the same everywhere. Halving is a fast
    loop of cv2 and exact where the sides are even, so it goes first.
    """
    (height, width), (h, w) = into.shape[:2], image.shape[:2]
    if how == "linear" or w < width or h < height:
        cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_LINEAR)
        return
    while w >= 2 * width and h >= 2 * height and w % 2 == h % 2 == 0:
        w, h = w // 2, h // 2
        image = np.asarray(cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_AREA)


def to_frame(xyxy: Floats, place: Fit) -> Floats:
    """Boxes (n, 4) in canvas pixels -> boxes (n, 4) float32 in frame pixels, clipped to the frame.

    Each axis has its own scale, the one that the resize really had: after rounding to whole pixels they differ.
    """
    scale, shift, limit = _way_back(place)
    boxes = (xyxy - shift) * scale
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, limit, out=boxes)
    return boxes.astype(np.float32)


@functools.lru_cache(maxsize=32)
def _way_back(place: Fit) -> tuple[Reals, Reals, Reals]:
    """Frame pixels a canvas pixel, where the frame begins on the canvas, and how far it reaches: (4,) each."""
    scale = np.array([place.frame_width / place.width, place.frame_height / place.height] * 2)
    shift = np.array([place.left, place.top] * 2, np.float64)
    return scale, shift, np.array([place.frame_width, place.frame_height] * 2, np.float64)


def preparer(spec: Input, tensor: TensorSpec) -> Callable[[Pixels], tuple[npt.NDArray[Any], Fit]]:
    """A function from a frame's image to the network's input tensor and the Fit that leads back.

    All buffers are allocated here, once: the tensor given is overwritten by the next call, and one thread at a time
    may call. A float tensor holds (x * scale - mean) / std. An integer tensor holds the same, quantized with its own
    scale and zero point by way of a table of the 256 values a pixel can have; when that table changes nothing, the
    pixels themselves. Rows that only hold the grey border are filled when a picture of another shape comes, not for
    each. RefusedError when the tensor is no picture of `spec`'s size and layout.
    """
    dtype = _dtype(spec, tensor)
    canvas: Pixels = np.empty((spec.height, spec.width, 3), np.uint8)
    std = np.asarray(spec.std, np.float64)
    gain, offset = spec.scale / std, -np.asarray(spec.mean, np.float64) / std
    convert = _floats if dtype == np.float32 else _integers
    fill, out = convert(canvas, spec, gain, offset, tensor, dtype)

    last: Fit | None = None

    def prepare(image: Pixels) -> tuple[npt.NDArray[Any], Fit]:
        nonlocal last
        place = letterbox(image, spec, canvas, last)
        fill(slice(place.top, place.top + place.height) if place == last else slice(None))
        last = place
        return out, place

    return prepare


def _dtype(spec: Input, tensor: TensorSpec) -> np.dtype[Any]:
    """The dtype to fill; a float16 tensor is filled as float32, which the backend narrows."""
    want = (1, 3, spec.height, spec.width) if spec.layout == "NCHW" else (1, spec.height, spec.width, 3)
    if len(tensor.shape) != 4 or any(a not in (None, b) for a, b in zip(tensor.shape, want, strict=True)):
        shape = ["?" if axis is None else axis for axis in tensor.shape]
        raise RefusedError(
            f'input "{tensor.name}" is {shape}, not {list(want)}; '
            "correct width, height or layout under [input] or [[file]]"
        )
    if tensor.dtype in ("float32", "float16"):
        return np.dtype(np.float32)
    if tensor.dtype in ("uint8", "int8"):
        return np.dtype(tensor.dtype)
    raise RefusedError(f'input "{tensor.name}" holds {tensor.dtype}; pictures go in as float32, float16, uint8 or int8')


Fill = tuple[Callable[[slice], None], npt.NDArray[Any]]
"""fills the rows of the tensor at its side"""


def _floats(canvas: Pixels, spec: Input, gain: Reals, offset: Reals, tensor: TensorSpec, dtype: np.dtype[Any]) -> Fill:
    """canvas * gain + offset per channel. NHWC works on whole rows (w * 3): numpy is slow on an axis of three."""
    height, width = canvas.shape[:2]
    rgb = spec.channels == "RGB"
    if spec.layout == "NCHW":
        out = np.empty((1, 3, height, width), dtype)
        split = [np.empty((height, width), np.uint8) for _ in range(3)]
        planes = zip(reversed(split) if rgb else split, out[0], gain, offset, strict=True)
        steps = [(plane, target, _factor(g), _term(o)) for plane, target, g, o in planes]

        def fill(rows: slice) -> None:
            cv2.split(canvas[rows], [plane[rows] for plane in split])
            for plane, target, factor, term in steps:
                _scale(plane[rows], target[rows], factor, term)

        return fill, out
    out = np.empty((1, height, width, 3), dtype)
    source = np.empty_like(canvas) if rgb else canvas
    flat, target = source.reshape(height, -1), out.reshape(height, -1)
    factor, term = _factor(np.tile(gain, width)), _term(np.tile(offset, width))

    def fill_rows(rows: slice) -> None:
        if rgb:
            cv2.cvtColor(canvas[rows], cv2.COLOR_BGR2RGB, dst=source[rows])
        _scale(flat[rows], target[rows], factor, term)

    return fill_rows, out


def _factor(gain: Any) -> Floats | None:
    """The gain as float32, one number where all are the same; None where it changes nothing."""
    first = np.float32(np.ravel(gain)[0])
    return None if np.all(gain == 1) else np.asarray(first if np.all(np.float32(gain) == first) else gain, np.float32)


def _term(offset: Any) -> Floats | None:
    """The offset as float32; None where it changes nothing."""
    return np.asarray(offset, np.float32) if np.any(offset) else None


def _scale(source: npt.NDArray[np.uint8], target: Floats, factor: Floats | None, term: Floats | None) -> None:
    """target = source * factor + term; to widen first and then multiply in place is the faster order in numpy."""
    np.copyto(target, source)
    if factor is not None:
        np.multiply(target, factor, out=target)
    if term is not None:
        np.add(target, term, out=target)


def _integers(
    canvas: Pixels, spec: Input, gain: Reals, offset: Reals, tensor: TensorSpec, dtype: np.dtype[Any]
) -> Fill:
    """canvas through a table per channel: q = round((x * gain + offset) / scale) + zero_point, saturated."""
    real = np.arange(256)[:, None] * gain + offset
    span = np.iinfo(dtype)
    table = np.clip(np.rint(real / (tensor.scale or 1.0)) + tensor.zero_point, span.min, span.max).astype(dtype)
    same = dtype == np.uint8 and bool((table == np.arange(256)[:, None]).all())
    ordered = np.empty_like(canvas) if spec.channels == "RGB" else canvas
    pixels = ordered if same else np.empty(canvas.shape, dtype)
    nchw = spec.layout == "NCHW"
    out = np.empty((1, 3, *canvas.shape[:2]), dtype) if nchw else pixels[None]

    def fill(rows: slice) -> None:
        if spec.channels == "RGB":
            cv2.cvtColor(canvas[rows], cv2.COLOR_BGR2RGB, dst=ordered[rows])
        if not same:
            cv2.LUT(ordered[rows], table[None], dst=pixels[rows])
        if nchw:
            np.copyto(out[0][:, rows], pixels[rows].transpose(2, 0, 1))

    return fill, out


def nms(xyxy: Floats, score: Floats, label: Ints, iou: float) -> Ints:
    """Class-aware non-maximum suppression: (n, 4), (n,), (n,) -> indices of the boxes that stay, best score first.

    A box goes when a better-scored one of its own class overlaps it by more than `iou` (intersection over union).
    """
    if len(score) > NMS_CANDIDATES:
        best = np.argpartition(-score, NMS_CANDIDATES)[:NMS_CANDIDATES]
        return best[nms(xyxy[best], score[best], label[best], iou)].astype(np.int32)
    # cv2 keeps classes apart by shifting each by the largest coordinate: that holds for coordinates >= 0 only, and
    # as long as float64 still tells pixels apart. It drops a score of 0. Lists cost it less than arrays.
    boxes = np.minimum(np.maximum(xyxy, -1e5), 1e5).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    boxes[:, :2] += 1e5
    kept = cv2.dnn.NMSBoxesBatched(boxes.tolist(), np.maximum(score, TINY).tolist(), label.tolist(), 0.0, iou)
    return np.asarray(kept, np.int32).reshape(-1)
