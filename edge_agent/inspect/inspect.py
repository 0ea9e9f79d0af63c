"""What a bare .onnx or .tflite file is, with a reason for each conclusion.

Shapes tell the family, the file's own words and graph tell how its input is meant. What they leave open is tried on
proof pictures or sentences by `look` (edge_agent.gate.tried), and the candidate that makes sense is kept; where none
does the file is refused with what was seen. Families that this program cannot run are named and not added.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.families.heads import Guess, heads, shape
from edge_agent.families.table import FAMILIES, RUNS, training
from edge_agent.graphs import onnx_file, tflite_file
from edge_agent.graphs.graph import THROUGH, FileGraph, behind, clean, one_line, output_scale
from edge_agent.inspect import kinds, names, picture
from edge_agent.inspect.names import coco80
from edge_agent.inspect.seen import BETTER, CLEARLY, ENOUGH, TryReading, Worth, is_clear, summary, way
from edge_agent.inspect.text import HEADS, encoder, head
from edge_agent.manifest import MOST_SIDE, Seen
from edge_agent.types import Net, TensorSpec

__all__ = ["RUNS", "Seen", "TryReading", "coco80", "inspect", "read_graph"]
ALIKE = {family: row.alike for family, row in FAMILIES.items() if row.alike}
"""families whose boxes are read alike"""


def read_graph(path: Path) -> tuple[FileGraph, str]:
    """The file's graph and metadata, and why there is none ("" when there is)."""
    try:
        return (onnx_file.read(path) if path.suffix.lower() == ".onnx" else tflite_file.read(path)), ""
    except (OSError, ValueError, struct.error) as error:
        return FileGraph(), f"graph and metadata cannot be read ({error})"


def inspect(path: Path, net: Net, look: TryReading | None = None, told: Mapping[str, str] = {}) -> Seen:
    """Say what the network in this file is. `told`: what the user says of its input: scale, mean, std, channels.

    Without `look`, what is open is taken as the family is trained, and a reason says so. Raises RefusedError, one
    line with the shapes, for no known family.
    """
    graph, trouble = read_graph(path)
    graph = replace(graph, told=told)
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


def _read(path: Path, net: Net, graph: FileGraph, look: TryReading | None) -> Seen:
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
    "segment": ("says something of every place in a picture", ""),
    "read": ("reads a line of text in a picture", ""),
    "hear": ("tells speech from silence", ""),
    "recognise": ("tells classes apart", ""),
}
"""task -> what such a network does, and what may be done about it"""
DECODED = {
    "-obb": "its boxes are turned; train a detector of upright ones",
    "-pose": "its points are not read; train a detector of boxes",
    "-seg": "its masks are not read; train a detector of boxes",
}
"""end of a family's name -> what may be done about one that has its decoding in the graph"""
SERVED = (
    "YOLOX, YOLOv5 to v12, YOLO26, DETR, RT-DETR, NanoDet, PicoDet, SSD, edge-yolo, BERT, a classifier or an "
    "autoencoder"
)


def _named(kind: kinds.Kind, graph: FileGraph, path: Path, *also: str) -> Seen:
    """A family that is known and cannot be run."""
    found, where = names.stated(graph, path)
    fits = bool(found) and len(found) == kind.classes
    reasons = [f"family {kind.family}: {kind.why}", *also, *([f"labels: {where}"] if fits else [])]
    what, mend = WHAT.get(kind.task, ("", ""))
    for ending, instead in DECODED.items():
        mend = instead if kind.family.endswith(ending) else mend
    mend = mend or "serve it with a task of your own (theirpkg.module:attr)"
    refusal = (
        f"{path}: {kind.family}{f' ({what})' if what else ''}, {kind.why}; edge-agent cannot run this family: {mend}, "
        f"or take one of {SERVED}"
    )
    return Seen(kind.task, kind.family, reasons, labels=found if fits else [], refusal=refusal)


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def _picture(path: Path, net: Net, graph: FileGraph, tflite: bool, look: TryReading | None) -> Seen:
    spec = net.inputs[0]
    order, why = picture.layout(spec, graph, tflite)
    if order is None:
        kind = kinds.picture(net, "NCHW" if spec.shape[1] == 1 else "NHWC")
        if kind is None:
            raise RefusedError(_unknown(path, net, why))
        if kind.task == "recognise":
            grey = "one number a point goes in, as of a sound's spectrum (keyword spotting) or of a grey picture"
            kind = kinds.Kind(kind.task, "one-channel", f"{kind.why}, and {grey}", kind.classes)
        return _named(kind, graph, path, why)
    reasons = [f"layout {order}: {why}"]
    width, height, why = picture.size(spec, order, net.outputs, graph.meta)
    if max(width, height) > MOST_SIDE:
        raise RefusedError(f"{path}: a picture of {width}x{height} goes in; sides up to {MOST_SIDE} pixels are served")
    reasons.append(f"size {width}x{height}: {why}")
    outputs, why = _outputs(net, (1, 3, height, width) if order == "NCHW" else (1, height, width, 3))
    reasons += [why] if why else []
    stated, where = names.stated(graph, path)
    guesses = _worded(graph, heads(outputs, width, height, len(stated), graph.meta.get("task", "")))
    if not guesses and stated:
        for guess in heads(outputs, width, height):
            if guess.family in RUNS and guess.classes and (puzzle := names.unfit(where, guess.classes)):
                why = f"family {guess.family}: {guess.why}"
                return Seen("detect", guess.family, [why], refusal=f"{path}: {puzzle}")
        guesses = [replace(g, why=f"{g.why}, though {where}") for g in heads(outputs, width, height)]
    net = msgspec.structs.replace(net, outputs=outputs)
    kind = kinds.picture(net, order)
    lines = kind is not None and kind.family == "ocr-recogniser"
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
    runs = [guess for guess in guesses if guess.family in RUNS]
    if not runs:
        kind = kinds.Kind("detect", guesses[0].family, guesses[0].why, guesses[0].classes)
        return _shown(_named(kind, graph, path, *reasons), spec, graph, width, height, order)
    if spec.shape[0] not in (None, 1):
        refusal = f"{path}: takes {spec.shape[0]} pictures at once; export it with a batch of 1 or a dynamic one"
        return Seen("detect", runs[0].family, [f"family {runs[0].family}: {runs[0].why}"], refusal=refusal)
    base = {"width": width, "height": height, "layout": order}
    return _settle(path, net, graph, guesses, base, reasons, look)


def _outputs(net: Net, size: tuple[int, ...]) -> tuple[tuple[TensorSpec, ...], str]:
    """The outputs; where the file leaves an axis of them open, with what two runs on a picture of `size` gave (None
    for what differs between them), and why. What cannot be run stays as it is.
    """
    axes = [axis for spec in net.outputs for axis in spec.shape[1:]]
    if None not in axes and all(spec.shape for spec in net.outputs):
        return net.outputs, ""
    (spec,) = net.inputs
    noise = np.random.default_rng(0).integers(0, 127, size)
    try:
        runs = [net.run({spec.name: tensor.astype(spec.dtype)}) for tensor in (np.zeros(size), noise)]
    except (EdgeAgentError, TypeError, ValueError):
        return net.outputs, ""
    found = []
    for output in net.outputs:
        given = [run[output.name].shape for run in runs if output.name in run]
        if len(given) != 2 or len(given[0]) != len(given[1]):
            return net.outputs, ""
        dims = tuple(a if a == b else None for a, b in zip(*given, strict=True))
        # one picture went in, of whatever number it takes
        first = output.shape[:1] if len(output.shape) == len(dims) else ()
        found.append(msgspec.structs.replace(output, shape=(*(first or dims[:1]), *dims[1:])))
    return tuple(found), f"outputs: the file leaves axes open, a run gives {', '.join(shape(s) for s in found)}"


def _worded(graph: FileGraph, guesses: list[Guess]) -> list[Guess]:
    """Those of the guesses that the exporter's own words allow."""
    meta = graph.meta
    queries = "rtdetr" in meta.get("description", "").lower().replace("-", "")
    corners = meta.get("end2end") == "True" or re.search(r"['\"]nms['\"]: True", meta.get("args", ""))
    some = [g for g in guesses if not (queries and g.family == "end2end") and not (corners and g.family != "end2end")]
    return some or guesses


def _shown(seen: Seen, spec: TensorSpec, graph: FileGraph, width: int, height: int, order: str) -> Seen:
    """The same with what the file says of its input, where it says it."""
    ways = picture.ways(spec, graph, seen.family, {"width": width, "height": height, "layout": order})
    stated = [reason for reason in ways.reasons if not reason.startswith("letterbox")]
    stated += ["scale: nothing in the file says"] if ways.ranges else []
    stated += ["channels: nothing in the file says"] if ways.orders else []
    return replace(seen, reasons=[*seen.reasons, *stated], input=None if ways.ranges or ways.orders else ways.first)


Tried = tuple[Seen, picture.Ways, Worth]


def _settle(
    path: Path,
    net: Net,
    graph: FileGraph,
    guesses: list[Guess],
    base: dict[str, Any],
    reasons: list[str],
    look: TryReading | None,
) -> Seen:
    """Of the families, namings, scales and channel orders that are open, those that make sense on the proof pictures.

    A shape is never believed alone: of several families that it fits, the one serves whose boxes are where the things
    are. A preparation serves that does clearly better than any other, or as good as any where everybody trains the
    family so; else the user is asked.
    """
    spec = net.inputs[0]
    stated, where = names.stated(graph, path)
    # TensorFlow's detection API counts classes from 1; its form for TFLite, with a post-process of its own, from 0
    api = path.suffix.lower() == ".onnx" and any("detection_classes" in output.name for output in net.outputs)
    first = 1 if api else 0

    def candidate(guess: Guess, ways: picture.Ways, naming: names.Naming) -> Seen:
        found, ids, why = naming
        own = [f"family {guess.family}: {guess.why}", *reasons, *ways.reasons, f"labels: {why}"]
        coarse, lost = one_scale(graph, net.outputs, guess.family, max(base["width"], base["height"]), len(found))
        own += [coarse] if coarse else []
        refusal = f"{path}: {coarse}" if lost else ""
        return Seen("detect", guess.family, own, input=ways.first, labels=found, class_ids=ids, refusal=refusal)

    rows = [
        (candidate(guess, ways, naming), ways)
        for guess in guesses
        if guess.family in RUNS
        for ways in [picture.ways(spec, graph, guess.family, base)]
        for naming in names.namings(guess.family, guess.classes, stated, where, first)
    ]
    sound = [(seen, ways) for seen, ways in rows if not seen.refusal]
    if not sound:
        return rows[0][0]
    if look is None:
        if rows[0][0].refusal:
            return rows[0][0]
        seen, ways = sound[0]
        open_way = len({row.family for row, _ in sound}) > 1 or ways.ranges or ways.orders
        untried = [f"{way(seen)}: taken as this family is trained, not tried"] if open_way else []
        return replace(seen, reasons=[*seen.reasons, *untried])
    tried: list[Tried] = [
        (replace(seen, input=how), ways, look(net, replace(seen, input=how), {}))
        for seen, ways in sound
        for how in (ways.first, *ways.ranges)
    ]
    alive = {ALIKE.get(seen.family, seen.family): seen for seen, _, worth in reversed(tried) if worth.value >= 0}
    (seen, ways, worth), orders = _best(net, tried, look)
    told = [*tried, *orders]
    said = summary([(way(each), worth.what) for each, _, worth in told])

    def refused(why: str) -> Seen:
        mend = "name a picture of what it detects with --proof, or write a manifest.toml"
        of = rows[0][0] if rows[0][0].refusal else seen
        return replace(of, refusal=f"{path}: {why}; {mend}", reasons=[*of.reasons, f"tried: {said}"])

    others = [guess for guess in guesses if guess.family not in RUNS]
    if not alive and others:
        kind = kinds.Kind("detect", others[0].family, others[0].why, others[0].classes)
        return _named(kind, graph, path, *reasons, f"tried: {said}")
    if worth.value < ENOUGH:
        settled = [each for each, its in sound if ALIKE.get(each.family, each.family) in alive and not its.ranges]
        if len(alive) == 1 and len(settled) == 1 and not ways.orders and not others:
            only = f"{way(settled[0])}: its numbers allow no other, and nothing in the proof pictures is its own"
            return replace(settled[0], reasons=[*settled[0].reasons, only])
        clipped = rows[0][0].refusal.removeprefix(f"{path}: ")
        why = clipped or "it is open how its input and output are meant"
        open_names = any(each.labels == names.UNNAMED for each, _ in sound)
        unnamed = ", nor as COCO's classes (labels.txt beside it would name others)" if open_names else ""
        return refused(f"{why}, and nothing makes sense on the proof pictures{unnamed} (tried {said})")
    # where the likeliest reading clips its boxes, another one has to be beyond doubt
    if rows[0][0].refusal and worth.value <= 1:
        return refused(f"{rows[0][0].refusal.removeprefix(f'{path}: ')}, and nothing else makes sense (tried {said})")
    if len(alive) + bool(others) > 1 and not worth.placed:
        either = " or ".join([*alive, *(guess.family for guess in others)][:4])
        return refused(f"its output may be read as {either}, and nothing in the proof pictures tells (tried {said})")
    rivals = [w.value for each, _, w in tried if w.placed and each.labels != names.UNNAMED and _other(each, seen)]
    rival = max(rivals, default=0.0)
    if rival * BETTER > worth.value:
        return refused(f"its output makes sense in more than one way (tried {said})")
    if seen.labels == names.UNNAMED:
        why = (
            "its boxes are where things are, but its classes are not COCO's: put labels.txt beside it, one name a line"
        )
        return replace(seen, refusal=f"{path}: {why}", reasons=[*seen.reasons, f"tried: {said}"])
    doubt = _doubt((seen, ways, worth), told)
    if doubt:
        return replace(seen, refusal=f"{path}: {doubt}", reasons=[*seen.reasons, f"tried: {said}"])
    if not ways.ranges and not ways.orders and len(alive) == 1:
        return replace(seen, reasons=[*seen.reasons, f"tried on the proof pictures: {worth.what}"])
    return replace(seen, reasons=[*seen.reasons, f"{way(seen)}: tried on the proof pictures, {said}"])


def _other(one: Seen, seen: Seen) -> bool:
    """Whether one reads other boxes than the other, or calls them otherwise."""
    same = ALIKE.get(one.family, one.family) == ALIKE.get(seen.family, seen.family)
    return not same or (one.family == seen.family and one.labels != seen.labels)


def _best(net: Net, tried: list[Tried], look: TryReading) -> tuple[Tried, list[Tried]]:
    """The reading that is worth most, and what was tried to find the order of its channels.

    Where everybody trains a family in one way, another one has to do clearly better.
    """

    def own(row: Tried) -> bool:
        return row[0].input == row[1].first

    def order(row: Tried) -> tuple[bool, bool, float, bool]:
        return row[2].placed, row[0].labels != names.UNNAMED, round(row[2].value, 3), own(row)

    best = max(tried, key=order)
    if training(best[0].family).always:
        same = [row for row in tried if own(row) and not _other(row[0], best[0]) and row[0].family == best[0].family]
        enough = (best[2].placed, best[2].value / CLEARLY)
        best = next((row for row in same if (row[2].placed, row[2].value) >= enough), best)
    orders: list[Tried] = []
    if best[1].orders and best[0].input is not None and best[2].value >= ENOUGH:
        turned = replace(best[0], input=picture.swapped(best[0].input))
        orders = [(turned, best[1], look(net, turned, {}))]
        least = CLEARLY if training(best[0].family).always else 1.0
        better = orders[0][2].value > best[2].value * least and orders[0][2].placed >= best[2].placed
        best = orders[0] if better else best
    return best, orders


def _doubt(best: Tried, told: list[Tried]) -> str:
    """What of the preparation is to be asked for, as another one does about as well; "" where nothing is."""
    seen, ways, worth = best
    assert seen.input is not None
    if training(seen.family).always:
        return ""
    close = [
        each.input
        for each, _, its in told
        if not _other(each, seen) and not is_clear(worth, its) and each.input not in (None, seen.input)
    ]
    asked = []
    if any(how is not None and picture.swapped(how) != seen.input and ways.ranges for how in close):
        asked.append(f"--scale ({', '.join(picture.RANGES)}; or a number with --mean and --std)")
    if any(how is not None and picture.swapped(how) == seen.input for how in close):
        asked.append("--channels RGB or BGR")
    if not asked:
        return ""
    also = " and ".join(picture.describe(how) for how in [seen.input, *close] if how is not None)
    mend = f"say it with {' and '.join(asked)}"
    return f"it is open how its pictures go in: {also} do about as well ({worth.what}); {mend}"


def _classifier(
    path: Path,
    net: Net,
    graph: FileGraph,
    kind: kinds.Kind,
    base: dict[str, Any],
    reasons: list[str],
    look: TryReading | None,
) -> Seen:
    """A classifier of pictures: probabilities or logits, the names of its classes, and how a picture goes in.

    Numbers for each picture may be anything. That they are classes takes a Softmax, names, or ImageNet's count.
    """
    made = [f"family {kind.family}: {kind.why}", *reasons]

    def refused(why: str) -> Seen:
        return Seen("recognise", kind.family, made, refusal=f"{path}: {kind.family}, {kind.why}; {why}")

    def unserved(why: str) -> Seen:
        told = [f"family vector: {kind.why}", *reasons]
        return Seen("recognise", "vector", told, refusal=f"{path}: {kind.why}; {why}")

    if kind.classes < 2:
        return unserved("it tells no classes apart; serve it with a task of your own (theirpkg.module:attr)")
    last = [node.op for node in behind(graph, net.outputs[0].name) if node.op not in THROUGH]
    if last[:1] == ["Sigmoid"]:
        return refused("the graph ends in a Sigmoid, so several labels may hold at once, which is not served")
    stated, where = names.stated(graph, path)
    scale = output_scale(graph, net.outputs[0].name)
    if last[:1] == ["Softmax"]:
        family, why = kind.family, "the graph ends in a Softmax: probabilities come out"
    elif scale and 0.9 < 256 * scale[0] < 1.1 and scale[1] in (0, -128):
        family, why = kind.family, "the output stands for 0..1: probabilities come out"
    else:
        family = f"{kind.family}-logits"
        why = f"the graph ends in {last[0] if last else 'nothing that is known'}: logits come out, a softmax follows"
    named = len(stated) in (kind.classes, kind.classes - 1)
    if stated and not named and (puzzle := names.unfit(where, kind.classes)):
        return refused(puzzle)
    if not named and (puzzle := kinds.no_classes(net, kind, family == kind.family)):
        return unserved(puzzle)
    labels, said = names.of_classes(kind.classes, stated, where)
    made = [f"family {family}: {kind.why}, and {why}", *reasons, f"labels: {said}"]
    return _tried(
        path,
        net,
        Seen("recognise", family, made, labels=labels),
        picture.ways(net.inputs[0], graph, family, base),
        look,
    )


def _tried(path: Path, net: Net, seen: Seen, ways: picture.Ways, look: TryReading | None) -> Seen:
    """The scale and channel order, as the file says them or as they make sense on the proof pictures."""
    first = replace(seen, input=ways.first, reasons=[*seen.reasons, *ways.reasons])
    if not ways.ranges and not ways.orders:
        return first
    if look is None:
        return replace(first, reasons=[*first.reasons, f"{way(first)}: taken as most are trained, not tried"])
    tries = [replace(first, input=how) for how in (ways.first, *ways.ranges)]
    tried: list[Tried] = [(each, ways, look(net, each, {})) for each in tries]
    best, orders = _best(net, tried, look)
    told = [*tried, *orders]
    said = summary([(way(each).removeprefix(f"{seen.family} with "), worth.what) for each, _, worth in told])
    tried_all = [*first.reasons, f"tried: {said}"]
    if best[2].value >= ENOUGH and (doubt := _doubt(best, told)):
        return replace(best[0], refusal=f"{path}: {doubt}", reasons=tried_all)
    if best[2].value < ENOUGH or best[2].alike:
        why = "nothing makes sense" if best[2].value < ENOUGH else "all answers are the same"
        refusal = (
            f"{path}: it is open how its input is meant, and {why} on the proof pictures (tried {said}); "
            "name pictures of what it is for with --proof, say it with --scale and --channels, or write a manifest.toml"
        )
        return replace(first, refusal=refusal, reasons=tried_all)
    return replace(best[0], reasons=[*first.reasons, f"{way(best[0])}: tried on the proof pictures, {said}"])


def one_scale(
    graph: FileGraph, outputs: tuple[TensorSpec, ...], family: str, side: int, classes: int
) -> tuple[str, bool]:
    """What it costs that one quantized tensor holds boxes and scores ("" when none does), and whether it is too much.

    A raw YOLOX box needs about -1..4 (the logarithm of its size in strides), a score steps finer than a tenth,
    and finished boxes the index of the last of their classes.
    """
    row = FAMILIES[family]
    if not row.one_tensor or len(outputs) in (6, 8):
        return "", False
    for spec in outputs:
        found = (spec.scale, spec.zero_point, spec.dtype) if spec.scale else output_scale(graph, spec.name)
        if not found or not found[0] or len(spec.shape) != 3:
            continue
        scale, zero, kind = found
        low, high = [(v - zero) * scale for v in ((0, 255) if kind == "uint8" else (-128, 127))]
        seen = f"{spec.name} holds {low:.3g}..{high:.3g} in {kind} steps of {scale:.3g}"
        if row.raw and (high < 2.5 or low > -0.5):
            return f"one scale for boxes and scores, so boxes clip: {seen}", True
        if scale > 0.1:
            return f"one scale for boxes and scores, so scores are rounded away: {seen}", True
        if "c" in row.order and high < classes - 1.5:
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
