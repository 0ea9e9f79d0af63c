"""A YOLOX detector as a teacher: its raw maps and the features below its heads, by ONNX Runtime.

The file's graph is cut above its last Reshape, where sizes are hard-coded, so a teacher exported at 416 also answers at
320. Heads and features are found by the structure, not by names. Any other detector can teach by the boxes that it
finds; see `data.labelled_by`.

YOLOX: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430. Its raw head, for each cell:
``dx, dy, log w, log h`` in units of the stride from the cell's corner, then objectness and class probabilities.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn

from edge_agent.errors import ModelError
from edge_agent.workshop.graph import net as graphs
from edge_agent.workshop.train.detector.net import FOLLOWED, STRIDES, EdgeYolo, convolutions
from edge_agent.workshop.train.exported import cut


class Dense(NamedTuple):
    """What is to be said about each cell of a batch; cells row-major, strides 8, 16, 32 one after the other."""

    score: Tensor
    "(B, N, C) probability of each class, objectness included"
    boxes: Tensor
    "(B, N, 4) left, top, right, bottom of the cell's centre, in units of the stride"
    features: list[Tensor]
    "maps (B, K, h, w) in the order of net.FOLLOWED, or its last three only; may be empty"


class YoloxTeacher:
    """The three raw maps of a YOLOX file and the features below its heads, for pictures of any multiple of 32."""

    def __init__(self, path: Path, keep: list[int], threads: int = 1) -> None:
        """`keep`: its classes that the student learns, in the student's order."""
        self.path, self.keep = path, keep
        self.model = graphs.load(path)
        self.levels, stems = _find_heads(self.model.graph, path)
        found = pairs(self.model.graph)
        # the tensor after the activation: SiLU's Mul is the last to read a convolution's output
        after = {name: node.output[0] for node in self.model.graph.node for name in node.input}
        self.followed = [after[found[name].output[0]] for name in FOLLOWED] if found else stems
        self._session = self.open([*self.levels, *self.followed], threads)

    def open(self, outputs: list[str], threads: int = 1) -> ort.InferenceSession:
        """A session that gives the named tensors for pictures (B, 3, H, W) float32 of any size."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            constants = {one.name for one in self.model.graph.initializer}
            given = [one.name for one in self.model.graph.input if one.name not in constants]
            model = cut(self.model, given, outputs)
            size, open_ = model.graph.input[0].type.tensor_type.shape.dim, {0: "batch", 2: "height", 3: "width"}
            for axis, name in open_.items():
                size[axis].dim_param = name
            return ort.InferenceSession(model.SerializeToString(), options, providers=ort.get_available_providers())
        except (ort.capi.onnxruntime_pybind11_state.Fail, RuntimeError) as error:
            raise ModelError(f"teacher {self.path} does not run: {str(error).splitlines()[0]}") from error

    def dense(self, pictures: Tensor) -> Dense:
        """`pictures` (B, 3, H, W) float32 BGR 0..255."""
        source = self._session.get_inputs()[0].name
        found = self._session.run(None, {source: pictures.numpy(force=True)})
        maps = [torch.from_numpy(m) for m in found[: len(STRIDES)]]
        score, boxes = decode(maps, self.keep)
        device = pictures.device
        features = [torch.from_numpy(m).to(device) for m in found[len(STRIDES) :]]
        return Dense(score.to(device), boxes.to(device), features)


def decode(maps: list[Tensor], keep: list[int]) -> tuple[Tensor, Tensor]:
    """Raw maps (B, 5 + classes, h, w) -> scores (B, N, len(keep)) and distances (B, N, 4) as in `Dense`."""
    scores, boxes = [], []
    for raw in maps:
        rows = raw.flatten(2).transpose(1, 2)
        scores.append(rows[..., 4:5] * rows[..., 5:][..., keep])
        # the centre relative to the cell's corner, then to its middle, where the student measures from
        centre, half = rows[..., :2] - 0.5, rows[..., 2:4].clamp(max=6).exp() / 2
        boxes.append(torch.cat([half - centre, half + centre], -1))
    return torch.cat(scores, 1), torch.cat(boxes, 1)


def pairs(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The name of each of EdgeYolo's convolutions -> the teacher's convolution in its place.

    {} where the teacher is not of the same shape: YOLOX with depthwise convolutions and depth 0.33, as YOLOX-nano.
    """
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    found: dict[str, onnx.NodeProto] = {}
    at = 0
    for name, conv in convolutions(EdgeYolo(1)):
        if at >= len(nodes) or not _same_shape(name, conv, nodes[at]):
            return {}
        found[name.removesuffix(".conv")] = nodes[at]
        # a third prediction of each head, the objectness, follows its boxes
        at += 2 if name.endswith(".boxes") else 1
    return found if at == len(nodes) else {}


def _same_shape(name: str, conv: nn.Conv2d, node: onnx.NodeProto) -> bool:
    """Whether both are depthwise, or neither, and of one stride."""
    values = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    stride = 1 if name == "stem.conv" else conv.stride[0]  # theirs stands after a rearrangement of pixels
    depthwise = bool(values.get("group", 1) > 1) == (conv.groups > 1)
    return depthwise and bool(values.get("strides", [1, 1])[0] == stride)


def _find_heads(graph: onnx.GraphProto, path: Path) -> tuple[list[str], list[str]]:
    """The three per-stride maps, and the tensor that each one's branches share. ModelError for another network.

    A map is a Concat of three: a Conv of 4 outputs, the Sigmoid of a Conv of 1, the Sigmoid of the classes' Conv.
    """
    maker = {node.output[0]: node for node in graph.node}
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    levels, stems = [], []
    for node in graph.node:
        parts = _predictions(node, maker, shapes)
        if parts is None:
            continue
        boxes, scores = (_chain(part, maker) for part in parts)
        levels.append(node.output[0])
        stems.append(next(name for name in boxes if name in scores))
    if len(levels) != len(STRIDES):
        raise ModelError(f"{path} has no YOLOX head ({len(levels)} of 3 levels found)")
    return levels, stems


def _chain(node: onnx.NodeProto, maker: dict[str, onnx.NodeProto]) -> list[str]:
    """What a node makes, what it is made of in the first place, and so on."""
    found = [node.output[0]]
    while node.input[0] in maker:
        node = maker[node.input[0]]
        found.append(node.output[0])
    return found


def _predictions(
    node: onnx.NodeProto, maker: dict[str, onnx.NodeProto], shapes: dict[str, list[int]]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Of a Concat that is a map: the Conv of boxes, and the Sigmoid of classes."""
    parts = [maker[name] for name in node.input if name in maker] if node.op_type == "Concat" else []
    if [part.op_type for part in parts] != ["Conv", "Sigmoid", "Sigmoid"]:
        return None
    return (parts[0], parts[2]) if shapes.get(parts[0].input[1], [0])[0] == 4 else None


def cells(width: int, height: int) -> np.ndarray:
    """(N, 3) float32: x and y of each cell's centre in pixels, and its stride; in the order of the heads' rows."""
    rows = []
    for stride in STRIDES:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        centre = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride
        rows.append(np.concatenate([centre, np.full((len(centre), 1), stride)], 1))
    return np.concatenate(rows).astype(np.float32)
