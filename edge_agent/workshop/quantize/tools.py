"""Plans of quantization become files, whatever the format."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import EdgeAgentError
from edge_agent.manifest import Served
from edge_agent.workshop.data.calibration import Samples, Say, feeds
from edge_agent.workshop.graph import tflite as tflite_graph
from edge_agent.workshop.graph.layers import groups
from edge_agent.workshop.quantize import build, prepare, tflite
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.contents import of_onnx, of_tflite
from edge_agent.workshop.quantize.ranges import METHODS, Interval, TensorRange, ranges, watch
from edge_agent.workshop.quantize.search import LayerGroup, Tool, distance


def tool_for(
    format: str,
    path: Path,
    parent: Served,
    samples: Samples,
    work: Path,
    serve: Callable[[Path], Served],
    say: Say,
) -> Tool:
    """For a file of that format. Raises RefusedError for one that cannot be quantized.

    `samples` are looked at when a plan first needs the ranges of activations. What a plan gives is opened by `serve`,
    through a file in `work` that is gone again.
    """
    model: Any
    made: Callable[[Any, QuantizePlan, Mapping[str, Interval]], bytes]
    if format == "onnx":
        model = prepare.prepare(path)
        operators, made, contents = prepare.operators(model), build.build, of_onnx
    else:
        model = tflite_graph.read(path)
        operators, made, contents = model.layers, tflite.quantized, of_tflite

    @functools.cache
    def seen() -> dict[str, TensorRange]:
        total = len(samples.items) * 2
        return watch(model, lambda: feeds(parent, samples), lambda step: say("calibrating", step, total))

    def make(plan: QuantizePlan) -> bytes:
        return made(model, plan, ranges(seen(), plan.method) if plan.form == "static" else {})

    def open(data: bytes) -> Served:
        place = work / f"candidate.{format}"
        try:
            place.write_bytes(data)
            return serve(place)
        finally:
            place.unlink(missing_ok=True)

    ops = {one.name: one.op for one in operators}
    parts = [LayerGroup(name, ops[name], tuple(inside)) for name, inside in groups(operators).items()]
    return Tool(parts, make, open, contents)


def cause(tool: Tool, plan: QuantizePlan, parent: Served, samples: Samples, auto: bool) -> str:
    """Why a plan loses what it loses, for people: how much of its error is left by finer weights or activations.
    `auto`: it was searched for.
    """
    far = distance(parent, samples)

    def error(**changes: Any) -> float:
        try:
            return far(tool.open(tool.make(msgspec.structs.replace(plan, **changes))))
        except EdgeAgentError:
            return float("inf")

    whole = error()
    for word, changes, fits in CAUSES:
        if fits(plan) and error(**changes) < whole / 2:
            return word.format(method=plan.method, auto="" if auto else f"{AUTO}, or ")
    return AUTO if plan.form == "static" and not plan.keep and not auto else LAST


AUTO = "--auto finds what has to stay in float"
LAST = "a form without int8 activations loses less: --form weights, or float16"
CAUSES: tuple[tuple[str, dict[str, Any], Callable[[QuantizePlan], bool]], ...] = (
    ("its weights need 8 bits: leave --bits out", {"bits": "8"}, lambda plan: plan.bits == "7w"),
    (
        "the ranges of --method {method} clip what matters here: try --method full",
        {"method": "full"},
        lambda plan: plan.form == "static" and plan.method != "full",
    ),
    (
        "eight bits are too coarse for its activations: {auto}--form weights",
        {"form": "weights", "bits": "8"},
        lambda plan: plan.form == "static",
    ),
)
"""why, what would be better, and for which plans that is asked"""


def default(parts: list[LayerGroup], settings: Mapping[str, Any]) -> QuantizePlan:
    """The plan to begin with; `settings`: fields of it, None for what was left open.

    Convolutions: static, all operators between them too, as an int8 network is fast only where it stays int8.
    MatMul alone: by each run's own extremes.
    """
    convolutions = any("CONV" in part.op.upper() for part in parts)
    given = {key: value for key, value in settings.items() if value is not None}
    usual = {"form": "static" if convolutions else "dynamic", "ops": "all" if convolutions else "layers"}
    return QuantizePlan(**{**usual, **given})


def bases(parts: list[LayerGroup], settings: Mapping[str, Any]) -> list[QuantizePlan]:
    """What a search begins with: `default`, and the same by each other method where that was left open."""
    plan = default(parts, settings)
    methods = METHODS if plan.form == "static" and settings.get("method") is None else (plan.method,)
    return [msgspec.structs.replace(plan, method=one) for one in methods]
