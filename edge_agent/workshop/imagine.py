"""What a generative model holds to be usual, as a contact sheet.

A model draws by its file of role "decoder", or its network itself where that takes codes: input `z` (n, d) float32, one
output: pictures (n, 3, height, width) in 0..1, RGB, or windows of a series (n, points).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_agent.backends import open_net
from edge_agent.errors import ManifestError, RefusedError
from edge_agent.gate.read import ends
from edge_agent.pictures.draw import save_jpeg, save_png
from edge_agent.pictures.read import cv2
from edge_agent.registry.catalogue import locate
from edge_agent.registry.files import file_path
from edge_agent.types import Floats, Net, Pixels

DECODER = "decoder"
"""role of the file"""
TILE = 96
"""pixels of the shorter side of a picture on the sheet, at least"""
MOST_SIDE = 512


def imagine(name: str, out: Path, count: int = 64, seed: int = 0) -> tuple[int, int]:
    """Write `count` pictures drawn from normal codes to `out`, PNG or JPEG by its name. Returns its width and height.

    ManifestError for a model that draws nothing, RefusedError for one that gives no pictures.
    """
    net = _decoder(name)
    source = net.inputs[0]
    codes = np.random.default_rng(seed).standard_normal((count, source.shape[1] or 1)).astype(np.float32)
    one_by_one = source.shape[0] == 1
    groups = [codes[i : i + 1] for i in range(count)] if one_by_one else [codes]
    drawn = np.concatenate([net.run({"z": some})[net.outputs[0].name] for some in groups])
    if not np.isfinite(drawn).all() or len(drawn) != count or max(drawn.shape[1:]) > MOST_SIDE:
        raise RefusedError(f"{name}: its decoder gives no {count} pictures of finite numbers")
    sheet = tiled([_picture(one, name) for one in drawn])
    (save_png if out.suffix.lower() == ".png" else save_jpeg)(sheet, out)
    return sheet.shape[1], sheet.shape[0]


def _decoder(name: str) -> Net:
    """The network of a model that draws. ManifestError; RefusedError for a file that cannot be opened."""
    located = locate(name)
    rows = [row for row in located.manifest.file if row.role == DECODER] or located.manifest.networks()
    for row in rows:
        if row.format in ("onnx", "tflite"):
            path = file_path(located, row)
            inputs = ends(path, row.format).inputs  # opened in a child first: a bad file may end its process
            if [(spec.name, len(spec.shape)) for spec in inputs] == [("z", 2)] and inputs[0].shape[1]:
                return open_net(path, row.format, 1)
    told = "it has no decoder; a model of `train anomaly --method vae` has one"
    raise ManifestError(f"{name}: draws nothing: {told}")


def _picture(one: Floats, name: str) -> Pixels:
    """One drawing as (h, w, 3) uint8 BGR."""
    if one.ndim == 1:
        return _line(one)
    if one.ndim != 3 or one.shape[0] not in (1, 3):
        raise RefusedError(f"{name}: its decoder gives {list(one.shape)}, which is no picture")
    image = np.clip(np.rint(one[::-1].transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    times = max(1, -(-TILE // min(image.shape[:2])))
    return np.ascontiguousarray(image.repeat(times, 0).repeat(times, 1))


def _line(points: Floats) -> Pixels:
    """A window of a series as a line on white."""
    image = np.full((TILE, TILE, 3), 255, np.uint8)
    low, high = float(points.min()), float(points.max())
    y = (TILE - 8) - (points - low) / max(high - low, 1e-9) * (TILE - 16)
    x = np.linspace(4, TILE - 4, len(points))
    cv2.polylines(image, [np.stack([x, y], 1).astype(np.int32)], False, (160, 80, 20), 1, cv2.LINE_AA)
    return image


def tiled(pictures: list[Pixels], gap: int = 2) -> Pixels:
    """Pictures of one size, side by side, about as many across as down, white between them."""
    across = int(np.ceil(np.sqrt(len(pictures))))
    framed = [cv2.copyMakeBorder(one, 0, gap, 0, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for one in pictures]
    framed += [np.full_like(framed[0], 255)] * (-len(framed) % across)
    rows = [np.concatenate(framed[i : i + across], axis=1) for i in range(0, len(framed), across)]
    return np.asarray(np.concatenate(rows), np.uint8)
