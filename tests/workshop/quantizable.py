"""Small networks and pictures to quantize. For tests only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper

from edge_agent.types import Pixels
from tests.nets import write_onnx

SIZE = 64
UNEVEN = np.array([1.0, 50.0, 0.05], np.float32)
"""sizes of the channels behind the stem: one scale for all leaves nothing of the last"""


def detector(folder: Path, *, blocked: bool = False, uneven: bool = True) -> Path:
    """A model folder: it finds 8x8 cells of pure blue, green and red (YOLOX's raw head), through three convolutions.

    `stem` makes the channels uneven, the depthwise `undo` makes them even again, `mix` does nothing. `blocked`: the
    stem's output is read by something else too, so that no equalisation is possible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    factor = UNEVEN if uneven else np.ones(3, np.float32)
    n8, n = (SIZE // 8) ** 2, sum((SIZE // s) ** 2 for s in (8, 16, 32))
    centre = np.zeros((3, 1, 3, 3), np.float32)
    centre[:, 0, 1, 1] = 1 / factor
    constants: dict[str, npt.NDArray[Any]] = {
        "w.stem": np.diag(factor / 255).astype(np.float32)[:, :, None, None],
        "b.stem": np.zeros(3, np.float32),
        "w.undo": centre,
        "b.undo": np.zeros(3, np.float32),
        "w.mix": np.eye(3, dtype=np.float32)[:, :, None, None],
        "b.mix": np.zeros(3, np.float32),
        "flat": np.array([1, 3, -1], np.int64),
        "boxes": np.tile(np.array([0.5, 0.5, 0.0, 0.0], np.float32), (1, n, 1)),
        "objectness": (np.arange(n) < n8).astype(np.float32).reshape(1, n, 1),
        "nothing": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w.stem", "b.stem"], ["s0"], name="stem", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["s0"], ["s"], name="stem.relu"),
        helper.make_node(
            "Conv", ["s", "w.undo", "b.undo"], ["u0"], name="undo", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=3
        ),
        helper.make_node("Relu", ["u0"], ["u"], name="undo.relu"),
        helper.make_node("Conv", ["u", "w.mix", "b.mix"], ["m0"], name="mix", kernel_shape=[1, 1]),
    ]
    if blocked:
        nodes += [
            helper.make_node("Mul", ["s", "nothing"], ["z"], name="blocker"),
            helper.make_node("Add", ["m0", "z"], ["m"], name="blocked"),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["m0"], ["m"], name="same"))
    for s in (8, 16, 32):
        nodes += [
            helper.make_node("AveragePool", ["m"], [f"p{s}"], kernel_shape=[s, s], strides=[s, s], name=f"pool{s}"),
            helper.make_node("Reshape", [f"p{s}", "flat"], [f"f{s}"], name=f"flat{s}"),
            helper.make_node("Transpose", [f"f{s}"], [f"t{s}"], perm=[0, 2, 1], name=f"turn{s}"),
        ]
    nodes.append(helper.make_node("Concat", ["t8", "t16", "t32"], ["classes"], axis=1, name="classes"))
    nodes.append(helper.make_node("Concat", ["boxes", "objectness", "classes"], ["output"], axis=2, name="output"))
    path = write_onnx(
        folder / "model.onnx",
        nodes,
        {"images": (TensorProto.FLOAT, [1, 3, SIZE, SIZE])},
        {"output": (TensorProto.FLOAT, [1, n, 8])},
        constants,
    )
    raw = path.read_bytes()
    (folder / "manifest.toml").write_text(
        'name = "blobs"\nversion = "1"\ntask = "detect"\nfamily = "yolox"\nlicence = "Apache-2.0"\n'
        'trained_by = "nobody"\nlabels = ["blue", "green", "red"]\nscore = 0.5\n'
        f'[input]\nwidth = {SIZE}\nheight = {SIZE}\nchannels = "BGR"\nletterbox = "top-left"\n'
        f'[[file]]\nname = "model.onnx"\nformat = "onnx"\nsha256 = "{hashlib.sha256(raw).hexdigest()}"\n'
        f"bytes = {len(raw)}\n"
    )
    return folder


def blobs(seed: int) -> Pixels:
    """A dark picture with four cells of pure colour on the grid of 8."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 30, (SIZE, SIZE, 3)).astype(np.uint8)
    for place in rng.choice(64, 6, replace=False):
        y, x = divmod(int(place), 8)
        image[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8] = 0
        image[y * 8 : y * 8 + 8, x * 8 : x * 8 + 8, int(rng.integers(3))] = 255 - int(rng.integers(60))
    return image


def pictures(folder: Path, count: int = 8, first: int = 0) -> Path:
    """A folder of such pictures as .png."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), blobs(number))
    return folder
