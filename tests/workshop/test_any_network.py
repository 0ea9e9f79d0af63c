"""Small networks of all kinds of operators and opsets: whatever verbs rewrite them, in whatever order, all is right
or refused in one line.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_agent.errors import EdgeAgentError
from edge_agent.workshop.graph import net, sessions
from edge_agent.workshop.graph import verb as graph
from edge_agent.workshop.prune import channels, trace
from edge_agent.workshop.quantize import build
from edge_agent.workshop.quantize.contents import of_onnx
from edge_agent.workshop.quantize.prepare import prepare
from edge_agent.workshop.quantize.ranges import ranges, watch
from tests.workshop.prunable import by_size

Array = npt.NDArray[Any]
SIDE, WIDTH = 8, 16
PICTURES = [np.random.default_rng(seed).normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for seed in range(4)]
Draw = Callable[[st.SearchStrategy[Any]], Any]
SINCE = {"resized": 11, "einsum": 12, "layered": 17, "sliced": 10, "ceiling": 10}
"""the first opset that has the operators of a block"""


class Network:
    """A network that grows operator by operator; `draw` decides what is drawn by chance."""

    def __init__(self, draw: Draw, least: int = 9) -> None:
        self.draw, self.opset = draw, draw(st.integers(least, 23))
        self.random = np.random.default_rng(draw(st.integers(0, 99)))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Array] = {}
        self.kept: dict[tuple[int, ...], str] = {}
        """a constant of each shape, that others may share"""

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        place = len(self.nodes)
        odd = self.draw(st.sampled_from(["", "_scale", "_quantized", ".1", "_QuantizeLinear"]))
        names = [f"t{place}{'' if at == 0 else f'.{at}'}{odd}" for at in range(outputs)]
        named = {"name": f"{kind}{place}"} if self.draw(st.booleans()) else {}
        self.nodes.append(helper.make_node(kind, [*inputs], names, **named, **attributes))
        return names[0]

    def hold(self, value: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def drawn(self, *shape: int) -> Array:
        return self.random.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape).astype(np.float32)

    def weight(self, *shape: int, dead: int | None = None) -> str:
        """A new one or one that is used already; of a new one every second filter along `dead` is 0."""
        if shape in self.kept and self.draw(st.booleans()):
            return self.kept[shape]
        value = self.drawn(*shape)
        if dead is not None:
            np.moveaxis(value, dead, 0)[::2] = 0
        self.kept[shape] = self.hold(value)
        return self.kept[shape]

    def conv(self, x: str, wide: int, groups: int = 1) -> str:
        bias = [self.hold(np.zeros(WIDTH, np.float32))] if self.draw(st.booleans()) else []
        weight = self.weight(WIDTH, wide // groups, 3, 3, dead=0)
        return self.op("Conv", x, weight, *bias, pads=[1] * 4, group=groups)

    def step(self, x: str, kind: str = "") -> str:
        """One more block of WIDTH channels behind another; a drawn one where none is named."""
        blocks = {**self.common(x), **self.odd(x)}
        known = sorted(name for name in blocks if self.opset >= SINCE.get(name, 9))
        return blocks[kind or self.draw(st.sampled_from(known))]()

    def odd(self, x: str) -> dict[str, Callable[[], str]]:
        """Blocks after faults that users of quantizers, simplifiers and pruners reported."""
        line = [1, WIDTH, SIDE * SIDE]
        return {
            "alone": lambda: self.op("Concat", x, axis=1),
            "resized": lambda: self.op(
                "Resize",
                self.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]),
                self.hold(np.zeros(0, np.float32)),
                self.hold(np.array([1, 1, 2, 2], np.float32)),
                mode=self.draw(st.sampled_from(["linear", "nearest"])),
            ),
            "mirrored": lambda: self.op(
                "Conv", self.pad(x), self.weight(WIDTH, WIDTH, 3, 3, dead=0), kernel_shape=[3, 3]
            ),
            "ceiling": lambda: self.op(
                "AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=0, ceil_mode=1
            ),
            "dilated": lambda: self.op(
                "Conv", x, self.weight(WIDTH, WIDTH, 3, 3, dead=0), pads=[2] * 4, dilations=[2, 2]
            ),
            "half": lambda: self.op(
                "Conv", x, self.op("Cast", self.hold(self.drawn(WIDTH, WIDTH, 1, 1).astype(np.float16)), to=1)
            ),
            "gathered": lambda: self.op("Gather", x, self.hold(np.arange(WIDTH)[::-1].copy()), axis=1),
            "sliced": lambda: self.op("Slice", x, *(self.hold(np.array([v], np.int64)) for v in (-1, -9999, 1, -1))),
            "instance": lambda: self.op("InstanceNormalization", x, self.weight(WIDTH), self.weight(WIDTH)),
            "layered": lambda: self.last(x, lambda y: self.op("LayerNormalization", y, self.weight(WIDTH), axis=-1)),
            "product": lambda: self.last(x, lambda y: self.op("MatMul", y, self.weight(WIDTH, WIDTH, dead=1))),
            "einsum": lambda: self.op("Einsum", x, self.weight(WIDTH, WIDTH, dead=1), equation="bchw,cd->bdhw"),
            "leaky": lambda: self.op("PRelu", x, self.weight(WIDTH, 1, 1)),
            "narrow": lambda: self.op("Mul", x, self.op("Sigmoid", self.op("Conv", x, self.weight(1, WIDTH, 1, 1)))),
            "in a line": lambda: self.op(
                "Reshape",
                self.op(
                    "Conv",
                    self.op("Reshape", x, self.hold(np.array(line))),
                    self.weight(WIDTH, WIDTH, 5, dead=0),
                    pads=[2, 2],
                ),
                self.hold(np.array([1, WIDTH, SIDE, SIDE])),
            ),
            "read twice": lambda: self.twice(x, self.weight(WIDTH, WIDTH, 1, 1, dead=0)),
            "branches": lambda: self.branches(x, self.weight(WIDTH, WIDTH, 1, 1, dead=0)),
        }

    def pad(self, x: str) -> str:
        around = [0, 0, 1, 1, 0, 0, 1, 1]
        if self.opset < 11:
            return self.op("Pad", x, pads=around, mode="reflect")
        return self.op("Pad", x, self.hold(np.array(around)), mode="reflect")

    def last(self, x: str, made: Callable[[str], str]) -> str:
        """With channels as the last axis."""
        return self.op("Transpose", made(self.op("Transpose", x, perm=[0, 2, 3, 1])), perm=[0, 3, 1, 2])

    def twice(self, x: str, weight: str) -> str:
        """A weight that something else reads, too."""
        return self.op(
            "Mul", self.op("Conv", x, weight), self.op("GlobalMaxPool", self.op("Transpose", weight, perm=[2, 0, 1, 3]))
        )

    def branches(self, x: str, weight: str) -> str:
        """Two branches that read a weight from outside."""
        shape = [1, WIDTH, SIDE, SIDE]
        found = self.op("Greater", self.op("ReduceMean", x, keepdims=0), self.hold(np.float32(0.1)))
        graphs = {}
        for name, op in (("then_branch", "Relu"), ("else_branch", "Abs")):
            place = f"{name}{len(self.nodes)}"
            nodes = [
                helper.make_node("Conv", [x, weight], [f"{place}.conv"], name=f"{place}.node"),
                helper.make_node(op, [f"{place}.conv"], [f"{place}.out"], name=f"{place}.end"),
            ]
            info = helper.make_tensor_value_info(f"{place}.out", TensorProto.FLOAT, shape)
            graphs[name] = helper.make_graph(nodes, name, [], [info])
        return self.op("If", found, **graphs)

    def common(self, x: str) -> dict[str, Callable[[], str]]:
        return {
            "conv": lambda: self.op("Relu", self.conv(x, WIDTH)),
            "depthwise": lambda: self.conv(x, WIDTH, WIDTH),
            "grouped": lambda: self.conv(x, WIDTH, 4),
            "turned": lambda: self.op("ConvTranspose", x, self.weight(WIDTH, WIDTH // 4, 1, 1), group=4),
            "silu": lambda: self.op("Mul", x, self.op("Sigmoid", x)),
            "residual": lambda: self.op("Add", x, self.conv(x, WIDTH)),
            "twice": lambda: self.conv(self.op("Concat", x, x, axis=1), 2 * WIDTH),
            "scaled": lambda: self.op("Mul", x, self.weight(1, WIDTH, 1, 1)),
            "pooled": lambda: self.op("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4),
            "normal": lambda: self.op("BatchNormalization", x, *(self.weight(WIDTH) for _ in range(3)), self.ones()),
            "gate": lambda: self.op("Mul", x, self.op("Sigmoid", self.conv(self.op("GlobalAveragePool", x), WIDTH))),
            "halves": self.halves(x),
            "shuffle": lambda: self.shuffle(x),
        }

    def ones(self) -> str:
        return self.hold(np.ones(WIDTH, np.float32))

    def halves(self, x: str) -> Callable[[], str]:
        def made() -> str:
            sizes = [self.hold(np.array([WIDTH // 2] * 2))] if self.opset >= 13 else []
            more = {} if sizes else {"split": [WIDTH // 2] * 2}
            first = self.op("Split", x, *sizes, outputs=2, axis=1, **more)
            second = self.nodes[-1].output[1]
            return self.op("Concat", second, self.op("Relu", first), axis=1)

        return made

    def shuffle(self, x: str) -> str:
        parts = self.op("Reshape", x, self.hold(np.array([1, 2, WIDTH // 2, SIDE, SIDE])))
        turned = self.op("Transpose", parts, perm=[0, 2, 1, 3, 4])
        return self.op("Reshape", turned, self.hold(np.array([1, WIDTH, SIDE, SIDE])))

    def ended(self, x: str) -> onnx.ModelProto:
        flat = self.op("Flatten", self.op("GlobalAveragePool", x))
        turned, row = self.draw(st.booleans()), self.draw(st.booleans())
        weight = self.hold(self.random.normal(0, 1, (4, WIDTH) if turned else (WIDTH, 4)).astype(np.float32))
        bias = self.hold(np.ones((1, 4) if row else 4, np.float32))
        alpha = self.draw(st.sampled_from([1.0, 0.5]))
        self.nodes.append(helper.make_node("Gemm", [flat, weight, bias], ["out"], transB=int(turned), alpha=alpha))
        spec = [("x", [1, 3, SIDE, SIDE]), ("out", [1, 4])]
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in spec]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "any", infos[:1], infos[1:], constants)
        if self.draw(st.booleans()):
            graph.input.extend(helper.make_tensor_value_info(one.name, one.data_type, [*one.dims]) for one in constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)


@st.composite
def networks(draw: Draw, kind: str = "") -> onnx.ModelProto:
    """`kind`: of one block that is in it; the others are drawn."""
    made = Network(draw, SINCE.get(kind, 9))
    x = made.op("Relu", made.conv("x", 3))
    x = made.step(x, kind) if kind else x
    for _ in range(draw(st.integers(not kind, 4))):
        x = made.step(x)
    return made.ended(x)


KINDS = sorted({**Network(lambda _: 9).common(""), **Network(lambda _: 9).odd("")})


def answers(data: bytes) -> Array:
    session = sessions.session(data)
    return np.concatenate([session.run(None, {"x": picture})[0] for picture in PICTURES])


def pruned(path: Path) -> bytes:
    """Without channels that change nothing: the answer stays."""
    model = channels.read(path)
    traced = trace.trace(model)
    ranked = by_size(traced, channels.families(traced))
    free = [root for one in ranked for at, root in enumerate(one.order) if one.cost[at] == 0 and at]
    return net.data(channels.removed(model, traced, {int(root) for root in free})[0])


def quantized(path: Path, form: str = "weights") -> bytes:
    model = prepare(path)
    plan = build.QuantizePlan(form, ops="all")  # type: ignore[arg-type]
    seen = watch(model, lambda: ({"x": picture} for picture in PICTURES), lambda step: None)
    data = build.build(model, plan, ranges(seen, "full"))
    assert form == "float16" or of_onnx(data).quantized, "nothing is called quantized that is not"
    return data


def simplified(path: Path) -> bytes:
    return bytes(graph.simplified(net.load(path)).SerializeToString())


VERBS: dict[str, Callable[[Path], bytes]] = {"prune": pruned, "quantize": quantized, "graph": simplified}
NEAR = {"prune": 1e-3, "quantize": 0.3, "graph": 1e-3}
"""of the greatest answer, by which a verb may change one"""


def holds(model: onnx.ModelProto, folder: Path) -> None:
    """Every order of the verbs, and every form of int8, on one network."""
    source = model.SerializeToString()
    want = answers(source)
    most = max(1e-2, float(np.abs(want).max()))
    for order in itertools.permutations(VERBS):
        data, far = source, 1e-3
        for verb in order:
            (folder / "m.onnx").write_bytes(data)
            try:
                data = VERBS[verb](folder / "m.onnx")
            except EdgeAgentError as error:
                assert "\n" not in str(error)
                continue
            far += NEAR[verb]
            made = onnx.load_from_string(data)
            given = [
                *(one.name for one in made.graph.initializer),
                *(n for node in made.graph.node for n in node.output),
            ]
            assert len(given) == len(set(given)), f"{order}: names that are there twice"
            assert np.abs(answers(data) - want).max() < far * most, f"{order}, {verb}"
    (folder / "m.onnx").write_bytes(source)
    for form in ("static", "dynamic", "float16"):
        try:
            assert np.isfinite(answers(quantized(folder / "m.onnx", form))).all()
        except EdgeAgentError as error:
            assert "\n" not in str(error)


def tried(count: int, folder: Path, kind: str = "") -> None:
    @settings(max_examples=count)
    @given(networks(kind))
    def check(model: onnx.ModelProto) -> None:
        holds(model, folder)

    check()


def test_every_order_of_the_verbs_is_right_on_small_networks(tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="pip install edge-agent-runtime[workshop]")
    tried(4, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_order_of_the_verbs_is_right_behind_each_block(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="pip install edge-agent-runtime[workshop]")
    tried(4, tmp_path, kind)


@pytest.mark.slow
def test_every_order_of_the_verbs_is_right_on_many_networks(tmp_path: Path) -> None:
    pytest.importorskip("onnxslim", reason="pip install edge-agent-runtime[workshop]")
    tried(150, tmp_path)
