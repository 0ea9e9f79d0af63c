"""Small graphs with what stands in the way of pruning: sums, joins, splits, depthwise layers, heads. For tests only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from edge_agent.workshop.graph import net, sessions
from edge_agent.workshop.prune.channels import ChannelGroup, Traced, Use, layer_name
from edge_agent.workshop.prune.choose import Ranked
from tests.nets import write_onnx

Array = npt.NDArray[Any]


def maps(path: Path, seed: int = 0) -> Path:
    """images (1, 3, 16, 16) -> out (1, 8, 64): SiLU, depthwise, a shortcut, Split, Concat, MaxPool, Resize, a head."""
    random = np.random.default_rng(seed)
    constants: dict[str, Array] = {}
    nodes = []

    def conv(x: str, name: str, cin: int, cout: int, kernel: int = 1, groups: int = 1, **more: Any) -> str:
        shape = (cout, cin // groups, kernel, kernel)
        constants[f"{name}.weight"] = random.normal(0, 0.4, shape).astype(np.float32)
        constants[f"{name}.bias"] = random.normal(0, 0.2, cout).astype(np.float32)
        pads = [kernel // 2] * 4
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"{name}.raw"], group=groups, pads=pads, **more))
        nodes.append(helper.make_node("Sigmoid", [f"{name}.raw"], [f"{name}.gate"]))
        nodes.append(helper.make_node("Mul", [f"{name}.raw", f"{name}.gate"], [name]))
        return name

    stem = conv("images", "stem", 3, 16, 3, strides=[2, 2])
    deep = conv(stem, "depth", 16, 16, 3, groups=16)
    point = conv(deep, "point", 16, 16)
    nodes.append(helper.make_node("Add", [stem, point], ["sum"]))
    wide = conv("sum", "wide", 16, 32)
    nodes.append(helper.make_node("Split", [wide, "halves"], ["one", "two"], axis=1))
    constants["halves"] = np.array([16, 16], np.int64)
    other = conv("two", "other", 16, 16, 3)
    nodes.append(helper.make_node("MaxPool", [other], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]))
    nodes.append(helper.make_node("Resize", ["pooled", "", "double"], ["grown"], mode="nearest"))
    constants["double"] = np.array([1, 1, 2, 2], np.float32)
    nodes.append(helper.make_node("Concat", ["one", "grown", "sum"], ["joined"], axis=1))
    constants["head.weight"] = random.normal(0, 0.4, (8, 48, 1, 1)).astype(np.float32)
    nodes.append(helper.make_node("Conv", ["joined", "head.weight"], ["head"]))
    constants["flat"] = np.array([1, 8, 64], np.int64)
    nodes.append(helper.make_node("Reshape", ["head", "flat"], ["out"]))
    spec = (TensorProto.FLOAT, [1, 3, 16, 16])
    return write_onnx(path, nodes, {"images": spec}, {"out": (TensorProto.FLOAT, [1, 8, 64])}, constants)


def attention(path: Path, heads: int = 4, width: int = 32) -> Path:
    """x (1, L, width) -> out (1, L, width): one block of attention with `heads` heads, then a wide layer."""
    random = np.random.default_rng(1)
    constants: dict[str, Array] = {
        "split": np.array([0, 0, heads, width // heads], np.int64),
        "join": np.array([0, 0, width], np.int64),
    }
    nodes = []

    def dense(x: str, name: str, cin: int, cout: int) -> str:
        constants[f"{name}.weight"] = random.normal(0, cin**-0.5, (cin, cout)).astype(np.float32)
        constants[f"{name}.bias"] = random.normal(0, 0.1, cout).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [x, f"{name}.weight"], [f"{name}.raw"]))
        nodes.append(helper.make_node("Add", [f"{name}.raw", f"{name}.bias"], [name]))
        return name

    for name, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [dense("x", name, width, width), "split"], [f"{name}.s"]))
        nodes.append(helper.make_node("Transpose", [f"{name}.s"], [f"{name}.t"], perm=order))
    nodes.append(helper.make_node("MatMul", ["query.t", "key.t"], ["scores"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["shares"], axis=-1))
    nodes.append(helper.make_node("MatMul", ["shares", "value.t"], ["mixed"]))
    nodes.append(helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["back", "join"], ["one"]))
    nodes.append(helper.make_node("Add", ["x", dense("one", "out0", width, width)], ["sum"]))
    nodes.append(helper.make_node("Tanh", [dense("sum", "up", width, 64)], ["bent"]))
    nodes.append(helper.make_node("Add", ["sum", dense("bent", "down", 64, width)], ["out"]))
    spec: tuple[int, list[int | str]] = (TensorProto.FLOAT, [1, "L", width])
    return write_onnx(path, nodes, {"x": spec}, {"out": spec}, constants)


def run(model: ir.Model, feed: Mapping[str, Array]) -> list[Array]:
    """All outputs, after the ONNX checker has passed the file."""
    found: list[Array] = sessions.session(net.data(model)).run(None, dict(feed))
    return found


def masked(model: ir.Model, traced: Traced, gone: set[int]) -> ir.Model:
    """The dense network in which every layer that reads a channel of `gone` multiplies it by 0."""
    new = model.clone()
    twins = {node.name: node for node in new.graph}
    for use in traced.uses:
        if use.role == "in":
            constant = twins[use.node.name].inputs[use.place]
            value = np.moveaxis(net.numbers(constant).copy(), use.axis, 0)
            value[np.isin(traced.roots(use.atoms), list(gone))] = 0
            net.put(constant, np.moveaxis(value, 0, use.axis))
    return new


def layer(model: ir.Model, name: str) -> Array:
    """The weight of the layer that is called so."""
    return next(net.numbers(node.inputs[1]) for node in net.layers(model) if layer_name(node) == name)


def changed(path: Path, edit: Any) -> Path:
    """The file with `edit` applied to its model."""
    model = onnx.load(str(path))
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def by_size(traced: Traced, found: list[ChannelGroup]) -> list[Ranked]:
    """Families by the sums of |w| that make each channel, and of what is added to it: 0 for one that says nothing."""
    sums = np.zeros(len(traced.parent))
    for use in (use for use in traced.uses if use.role == "out" or _adds(use)):
        size = np.abs(net.numbers(use.node.inputs[use.place])).astype(np.float64)
        flat = np.moveaxis(size, use.axis, 0).reshape(size.shape[use.axis], -1)
        np.add.at(sums, traced.roots(use.atoms), flat.sum(1))
    ranked = []
    for family in found:
        order = np.argsort(-sums[family.roots], kind="stable")
        left = np.append(np.cumsum(sums[family.roots][order][::-1])[::-1], 0.0)
        ranked.append(Ranked(family, family.roots[order], left / max(left[0], 1e-12)))
    return ranked


def _adds(use: Use) -> bool:
    op = use.node.op_type
    shifts = op == "BatchNormalization" and use.place in (2, 3)
    return shifts or op in ("Add", "Sub", "Sum") or (op in net.WEIGHTED and use.place == 2)
