"""What a bare .onnx or .tflite file is, with a reason for each conclusion.

Shapes tell the family, the file's own words and graph tell how its input is meant. What they leave open is tried on
proof pictures or sentences by `look` (edge_agent.trial), and the candidate that makes sense is kept; where none does
the file is refused with what was seen. Families that this program cannot run are named and not added.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.errors import RefusedError
from edge_agent.manifest import Input, TextInput
from edge_agent.registry import kinds, names, onnx_file, picture, tflite_file
from edge_agent.registry.graph import MAX_WORDS, Graph, clean, one_line, output_scale
from edge_agent.registry.heads import Guess, heads, shape
from edge_agent.registry.names import coco80
from edge_agent.types import Net, TensorSpec

__all__ = ["RUNS", "Look", "Seen", "coco80", "inspect", "read_graph"]

RUNS = (
    "yolox",
    "yolox-decoded",
    "yolov5",
    "yolov6",
    "yolov8",
    "end2end",
    "rtdetr",
    "nanodet",
    "ssd",
    "edge-yolo",
    "bert",
)
"""families that the tasks can decode"""
ONE_SCALE = ("yolox", "yolox-decoded", "yolov5", "yolov6", "yolov8", "end2end", "rtdetr", "nanodet")
"""families with boxes and scores in one tensor"""
BETTER = 1.2
"""how many times better a candidate must do than a likelier one"""
ENOUGH = 0.15
"""worth below which nothing was found that makes sense"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, in the manifest's terms."""

    task: str
    family: str
    reasons: list[str]
    input: Input | None = None
    text: TextInput | None = None
    labels: list[str] = field(default_factory=list)
    class_ids: list[int] | None = None
    licence: str = "unknown"
    refusal: str = ""
    """why it cannot be added; empty when it can"""


Look = Callable[[Net, Seen, Mapping[str, Path]], tuple[float, str]]
"""(net, candidate, parts by role) -> what it is worth on proof pictures or sentences (0: nothing makes sense), and
what was found, in a few words"""


def read_graph(path: Path) -> tuple[Graph, str]:
    """The file's graph and metadata, and why there is none ("" when there is)."""
    try:
        return (onnx_file.read(path) if path.suffix.lower() == ".onnx" else tflite_file.read(path)), ""
    except (OSError, ValueError, struct.error) as error:
        return Graph(), f"graph and metadata cannot be read ({error})"


def inspect(path: Path, net: Net, look: Look | None = None) -> Seen:
    """Say what the network in this file is.

    Without `look`, what is open is taken as the family is trained, and a reason says so. Raises RefusedError, one
    line with the shapes, for no known family.
    """
    graph, trouble = read_graph(path)
    notes = [trouble] if trouble else []
    seen = _read(path, net, graph, look)
    licence = clean(graph.meta.get("license") or graph.meta.get("licence") or "")
    notes += [f"licence {licence}: the file's metadata states it"] if licence else []
    for spec in (*net.inputs, *net.outputs):
        if spec.scale:
            ends = [(v - spec.zero_point) * spec.scale for v in ((0, 255) if spec.dtype == "uint8" else (-128, 127))]
            if spec.dtype in ("int8", "uint8"):
                notes.append(f"{spec.name} is {spec.dtype}: {ends[0]:.4g}..{ends[1]:.4g} in steps of {spec.scale:.4g}")
        if any(axis is None for axis in spec.shape):
            notes.append(f"{spec.name} {shape(spec)} has dynamic axes")
    reasons = [one_line(reason) for reason in (*seen.reasons, *notes)]
    return replace(seen, licence=licence or "unknown", reasons=reasons, refusal=one_line(seen.refusal, 1000))


def _read(path: Path, net: Net, graph: Graph, look: Look | None) -> Seen:
    tflite = path.suffix.lower() == ".tflite"
    if len(net.inputs) == 1 and len(net.inputs[0].shape) == 4:
        return _picture(path, net, graph, tflite, look)
    if kinds.is_text(net, graph):
        kind = kinds.text(net, graph)
        if kind is None:
            raise RefusedError(_unknown(path, net, "token ids go in, but no output is a vector a token or a text"))
        return _encoder(path, net, kind, look) if kind.family == "bert" else _named(kind, graph, path)
    pictures = [spec for spec in net.inputs if len(spec.shape) == 4]
    if len(pictures) == 1:
        extra = ", ".join(f"{s.name} {shape(s)}" for s in net.inputs if s not in pictures)
        kind = kinds.Kind("detect", "two-inputs", f"a picture {shape(pictures[0])} goes in together with {extra}")
        return _named(kind, graph, path)
    other = kinds.hidden(net) or kinds.sound(net) or kinds.vector(net)
    if other is None:
        raise RefusedError(_unknown(path, net, "neither one picture nor token ids go in"))
    return _named(other, graph, path)


def _named(kind: kinds.Kind, graph: Graph, path: Path, *also: str) -> Seen:
    """A family that is known and cannot be run."""
    found, where = names.stated(graph, path)
    fits = bool(found) and len(found) == kind.classes
    reasons = [f"family {kind.family}: {kind.why}", *also, *([f"labels: {where}"] if fits else [])]
    refusal = f"{path}: {kind.family}, {kind.why}; edge-agent cannot run this family, only {', '.join(RUNS)}"
    return Seen(kind.task, kind.family, reasons, labels=found if fits else [], refusal=refusal)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def _picture(path: Path, net: Net, graph: Graph, tflite: bool, look: Look | None) -> Seen:
    spec = net.inputs[0]
    order, why = picture.layout(spec, graph, tflite)
    if order is None:
        kind = kinds.picture(net, "NCHW" if spec.shape[1] == 1 else "NHWC")
        if kind is None:
            raise RefusedError(_unknown(path, net, why))
        return _named(kind, graph, path, why)
    reasons = [f"layout {order}: {why}"]
    width, height, why = picture.size(spec, order, net.outputs, graph.meta)
    reasons.append(f"size {width}x{height}: {why}")
    stated, where = names.stated(graph, path)
    guesses = heads(net.outputs, width, height, len(stated), graph.meta.get("task", ""))
    if not guesses:
        guesses = (
            [replace(g, why=f"{g.why}, though {where}") for g in heads(net.outputs, width, height)] if stated else []
        )
    kind = kinds.picture(net, order)
    lines = kind is not None and kind.family == "ocr-recogniser" and net.outputs[0].shape[1] is None
    if not guesses or lines:
        if kind is None:
            raise RefusedError(_unknown(path, net, f"the outputs are of no head that is known at {width}x{height}"))
        return _shown(_named(kind, graph, path, *reasons), spec, graph, width, height, order)
    if guesses[0].family not in RUNS:
        kind = kinds.Kind("detect", guesses[0].family, guesses[0].why, guesses[0].classes)
        return _shown(_named(kind, graph, path, *reasons), spec, graph, width, height, order)
    if spec.shape[0] not in (None, 1):
        refusal = f"{path}: takes {spec.shape[0]} pictures at once; export it with a batch of 1 or a dynamic one"
        return Seen("detect", guesses[0].family, [f"family {guesses[0].family}: {guesses[0].why}"], refusal=refusal)
    base = {"width": width, "height": height, "layout": order}
    return _settle(path, net, graph, guesses, base, reasons, look)


def _shown(seen: Seen, spec: TensorSpec, graph: Graph, width: int, height: int, order: str) -> Seen:
    """The same with what the file says of its input, where it says it."""
    ways = picture.ways(spec, graph, seen.family, {"width": width, "height": height, "layout": order})
    stated = [reason for reason in ways.reasons if not reason.startswith("letterbox")]
    stated += ["scale: nothing in the file says"] if ways.ranges else []
    stated += ["channels: nothing in the file says"] if ways.orders else []
    return replace(seen, reasons=[*seen.reasons, *stated], input=None if ways.ranges or ways.orders else ways.first)


def _settle(
    path: Path,
    net: Net,
    graph: Graph,
    guesses: list[Guess],
    base: dict[str, Any],
    reasons: list[str],
    look: Look | None,
) -> Seen:
    """Of the families, scales and channel orders that are open, those that make sense on the proof pictures."""
    spec = net.inputs[0]
    stated, where = names.stated(graph, path)

    def candidate(guess: Guess, ways: picture.Ways) -> Seen:
        found, ids, why = names.labels(guess.family, guess.classes, stated, where)
        own = [f"family {guess.family}: {guess.why}", *reasons, *ways.reasons, f"labels: {why}"]
        coarse, lost = one_scale(graph, net.outputs, guess.family, max(base["width"], base["height"]))
        own += [coarse] if coarse else []
        refusal = f"{path}: {coarse}" if lost else ""
        return Seen("detect", guess.family, own, input=ways.first, labels=found, class_ids=ids, refusal=refusal)

    rows = [(guess, picture.ways(spec, graph, guess.family, base)) for guess in guesses if guess.family in RUNS]
    made = [candidate(*row) for row in rows]
    sound = [i for i, seen in enumerate(made) if not seen.refusal]
    if not sound:
        return made[0]
    first, ways = made[sound[0]], rows[sound[0]][1]
    if len(made) == 1 and not ways.ranges and not ways.orders:
        return first
    if look is None:
        if made[0].refusal:
            return made[0]
        return replace(first, reasons=[*first.reasons, f"{_way(first)}: taken as this family is trained, not tried"])
    tries = [made[i] for i in sound]
    tries += [replace(made[i], input=way) for i in sound for way in rows[i][1].ranges]
    best, worth, told = _best(net, tries, look, {})
    if worth >= ENOUGH and best.input is not None:
        open_order = next(way.orders for seen, (_, way) in zip(made, rows, strict=True) if seen.family == best.family)
        if open_order:
            turned = replace(best, input=picture.swapped(best.input))
            best, worth, more = _best(net, [best, turned], look, {})
            told += more
    said = _told(told)
    # where the likeliest reading clips its boxes, another one has to be beyond doubt
    if worth < ENOUGH or (made[0].refusal and worth <= 1):
        why = made[0].refusal.removeprefix(f"{path}: ") or "it is open how its input and output are meant"
        refusal = (
            f"{path}: {why}, and nothing makes sense on the proof pictures (tried {said}); "
            "name a picture of what it detects with --proof, or write a manifest.toml"
        )
        return replace(made[0], refusal=refusal, reasons=[*made[0].reasons, f"tried: {said}"])
    return replace(best, reasons=[*best.reasons, f"{_way(best)}: tried on the proof pictures, {said}"])


def _way(seen: Seen) -> str:
    return f"{seen.family} with {picture.describe(seen.input)}" if seen.input else seen.family


def _best(
    net: Net, tries: list[Seen], look: Look, parts: Mapping[str, Path]
) -> tuple[Seen, float, list[tuple[str, str]]]:
    """The candidate that is worth most, where a likelier one is kept unless another is clearly better."""
    best, most = tries[0], -1.0
    told = []
    for seen in tries:
        worth, what = look(net, seen, parts)
        told.append((_way(seen), what))
        if worth > max(most, 0) * BETTER or most < 0:
            best, most = seen, worth
    return best, most, told


def _told(told: list[tuple[str, str]]) -> str:
    """What was found in which way; ways with the same outcome stand together."""
    outcomes: dict[str, list[str]] = {}
    for way, what in dict(told).items():
        outcomes.setdefault(what, []).append(way)
    return ", ".join(
        f"{' and '.join(ways) if len(ways) < 4 else f'{len(ways)} ways'}: {what}" for what, ways in outcomes.items()
    )


def one_scale(graph: Graph, outputs: tuple[TensorSpec, ...], family: str, side: int) -> tuple[str, bool]:
    """What it costs that one quantized tensor holds boxes and scores ("" when none does), and whether it is too much.

    A raw YOLOX box needs about -1..4 (the logarithm of its size in strides), a score steps finer than a tenth.
    """
    if family not in ONE_SCALE:
        return "", False
    for spec in outputs:
        found = (spec.scale, spec.zero_point, spec.dtype) if spec.scale else output_scale(graph, spec.name)
        if not found or not found[0] or len(spec.shape) != 3:
            continue
        scale, zero, kind = found
        low, high = [(v - zero) * scale for v in ((0, 255) if kind == "uint8" else (-128, 127))]
        seen = f"{spec.name} holds {low:.3g}..{high:.3g} in {kind} steps of {scale:.3g}"
        if family in ("yolox", "nanodet") and (high < 2.5 or low > -0.5):
            return f"one scale for boxes and scores, so boxes clip: {seen}", True
        if scale > 0.1:
            return f"one scale for boxes and scores, so scores are rounded away: {seen}", True
        exact = scale * side if high < 2 else scale
        return f"one scale for boxes and scores, so boxes are exact to {exact:.2g} pixels: {seen}", False
    return "", False


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def _encoder(path: Path, net: Net, kind: kinds.Kind, look: Look | None) -> Seen:
    reasons = [f"family bert: inputs {', '.join(spec.name for spec in net.inputs)}, {kind.why}"]
    vectors = [spec.name for spec in net.outputs if len(spec.shape) == 2]
    said = [name for name in vectors if any(word in name for word in ("embedding", "vector"))]
    pooling, why = "mean", "each token has a vector"
    configured = _pooling(path)
    if said or (vectors and not any(len(spec.shape) == 3 for spec in net.outputs)):
        chosen = (said or vectors)[0].split(":")[0]
        pooling, why = f"output:{chosen}", f"output {chosen} is one vector a text"
    elif configured:
        pooling, why = configured, "1_Pooling/config.json beside the file says so"
    length = next((spec.shape[1] for spec in net.inputs if len(spec.shape) == 2 and spec.shape[1] is not None), 512)
    reasons.append(f"max_length {length}: {'fixed by the input' if length != 512 else 'of BERT'}")
    part = next((n for n in ("tokenizer.json", "vocab.txt") if path.with_name(n).is_file()), None)
    if part is None:
        refusal = f"{path}: a text encoder, but no tokenizer.json or vocab.txt beside it; put it there"
        return Seen("encode", "bert", [*reasons, f"pooling {pooling}: {why}"], refusal=refusal)
    role = "tokenizer" if part == "tokenizer.json" else "vocab"
    lowercase = role == "tokenizer" or not _cased(path.with_name(part))
    reasons.append(f"{role}: {part} beside the file")
    if role == "vocab":
        reasons.append(f"lowercase {str(lowercase).lower()}: {'no' if lowercase else 'a'} word piece has a capital")
    made = TextInput(pooling=pooling, max_length=length, lowercase=lowercase, **{role: part})  # type: ignore[arg-type]
    seen = Seen("encode", "bert", reasons, text=made)
    if pooling != "mean" or configured:
        return replace(seen, reasons=[*reasons, f"pooling {pooling}: {why}"])
    if look is None:
        return replace(seen, reasons=[*reasons, f"pooling mean: {why}, the usual way and not tried"])
    cls = replace(seen, text=msgspec.structs.replace(made, pooling="cls"))
    parts = {role: path.with_name(part)}
    (mean_worth, mean_said), (cls_worth, cls_said) = look(net, seen, parts), look(net, cls, parts)
    tried = f"mean {mean_worth:.2f} ({mean_said}), cls {cls_worth:.2f} ({cls_said})"
    best, worth = (cls, cls_worth) if cls_worth > max(mean_worth, 0) * BETTER else (seen, mean_worth)
    if worth <= 0:
        refusal = f"{path}: no pooling makes sense on the proof sentences (tried {tried}); write a manifest.toml"
        return replace(seen, refusal=refusal, reasons=[*reasons, f"tried: {tried}"])
    assert best.text is not None
    return replace(best, reasons=[*reasons, f"pooling {best.text.pooling}: tried on the proof sentences: {tried}"])


def _pooling(path: Path) -> str:
    """mean or cls as sentence-transformers' 1_Pooling/config.json says; "" when it is not there."""
    config = path.parent / "1_Pooling" / "config.json"
    try:
        table = json.loads(config.read_text(encoding="utf-8")) if config.stat().st_size < MAX_WORDS else {}
    except (OSError, ValueError, RecursionError):
        return ""
    keys = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
    found = [name for name, key in keys.items() if isinstance(table, dict) and table.get(key) is True]
    return found[0] if len(found) == 1 else ""


def _cased(vocab: Path) -> bool:
    """Whether a word piece, the marks in brackets aside, has a capital letter."""
    try:
        with vocab.open(encoding="utf-8", errors="replace") as file:
            lines = file.read(4 * MAX_WORDS).splitlines()
    except OSError:
        return False
    return any(line != line.lower() and not line.startswith("[") for line in lines)


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _unknown(path: Path, net: Net, why: str) -> str:
    def ends(specs: tuple[TensorSpec, ...]) -> str:
        seen = ", ".join(f"{clean(s.name, 40)} {shape(s)} {s.dtype}" for s in specs[:6])
        return seen + (" …" if len(specs) > 6 else "")

    return (
        f"{path}: no known family: {why} (in: {ends(net.inputs)}; out: {ends(net.outputs)});"
        " write a manifest.toml beside it"
    )
