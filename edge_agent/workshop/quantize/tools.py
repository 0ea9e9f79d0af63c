"""Plans of quantization become files: one tool a format."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError, ModelError, RefusedError
from edge_agent.manifest import Served
from edge_agent.workshop.data.calibration import Samples, Say, feeds
from edge_agent.workshop.graph.layers import Operator, groups
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.search import LayerGroup, Tool, distance

Open = Callable[[bytes], Served]


def onnx_tool(path: Path, parent: Served, samples: Samples, histograms: bool, open: Open, say: Say) -> Tool:
    """For an ONNX file. Raises RefusedError for one that cannot be quantized.

    `samples` are looked at when a plan first needs the ranges of activations; `histograms`: some method needs them.
    """
    from edge_agent.workshop.quantize import balance, build, prepare
    from edge_agent.workshop.quantize import ranges as quantize_ranges
    from edge_agent.workshop.quantize.contents import of_onnx
    from edge_agent.workshop.quantize.ranges import Interval, TensorRange, watch

    model = prepare.prepare(path)

    def given() -> Any:
        return feeds(parent, samples)

    @functools.cache
    def seen(balanced: bool) -> dict[str, TensorRange]:
        total = len(samples.items) * (1 + histograms)
        return watch(network(balanced), given, histograms, lambda step: say("calibrating", step, total))

    @functools.cache
    def network(balanced: bool) -> Any:
        return equalized()[0] if balanced else model

    @functools.cache
    def equalized() -> tuple[Any, int]:
        return balance.equalized(model, seen(False))

    @functools.cache
    def ranges(balanced: bool, method: str, bits: int) -> dict[str, Interval]:
        return quantize_ranges.ranges(seen(balanced), method, bits)

    def make(plan: QuantizePlan) -> bytes:
        source, bits = network(plan.balanced), 16 if plan.bits == "16" else 8
        found = ranges(plan.balanced, plan.method, bits) if plan.form == "static" else {}
        if plan.corrected:
            source = balance.corrected(source, build.chosen(source, plan, found), found, plan.per, plan.bits, given)
        return build.build(source, plan, found)

    parts = _parts(prepare.operators(model))
    return Tool(parts, make, open, of_onnx, lambda: equalized()[1] > 0, any(part.op == "Conv" for part in parts))


def tflite_tool(path: Path, parent: Served, samples: Samples, histograms: bool, open: Open, say: Say) -> Tool:
    """For a TFLite file; as `onnx_tool`."""
    from edge_agent.workshop.graph import tflite as tflite_graph
    from edge_agent.workshop.quantize import ranges as quantize_ranges
    from edge_agent.workshop.quantize import tflite as quantize_tflite
    from edge_agent.workshop.quantize.contents import of_tflite
    from edge_agent.workshop.quantize.ranges import Interval

    model = tflite_graph.read(path)
    names = dict(zip([spec.name for spec in parent.net.inputs], model.inputs, strict=True))

    def given() -> Any:
        return ({names[name]: value for name, value in feed.items()} for feed in feeds(parent, samples))

    @functools.cache
    def ranges(method: str, bits: int) -> dict[str, Interval]:
        total = len(samples.items) * (1 + histograms)
        runs = quantize_ranges.gathered(
            lambda: tflite_graph.watch(model, given()), histograms, lambda step: say("calibrating", step, total)
        )
        return quantize_ranges.ranges(runs, method, bits)

    def make(plan: QuantizePlan) -> bytes:
        found = ranges(plan.method, 16 if plan.bits == "16" else 8) if plan.form == "static" else {}
        return quantize_tflite.quantized(model, plan, found)

    return Tool(_parts(model.layers), make, open, of_tflite, lambda: False, False)


def _parts(operators: Sequence[Operator]) -> list[LayerGroup]:
    ops = {one.name: one.op for one in operators}
    return [LayerGroup(name, ops[name], tuple(inside)) for name, inside in groups(operators).items()]


TOOLS: dict[str, Callable[[Path, Served, Samples, bool, Open, Say], Tool]] = {"onnx": onnx_tool, "tflite": tflite_tool}


def grouped(parts: Sequence[LayerGroup], names: Sequence[str]) -> list[str]:
    """The nodes that stay float where these are named: with a layer its group, as its Sigmoid in int8 may cost most."""
    inside = {part.name: part.keep for part in parts}
    return list(dict.fromkeys(node for name in names for node in inside.get(name, (name,))))


def opener(work: Path, serve: Callable[[Path], Served], format: str) -> Open:
    """A function that opens a file's bytes, through a file in `work` that is gone again."""
    numbers = itertools.count()

    def open(data: bytes) -> Served:
        path = work / f"candidate-{next(numbers)}.{format}"
        try:
            path.write_bytes(data)
            return serve(path)
        finally:
            path.unlink(missing_ok=True)

    return open


def refuse_unsound(candidate: Served, parent: Served, samples: Samples) -> None:
    """RefusedError where an output of the candidate is not finite, or always the same while the parent's is not."""
    given = list(feeds(parent, samples.pick(range(min(4, len(samples.items))))))
    try:
        pairs = [(candidate.net.run(feed), parent.net.run(feed)) for feed in given]
    except ModelError as error:
        raise RefusedError(f"the quantized network cannot be run: {error}") from None
    for spec in parent.net.outputs:
        mine, theirs = ([pair[side][spec.name] for pair in pairs] for side in (0, 1))
        if not all(np.isfinite(value).all() for value in mine):
            raise RefusedError(f'output "{spec.name}" of the quantized network is not finite; keep layers with --keep')
        if _constant(mine) and not _constant(theirs):
            raise RefusedError(
                f'output "{spec.name}" of the quantized network is the same for every sample: its range was lost; '
                "use another --method, or --auto"
            )


def cause(tool: Tool, plan: QuantizePlan, parent: Served, samples: Samples) -> str:
    """Why a plan loses what it loses, for people: how much of its error is left by finer weights or activations."""
    far = distance(parent, samples)

    def error(**changes: Any) -> float:
        try:
            return far(tool.open(tool.make(msgspec.structs.replace(plan, **changes))))
        except EdgeAgentError:
            return float("inf")

    whole = error()
    for word, changes, fits in CAUSES:
        if fits(plan) and error(**changes) < whole / 2:
            return word.format(method=plan.method)
    return "--auto finds what has to stay in float" if plan.form == "static" and not plan.keep else LAST


LAST = "a form without int8 activations loses less: --form weights, or float16"
CAUSES: tuple[tuple[str, dict[str, Any], Callable[[QuantizePlan], bool]], ...] = (
    (
        "one scale does not serve all channels of a weight: leave --per tensor out",
        {"per": "channel"},
        lambda plan: plan.per == "tensor",
    ),
    ("its weights need 8 bits: leave --bits out", {"bits": "8"}, lambda plan: plan.bits in ("4w", "7w")),
    (
        "the ranges of --method {method} clip what matters here: try --method full",
        {"method": "full"},
        lambda plan: plan.form == "static" and plan.method != "full",
    ),
    (
        "eight bits are too coarse for its activations: --auto finds what has to stay in float, or --bits 16",
        {"bits": "16"},
        lambda plan: plan.form == "static" and plan.bits in ("8", "7w"),
    ),
)
"""why, what would be better, and for which plans that is asked"""


def _constant(values: list[npt.NDArray[Any]]) -> bool:
    first, *others = values
    return bool(others) and all(np.array_equal(first, other) for other in others)


def default(parts: list[LayerGroup], settings: Mapping[str, Any]) -> list[list[QuantizePlan]]:
    """Plans to begin with where the form was left open, the groups that are searched by themselves.

    Convolutions: static, all operators between them too, as an int8 network is fast only where it stays int8.
    MatMul alone: by each run's own extremes, or static.
    """
    convolutions = any("CONV" in part.op.upper() for part in parts)
    given = {key: value for key, value in settings.items() if value is not None}
    static = _static(given.pop("method", None), "all" if convolutions else "layers", given)
    if given.get("form") == "static" or given.get("bits") == "16" or (convolutions and "form" not in given):
        return [static]
    if "form" in given:
        return [[QuantizePlan(**given)]]
    return [[QuantizePlan(**{"form": "dynamic", **given})], static]


def _static(method: str | None, ops: str, given: Mapping[str, Any]) -> list[QuantizePlan]:
    """Plans with ranges from data: by that method, or by each of those that do well."""
    methods = ("percentile", "mse", "average") if method is None else (method,)
    return [QuantizePlan(**{"form": "static", "method": one, "ops": ops, **given}) for one in methods]
