"""What a bare .onnx or .tflite file is, with a reason for each conclusion.

Shapes tell the family, the file's own words and graph tell how its input is meant. What they leave open is tried on
proof pictures or sentences by `look` (edge_agent.trial), and the candidate that makes sense is kept; where none does
the file is refused with what was seen. Families that this program cannot run are named and not added.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.errors import RefusedError
from edge_agent.manifest import MOST_SIDE
from edge_agent.registry import kinds, names, onnx_file, picture, tflite_file
from edge_agent.registry.graph import THROUGH, Graph, behind, clean, one_line, output_scale
from edge_agent.registry.heads import Guess, heads, shape
from edge_agent.registry.names import coco80
from edge_agent.registry.seen import ENOUGH, RUNS, Look, Seen, best_of, summary, way
from edge_agent.registry.text import HEADS, encoder, head
from edge_agent.types import Net, TensorSpec

__all__ = ["RUNS", "Look", "Seen", "coco80", "inspect", "read_graph"]

ONE_SCALE = ("yolox", "yolox-decoded", "yolov5", "yolov6", "yolov8", "end2end", "rtdetr", "nanodet")
"""families with boxes and scores in one tensor"""


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
        if kind.family == "bert":
            return encoder(path, net, kind, look)
        return head(path, net, kind, graph, look) if kind.family in HEADS else _named(kind, graph, path)
    pictures = [spec for spec in net.inputs if len(spec.shape) == 4]
    if len(pictures) == 1:
        extra = ", ".join(f"{s.name} {shape(s)}" for s in net.inputs if s not in pictures)
        kind = kinds.Kind("detect", "two-inputs", f"a picture {shape(pictures[0])} goes in together with {extra}")
        return _named(kind, graph, path)
    other = kinds.hidden(net) or kinds.sound(net) or kinds.vector(net)
    if other is None:
        raise RefusedError(_unknown(path, net, "neither one picture nor token ids go in"))
    if other.task == "anomaly":
        return Seen("anomaly", other.family, [f"family {other.family}: {other.why}"])
    return _named(other, graph, path)


WHAT = {
    "detect": ("a detector", "export it again with its decoding in the graph"),
    "answer": ("finds the answer to a question in a text", ""),
    "fill-mask": ("guesses masked words", "export the encoder without this head to get vectors and labels"),
    "next-sentence": ("says whether one sentence follows another", "export the encoder without this head"),
    "tag": ("tags words", "export it together with its encoder"),
    "segment": ("labels every pixel of a picture", ""),
    "find-text": ("finds text in a picture", ""),
    "read": ("reads a line of text in a picture", ""),
    "hear": ("tells speech from silence", ""),
}
"""task -> what such a network does, and what may be done about it"""


def _named(kind: kinds.Kind, graph: Graph, path: Path, *also: str) -> Seen:
    """A family that is known and cannot be run."""
    found, where = names.stated(graph, path)
    fits = bool(found) and len(found) == kind.classes
    reasons = [f"family {kind.family}: {kind.why}", *also, *([f"labels: {where}"] if fits else [])]
    what, mend = WHAT.get(kind.task, ("", ""))
    mend = mend or "serve it with a task of your own (theirpkg.module:attr)"
    refusal = (
        f"{path}: {kind.family}{f' ({what})' if what else ''}, {kind.why}; edge-agent cannot run this family: {mend}, "
        f"or take one of {', '.join(RUNS)}"
    )
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
    if max(width, height) > MOST_SIDE:
        raise RefusedError(f"{path}: a picture of {width}x{height} goes in; sides up to {MOST_SIDE} pixels are served")
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
        base = {"width": width, "height": height, "layout": order}
        if kind.family == "image-classifier":
            return _classifier(path, net, graph, kind, base, reasons, look)
        if kind.task == "anomaly":
            made = Seen("anomaly", kind.family, [f"family {kind.family}: {kind.why}", *reasons])
            return _tried(path, net, made, picture.ways(spec, graph, kind.family, base), look)
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
    # TensorFlow's detection API counts classes from 1; its form for TFLite, with a post-process of its own, from 0
    api = path.suffix.lower() == ".onnx" and any("detection_classes" in output.name for output in net.outputs)
    first = 1 if api else 0

    def candidate(guess: Guess, ways: picture.Ways) -> Seen:
        found, ids, why = names.labels(guess.family, guess.classes, stated, where, first)
        own = [f"family {guess.family}: {guess.why}", *reasons, *ways.reasons, f"labels: {why}"]
        coarse, lost = one_scale(graph, net.outputs, guess.family, max(base["width"], base["height"]), len(found))
        own += [coarse] if coarse else []
        refusal = f"{path}: {coarse}" if lost else ""
        return Seen("detect", guess.family, own, input=ways.first, labels=found, class_ids=ids, refusal=refusal)

    rows = [(guess, picture.ways(spec, graph, guess.family, base)) for guess in guesses if guess.family in RUNS]
    made = [candidate(*row) for row in rows]
    sound = [i for i, seen in enumerate(made) if not seen.refusal]
    if not sound:
        return made[0]
    likeliest, ways = made[sound[0]], rows[sound[0]][1]
    if len(made) == 1 and not ways.ranges and not ways.orders:
        return likeliest
    if look is None:
        if made[0].refusal:
            return made[0]
        untried = f"{way(likeliest)}: taken as this family is trained, not tried"
        return replace(likeliest, reasons=[*likeliest.reasons, untried])
    tries = [made[i] for i in sound]
    tries += [replace(made[i], input=way) for i in sound for way in rows[i][1].ranges]
    best, worth, told = best_of(net, tries, look, {})
    if worth >= ENOUGH and best.input is not None:
        open_order = next(way.orders for seen, (_, way) in zip(made, rows, strict=True) if seen.family == best.family)
        if open_order:
            turned = replace(best, input=picture.swapped(best.input))
            best, worth, more = best_of(net, [best, turned], look, {})
            told += more
    said = summary(told)
    # where the likeliest reading clips its boxes, another one has to be beyond doubt
    if worth < ENOUGH or (made[0].refusal and worth <= 1):
        why = made[0].refusal.removeprefix(f"{path}: ") or "it is open how its input and output are meant"
        refusal = (
            f"{path}: {why}, and nothing makes sense on the proof pictures (tried {said}); "
            "name a picture of what it detects with --proof, or write a manifest.toml"
        )
        return replace(made[0], refusal=refusal, reasons=[*made[0].reasons, f"tried: {said}"])
    return replace(best, reasons=[*best.reasons, f"{way(best)}: tried on the proof pictures, {said}"])


def _classifier(
    path: Path, net: Net, graph: Graph, kind: kinds.Kind, base: dict[str, Any], reasons: list[str], look: Look | None
) -> Seen:
    """A classifier of pictures: probabilities or logits, the names of its classes, and how a picture goes in."""
    if kind.classes < 2:
        refusal = f"{path}: {kind.family}, {kind.why}; one number a picture has no classes: write a manifest.toml"
        return Seen("recognise", kind.family, [f"family {kind.family}: {kind.why}", *reasons], refusal=refusal)
    last = [node.op for node in behind(graph, net.outputs[0].name) if node.op not in THROUGH]
    if last[:1] == ["Sigmoid"]:
        why = "the graph ends in a Sigmoid, so several labels may hold at once, which is not served"
        made = [f"family {kind.family}: {kind.why}", *reasons]
        return Seen("recognise", kind.family, made, refusal=f"{path}: {kind.family}, {kind.why}; {why}")
    scale = output_scale(graph, net.outputs[0].name)
    if last[:1] == ["Softmax"]:
        family, why = kind.family, "the graph ends in a Softmax: probabilities come out"
    elif scale and 0.9 < 256 * scale[0] < 1.1 and scale[1] in (0, -128):
        family, why = kind.family, "the output stands for 0..1: probabilities come out"
    else:
        family = f"{kind.family}-logits"
        why = f"the graph ends in {last[0] if last else 'nothing that is known'}: logits come out, a softmax follows"
    labels, said = names.of_classes(kind.classes, *names.stated(graph, path))
    made = [f"family {family}: {kind.why}, and {why}", *reasons, f"labels: {said}"]
    return _tried(
        path,
        net,
        Seen("recognise", family, made, labels=labels),
        picture.ways(net.inputs[0], graph, family, base),
        look,
    )


def _tried(path: Path, net: Net, seen: Seen, ways: picture.Ways, look: Look | None) -> Seen:
    """The scale and channel order, as the file says them or as they make sense on the proof pictures."""
    first = replace(seen, input=ways.first, reasons=[*seen.reasons, *ways.reasons])
    if not ways.ranges and not ways.orders:
        return first
    if look is None:
        return replace(first, reasons=[*first.reasons, f"{way(first)}: taken as most are trained, not tried"])
    inputs = [ways.first, *ways.ranges]
    if ways.orders:
        inputs += [picture.swapped(way) for way in inputs]
    tries = [replace(first, input=way) for way in inputs]
    best, worth, told = best_of(net, tries, look, {})
    said = summary([(how.removeprefix(f"{seen.family} with "), what) for how, what in told])
    if worth < ENOUGH:
        refusal = (
            f"{path}: it is open how its input is meant, and nothing makes sense on the proof pictures (tried {said}); "
            "name pictures of what it is for with --proof, or write a manifest.toml"
        )
        return replace(first, refusal=refusal, reasons=[*first.reasons, f"tried: {said}"])
    doubt = "where two make about as much sense the more usual one is taken, pictures given with --proof tell more"
    reasons = [f"{way(best)}: tried on the proof pictures, {said}", f"doubtful: {doubt}"]
    return replace(best, reasons=[*best.reasons, *reasons])


def one_scale(graph: Graph, outputs: tuple[TensorSpec, ...], family: str, side: int, classes: int) -> tuple[str, bool]:
    """What it costs that one quantized tensor holds boxes and scores ("" when none does), and whether it is too much.

    A raw YOLOX box needs about -1..4 (the logarithm of its size in strides), a score steps finer than a tenth,
    and finished boxes the index of the last of their classes.
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
        if family == "end2end" and high < classes - 1.5:
            return f"one scale for boxes and scores, so class indices clip: {seen}", True
        exact = scale * side if high < 2 else scale
        return f"one scale for boxes and scores, so boxes are exact to {exact:.2g} pixels: {seen}", False
    return "", False


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _unknown(path: Path, net: Net, why: str) -> str:
    def ends(specs: tuple[TensorSpec, ...]) -> str:
        seen = ", ".join(f"{clean(s.name, 40)} {shape(s)} {s.dtype}" for s in specs[:6])
        return seen + (" …" if len(specs) > 6 else "")

    return (
        f"{path}: no known family: {why} (in: {ends(net.inputs)}; out: {ends(net.outputs)});"
        " write a manifest.toml beside it"
    )
