"""Detectors of YOLOv8n's and YOLO11n's shape, with random weights: `python -m tests.bench.graphs FOLDER` writes them.

Layer for layer the networks that `yolo export format=onnx` gives (Ultralytics' yolov8.yaml and yolo11.yaml at scale n;
batch normalisation folded in, SiLU, head with a distribution over 16 distances, 80 classes, 640x640), written here
from the published architecture, since the published weights are AGPL-3.0. They cost what the real ones cost. What they
answer is noise: the last layer is set so that about a score of cells in a picture pass a threshold of 0.25, as they do
in a street scene, and the classes are called thing-0 to thing-79, so that nobody takes them for COCO's.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 640
CLASSES = 80
BINS = 16
STRIDES = (8, 16, 32)
PASSING = 20
"""cells of a picture that pass THRESHOLD"""
THRESHOLD = 0.25
SURE_IN_TWO, MOST_IN_TWO = 0.35, 0.6
"""score of a class in its second-best picture: wanted, and at most"""
USUAL = -8.0
"""logit of the middle cell's best class: a score of 0.0003, as trained heads give"""
REACH = 4
"""strides from a cell's centre to each side of its box, about"""

Array = npt.NDArray[Any]


class Graph:
    """Nodes and weights as they come."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: dict[str, Array] = {}
        self.channels: dict[str, int] = {"images": 3}

    def op(self, kind: str, inputs: Sequence[str], name: str, channels: int = 0, outputs: int = 1, **how: Any) -> Any:
        """One node; gives its output's name, or a list of them."""
        made = [f"{name}_output_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, name, **how))
        self.channels |= dict.fromkeys(made, channels or self.channels.get(inputs[0], 0))
        return made[0] if outputs == 1 else made

    def const(self, name: str, value: Any) -> str:
        self.weights[name] = np.asarray(value)
        return name

    def conv(
        self,
        x: str,
        out: int,
        name: str,
        k: int = 1,
        s: int = 1,
        groups: int = 1,
        act: bool = True,
        plain: bool = False,
    ) -> str:
        """Convolution and SiLU. `plain`: one without normalisation of its own, as the head ends with."""
        fan = self.channels[x] // groups * k * k
        # SiLU keeps 0.36 of the variance of a normal input
        scale = np.sqrt(1 / (0.36 * fan))
        stem = name if plain else f"{name}/conv"
        weight = self.const(f"{stem}.weight", self._normal((out, self.channels[x] // groups, k, k), scale))
        bias = self.const(f"{stem}.bias", self._normal((out,), 0.1))
        how: dict[str, Any] = {"kernel_shape": [k, k], "strides": [s, s], "pads": [k // 2] * 4, "group": groups}
        y: str = self.op("Conv", [x, weight, bias], f"{stem}/Conv", out, **how)
        if not act:
            return y
        return str(self.op("Mul", [y, self.op("Sigmoid", [y], f"{name}/act/Sigmoid")], f"{name}/act/Mul"))

    def _normal(self, shape: tuple[int, ...], scale: float) -> Array:
        return (self.random.standard_normal(shape) * scale).astype(np.float32)

    def join(self, parts: Sequence[str], name: str) -> str:
        return str(self.op("Concat", parts, f"{name}/Concat", sum(self.channels[p] for p in parts), axis=1))

    def split(self, x: str, sizes: Sequence[int], name: str, axis: int = 1) -> list[str]:
        lengths = self.const(f"{name}.split", np.array(sizes, np.int64))
        parts: list[str] = self.op("Split", [x, lengths], f"{name}/Split", outputs=len(sizes), axis=axis)
        self.channels |= dict(zip(parts, sizes, strict=True))
        return parts

    def reshape(self, x: str, shape: Sequence[int], name: str) -> str:
        return str(self.op("Reshape", [x, self.const(f"{name}.shape", np.array(shape, np.int64))], name))


# ── blocks, by the names of Ultralytics' modules ─────────────────────────────────────────────────────────


def bottleneck(g: Graph, x: str, out: int, name: str, add: bool, e: float = 1.0) -> str:
    y = g.conv(g.conv(x, int(out * e), f"{name}/cv1", 3), out, f"{name}/cv2", 3)
    return str(g.op("Add", [x, y], f"{name}/Add")) if add else y


def c3k(g: Graph, x: str, out: int, name: str, add: bool) -> str:
    y, z = g.conv(x, out // 2, f"{name}/cv1"), g.conv(x, out // 2, f"{name}/cv2")
    for i in range(2):
        y = bottleneck(g, y, out // 2, f"{name}/m/m.{i}", add)
    return g.conv(g.join([y, z], name), out, f"{name}/cv3")


def c2f(g: Graph, x: str, out: int, name: str, n: int = 1, add: bool = False, kind: str = "", e: float = 0.5) -> str:
    """C2f, and C3k2 (`kind` "narrow" or "c3k")."""
    wide = int(out * e)
    parts = g.split(g.conv(x, 2 * wide, f"{name}/cv1"), [wide, wide], name)
    for i in range(n):
        inner = f"{name}/m.{i}"
        if kind == "c3k":
            parts.append(c3k(g, parts[-1], wide, inner, add))
        else:
            parts.append(bottleneck(g, parts[-1], wide, inner, add, 0.5 if kind else 1.0))
    return g.conv(g.join(parts, name), out, f"{name}/cv2")


def sppf(g: Graph, x: str, out: int, name: str) -> str:
    parts = [g.conv(x, g.channels[x] // 2, f"{name}/cv1")]
    for i in range(3):
        how: dict[str, Any] = {"kernel_shape": [5, 5], "pads": [2] * 4, "strides": [1, 1]}
        parts.append(g.op("MaxPool", [parts[-1]], f"{name}/m_{i}/MaxPool", **how))
    return g.conv(g.join(parts, name), out, f"{name}/cv2")


def attention(g: Graph, x: str, name: str, side: int) -> str:
    """Self-attention over all cells, heads of 64 with keys of 32, and a depthwise convolution for their places."""
    wide, cells = g.channels[x], side * side
    heads = wide // 64
    qkv = g.reshape(g.conv(x, 2 * wide, f"{name}/qkv", act=False), [1, heads, 128, cells], f"{name}/Reshape")
    q, k, v = g.split(qkv, [32, 32, 64], name, axis=2)
    turned = g.op("Transpose", [q], f"{name}/Transpose", perm=[0, 1, 3, 2])
    scores = g.op("MatMul", [turned, k], f"{name}/MatMul")
    scaled = g.op("Mul", [scores, g.const(f"{name}.scale", np.float32(32**-0.5))], f"{name}/Mul")
    weight = g.op("Softmax", [scaled], f"{name}/Softmax", axis=3)
    weight = g.op("Transpose", [weight], f"{name}/Transpose_1", perm=[0, 1, 3, 2])
    mixed = g.reshape(g.op("MatMul", [v, weight], f"{name}/MatMul_1"), [1, wide, side, side], f"{name}/Reshape_1")
    values = g.reshape(v, [1, wide, side, side], f"{name}/Reshape_2")
    g.channels |= {mixed: wide, values: wide}
    place = g.conv(values, wide, f"{name}/pe", 3, groups=wide, act=False)
    return g.conv(g.op("Add", [mixed, place], f"{name}/Add"), wide, f"{name}/proj", act=False)


def c2psa(g: Graph, x: str, name: str, side: int) -> str:
    wide = g.channels[x] // 2
    a, b = g.split(g.conv(x, 2 * wide, f"{name}/cv1"), [wide, wide], name)
    b = g.op("Add", [b, attention(g, b, f"{name}/m/m.0/attn", side)], f"{name}/m/m.0/Add")
    ffn = g.conv(g.conv(b, 2 * wide, f"{name}/m/m.0/ffn/ffn.0"), wide, f"{name}/m/m.0/ffn/ffn.1", act=False)
    b = g.op("Add", [b, ffn], f"{name}/m/m.0/Add_1")
    return g.conv(g.join([a, b], name), 2 * wide, f"{name}/cv2")


def up(g: Graph, x: str, name: str) -> str:
    scales = g.const(f"{name}.scales", np.array([1, 1, 2, 2], np.float32))
    how: dict[str, Any] = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return str(g.op("Resize", [x, "", scales], f"{name}/Resize", **how))


def detect(g: Graph, levels: Sequence[str], name: str, size: int, light: bool) -> None:
    """The head: boxes as distributions over 16 distances, class logits; decoded to [1, 84, N]. `light`: YOLO11's."""
    c2, c3 = max(16, g.channels[levels[0]] // 4, BINS * 4), max(g.channels[levels[0]], min(CLASSES, 100))
    flat = []
    for i, x in enumerate(levels):
        box = g.conv(g.conv(x, c2, f"{name}/cv2.{i}/cv2.{i}.0", 3), c2, f"{name}/cv2.{i}/cv2.{i}.1", 3)
        box = g.conv(box, 4 * BINS, f"{name}/cv2.{i}/cv2.{i}.2", act=False, plain=True)
        cls = x
        for j in range(2):
            inner = f"{name}/cv3.{i}/cv3.{i}.{j}"
            if light:
                cls = g.conv(cls, g.channels[cls], f"{inner}/{inner[-5:]}.0", 3, groups=g.channels[cls])
                cls = g.conv(cls, c3, f"{inner}/{inner[-5:]}.1")
            else:
                cls = g.conv(cls, c3, inner, 3)
        cls = g.conv(cls, CLASSES, f"{name}/cv3.{i}/cv3.{i}.2", act=False, plain=True)
        both = g.op("Concat", [box, cls], f"{name}/Concat_{i}", axis=1)
        flat.append(g.reshape(both, [1, 4 * BINS + CLASSES, -1], f"{name}/Reshape_{i}"))
    n = sum((size // s) ** 2 for s in STRIDES)
    box, cls = g.split(g.op("Concat", flat, f"{name}/Concat_3", axis=2), [4 * BINS, CLASSES], name)
    bins = g.op(
        "Transpose",
        [g.reshape(box, [1, 4, BINS, n], f"{name}/dfl/Reshape")],
        f"{name}/dfl/Transpose",
        perm=[0, 2, 1, 3],
    )
    weight = g.const(f"{name}/dfl/conv.weight", np.arange(BINS, dtype=np.float32).reshape(1, BINS, 1, 1))
    bins = g.op("Softmax", [bins], f"{name}/dfl/Softmax", axis=1)
    reach = g.op("Conv", [bins, weight], f"{name}/dfl/conv/Conv", kernel_shape=[1, 1])
    near, far = g.split(g.reshape(reach, [1, 4, n], f"{name}/dfl/Reshape_1"), [2, 2], f"{name}/reach")
    centres, steps = anchors(size)
    first = g.op("Sub", [g.const(f"{name}.anchors", centres), near], f"{name}/Sub")
    last = g.op("Add", [far, f"{name}.anchors"], f"{name}/Add")
    middle = g.op("Div", [g.op("Add", [first, last], f"{name}/Add_1"), g.const("two", np.float32(2))], f"{name}/Div")
    span = g.op("Sub", [last, first], f"{name}/Sub_1")
    boxes = g.op("Concat", [middle, span], f"{name}/Concat_4", axis=1)
    pixels = g.op("Mul", [boxes, g.const(f"{name}.strides", steps)], f"{name}/Mul_2")
    scores = g.op("Sigmoid", [cls], f"{name}/Sigmoid")
    g.nodes.append(helper.make_node("Concat", [pixels, scores], ["output0"], f"{name}/Concat_5", axis=1))


def anchors(size: int) -> tuple[Array, Array]:
    """Centres (1, 2, N) in cells and stride (1, N) of each cell: levels in order, rows of cells."""
    centres, steps = [], []
    for stride in STRIDES:
        side = size // stride
        y, x = np.mgrid[:side, :side] + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()]))
        steps.append(np.full(side * side, stride))
    return np.concatenate(centres, axis=1)[None].astype(np.float32), np.concatenate(steps)[None].astype(np.float32)


# ── the two networks ─────────────────────────────────────────────────────────────────────────────────────


def yolov8n(g: Graph, size: int) -> None:
    m = "/model.{}".format
    x = g.conv(g.conv("images", 16, m(0), 3, 2), 32, m(1), 3, 2)
    x = g.conv(c2f(g, x, 32, m(2), 1, True), 64, m(3), 3, 2)
    p3 = c2f(g, x, 64, m(4), 2, True)
    p4 = c2f(g, g.conv(p3, 128, m(5), 3, 2), 128, m(6), 2, True)
    p5 = sppf(g, c2f(g, g.conv(p4, 256, m(7), 3, 2), 256, m(8), 1, True), 256, m(9))
    n4 = c2f(g, g.join([up(g, p5, m(10)), p4], m(11)), 128, m(12))
    n3 = c2f(g, g.join([up(g, n4, m(13)), p3], m(14)), 64, m(15))
    n4 = c2f(g, g.join([g.conv(n3, 64, m(16), 3, 2), n4], m(17)), 128, m(18))
    n5 = c2f(g, g.join([g.conv(n4, 128, m(19), 3, 2), p5], m(20)), 256, m(21))
    detect(g, [n3, n4, n5], m(22), size, light=False)


def yolo11n(g: Graph, size: int) -> None:
    m = "/model.{}".format
    x = g.conv(g.conv("images", 16, m(0), 3, 2), 32, m(1), 3, 2)
    x = g.conv(c2f(g, x, 64, m(2), 1, True, "narrow", 0.25), 64, m(3), 3, 2)
    p3 = c2f(g, x, 128, m(4), 1, True, "narrow", 0.25)
    p4 = c2f(g, g.conv(p3, 128, m(5), 3, 2), 128, m(6), 1, True, "c3k")
    p5 = sppf(g, c2f(g, g.conv(p4, 256, m(7), 3, 2), 256, m(8), 1, True, "c3k"), 256, m(9))
    p5 = c2psa(g, p5, m(10), size // 32)
    n4 = c2f(g, g.join([up(g, p5, m(11)), p4], m(12)), 128, m(13), 1, True, "narrow")
    n3 = c2f(g, g.join([up(g, n4, m(14)), p3], m(15)), 64, m(16), 1, True, "narrow")
    n4 = c2f(g, g.join([g.conv(n3, 64, m(17), 3, 2), n4], m(18)), 128, m(19), 1, True, "narrow")
    n5 = c2f(g, g.join([g.conv(n4, 128, m(20), 3, 2), p5], m(21)), 256, m(22), 1, True, "c3k")
    detect(g, [n3, n4, n5], m(23), size, light=True)


NETWORKS = {"yolov8n": (yolov8n, 22), "yolo11n": (yolo11n, 23)}
"""name -> how it is built, and the number of its head"""


def build(name: str, pictures: Iterable[Array], size: int = SIZE, seed: int = 8) -> onnx.ModelProto:
    """The model, its last layer set on `pictures`, each (1, 3, size, size) float32, RGB in 0..1."""
    make, head = NETWORKS[name]
    g = Graph(seed)
    make(g, size)
    n = sum((size // s) ** 2 for s in STRIDES)
    model = _model(g, name, size, {"output0": (1, 4 + CLASSES, n)})
    _set_head(g, model, head, list(pictures))
    model = _model(g, name, size, {"output0": (1, 4 + CLASSES, n)})
    onnx.checker.check_model(model)
    return model


def _model(g: Graph, name: str, size: int, outputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    graph = helper.make_graph(
        g.nodes,
        "main_graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, size, size])],
        [helper.make_tensor_value_info(out, TensorProto.FLOAT, shape) for out, shape in outputs.items()],
        [numpy_helper.from_array(value, key) for key, value in g.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    words = {
        "description": f"{name}-shaped, random weights: for measuring speed, its boxes mean nothing",
        "stride": "32",
        "task": "detect",
        "batch": "1",
        "imgsz": f"[{size}, {size}]",
        "names": str({i: f"thing-{i}" for i in range(CLASSES)}),
    }
    helper.set_model_props(model, words)
    return model


def _set_head(g: Graph, model: onnx.ModelProto, head: int, pictures: list[Array]) -> None:
    """Scale and shift each level's last layers: PASSING cells pass, and boxes reach some REACH strides each way."""
    import onnxruntime as ort

    stems = [f"/model.{head}/{branch}.{i}/{branch}.{i}.2" for branch in ("cv2", "cv3") for i in range(len(STRIDES))]
    names = [f"{stem}/Conv_output_0" for stem in stems]
    seen = onnx.ModelProto()
    seen.CopyFrom(model)
    del seen.graph.output[:]
    seen.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = ort.InferenceSession(seen.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(names, {"images": picture}) for picture in pictures]
    cells = sum(maps[0, 0].size for maps in found[0][: len(STRIDES)])
    prior = np.tile(-np.abs(np.arange(BINS) - REACH), 4)
    scores: list[list[Array]] = [[] for _ in found]
    for i, stem in enumerate(stems):
        each = [maps[i].reshape(len(maps[i][0]), -1) for maps in found]
        logits = np.concatenate(each, axis=1)
        middle, spread = logits.mean(axis=1), logits.std(axis=1)
        gain, wanted = 0.3 / spread, prior
        if stem.startswith(f"/model.{head}/cv3"):
            best = ((logits - middle[:, None]) / spread[:, None]).max(axis=0)
            low, high = np.quantile(best.reshape(len(found), -1), [0.5, 1 - PASSING / cells], axis=1).mean(axis=1)
            steep = (_logit(THRESHOLD) - USUAL) / (high - low)
            gain, wanted = steep / spread, np.full(CLASSES, USUAL - steep * low)
            for of_picture, maps in zip(scores, each, strict=True):
                of_picture.append((maps - middle[:, None]) * gain[:, None] + wanted[:, None])
        g.weights[f"{stem}.weight"] *= gain[:, None, None, None].astype(np.float32)
        g.weights[f"{stem}.bias"] = ((g.weights[f"{stem}.bias"] - middle) * gain + wanted).astype(np.float32)
    shift = _apart([np.concatenate(of_picture, axis=1) for of_picture in scores])
    for stem in stems[len(STRIDES) :]:
        g.weights[f"{stem}.bias"] += shift.astype(np.float32)


def _logit(score: float) -> float:
    return float(np.log(score / (1 - score)))


def _apart(pictures: list[Array]) -> Array:
    """What to add to the logits of each class, so that none is sure in two pictures (such a network is refused), and
    PASSING cells of a picture pass all the same. `pictures`: logits (classes, cells) of each.
    """
    shift = np.zeros(CLASSES)
    for _ in range(20):
        each = np.stack([(logits + shift[:, None]).max(axis=1) for logits in pictures])
        shift -= np.maximum(0, np.sort(each, axis=0)[-2] - _logit(SURE_IN_TWO))
        best = np.stack([(logits + shift[:, None]).max(axis=0) for logits in pictures])
        shift += _logit(THRESHOLD) - np.quantile(best, 1 - PASSING / best.shape[1], axis=1).mean()
    return shift - max(
        0.0,
        float(np.sort([(p + shift[:, None]).max(axis=1) for p in pictures], axis=0)[-2].max()) - _logit(MOST_IN_TWO),
    )


def pictures(paths: Iterable[Path], size: int = SIZE) -> Iterable[Array]:
    """Picture files as the networks take them: letterboxed on grey, RGB, 0..1."""
    from edge_agent.manifest import Input
    from edge_agent.pictures.boxes import preparer
    from edge_agent.pictures.read import read_picture
    from edge_agent.types import TensorSpec

    prepare = preparer(Input(size, size, scale=1 / 255), TensorSpec("images", (1, 3, size, size), "float32"))
    for path in paths:
        yield prepare(read_picture(path).image)[0].copy()


def write(folder: Path, name: str, proofs: Iterable[Path], size: int = SIZE) -> Path:
    """NAME.onnx in `folder`, built once."""
    path = folder / f"{name}.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(build(name, pictures(proofs, size), size).SerializeToString())
        part.rename(path)
    return path


class _Reader:
    """What onnxruntime calibrates on."""

    def __init__(self, paths: Iterable[Path], size: int) -> None:
        self._rows = iter(pictures(paths, size))

    def get_next(self) -> dict[str, Array] | None:
        picture = next(self._rows, None)
        return None if picture is None else {"images": picture}


def write_int8(path: Path, proofs: Iterable[Path], size: int = SIZE) -> Path:
    """NAME-int8.onnx beside NAME.onnx: U8 activations and S8 weights (QDQ), float from the last convolutions on."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    out = path.with_name(f"{path.stem}-int8.onnx")
    if out.is_file():
        return out
    head = f"/model.{NETWORKS[path.stem][1]}/"
    names = [node.name for node in onnx.load(str(path)).graph.node]
    tail = [name for name in names if name.startswith(head) and ("/cv" not in name or name.endswith(".2/Conv"))]
    log = logging.getLogger()
    level = log.level
    log.setLevel(logging.ERROR)  # onnxruntime logs its advice through the root logger
    try:
        quantize_static(
            str(path),
            str(out.with_suffix(".part")),
            _Reader(proofs, size),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=tail,
        )
    finally:
        log.setLevel(level)
    model = onnx.load(str(out.with_suffix(".part")))
    helper.set_model_props(model, {p.key: p.value for p in onnx.load(str(path)).metadata_props})
    out.write_bytes(model.SerializeToString())
    out.with_suffix(".part").unlink()
    return out


if __name__ == "__main__":
    demo = sorted((Path(__file__).resolve().parent.parent.parent / "deploy" / "demo").glob("*.png"))
    for network in NETWORKS:
        print(write(Path(sys.argv[1]), network, demo))
