"""Makes the faster form of an ONNX file that this device runs in its place; runs in the child of gate/ask.py.

A detector is stopped before its tail (graphs/cut.py), and the decoder of its maps (families/maps.py) has to find what
the whole network finds, cell by cell; else the tail stays, with the reason. What is left is rewritten to pass over
memory less often (graphs/rewrite.py), which is kept where it finds the same, and is faster. A network of any other
kind whose weights lie as int8 and are widened in each run multiplies int8 instead (graphs/dynamic.py), where its
answers agree with its own (gate/agree.py) and it is faster. In a text network, what can be done in one operator is
(graphs/fuse.py), on the same terms. Then ONNX Runtime writes
the graph down as this processor runs it best, so that it loads several times faster. Where this processor's fast
products of int8 saturate (backends/onnx.py), exact ones are what a file gets; with the fast ones it is a second form of
it. What comes out is a variant like any other: it proves itself, is held against its parent and races it. The file that
it was made from is never touched.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypedDict

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.backends.onnx import PROVIDERS, optimise, saturates
from edge_agent.errors import ModelError, RefusedError
from edge_agent.families.candidates import Candidates, sigmoid
from edge_agent.families.family import CutRecipe
from edge_agent.families.table import CUTS
from edge_agent.gate.agree import agree
from edge_agent.gate.opened import input_of, open_served
from edge_agent.gate.race import stepper
from edge_agent.gate.trial import Agree, Derive, Result, Variant
from edge_agent.graphs.cut import Cuttable
from edge_agent.graphs.dynamic import dynamic
from edge_agent.graphs.fuse import fuse
from edge_agent.graphs.nodes import Graph
from edge_agent.graphs.rewrite import rewrite
from edge_agent.manifest import File
from edge_agent.paths import home
from edge_agent.registry import store
from edge_agent.samples.shown import pictures
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector
from edge_agent.tasks.text.encoder import inputs_of
from edge_agent.types import Frame, Net, TensorSpec
from edge_agent.uri import Uri

SHOWN = 8
"""pictures that both forms are shown"""
LOOKED_AT = 300
"""cells of a picture whose boxes are compared, the best scored"""
PIXELS, SCORE = 1e-3, 1e-4
"""how far a box and a score may be from the parent's"""
ROUNDED, ROUNDED_SCORE = 1e-2, 5e-4
"""how far they may be off where the same numbers were added in another order: pixels as an event rounds them"""
SAVES = 0.97
"""of the processor time of exact products is what those that saturate have to take, to be worth a trial"""
TURNS, SECONDS = 12, 1.0
"""in which a network and the same one rewritten are timed: so many at least, and more where they are short"""

TOKENS, ORDINARY = 24, 100
"""of the shorter of two texts that both forms are shown; ids that every vocabulary has"""
TOKENS_OFF = 0.02
"""how far what is said of them may be off, of the largest number: what is rounded to 8 bits may fall on either side"""

DYNAMIC = "dynamic-int8"
"""the precision of a network whose products were made int8 here"""
SATURATING = "saturating"
"""behind a name, and before a precision: products of int8 may saturate"""


class Takes(TypedDict, total=False):
    """What the input of a file takes, as its row in the manifest says it."""

    layout: Literal["NCHW", "NHWC"]
    pixels: bool


def derive(question: Derive) -> Result:
    """Write the faster form to `question.out`, and perhaps a second one (see `Derive.places`).

    Their rows stand in the figures as "files". RefusedError when none is made.
    """
    (variant,) = question.variants
    out, source = Path(question.out), Path(variant.path)
    notes: list[str] = []
    family, takes, how = variant.file.family, Takes(), "optimised"
    precision = variant.file.precision
    if question.manifest.task == "detect" and variant.file.family is None:
        try:
            family, most = _cut(question, out)
            how = "cut"
            notes.append(
                f"{variant.file.title()} is stopped before its tail: boxes within {most:.1g} px of the whole one's"
            )
        except ModelError as error:
            notes.append(f"the tail of {variant.file.title()} stays: {str(error).removeprefix(f'{source}: ')}")
    if how == "cut":
        source = out.replace(out.with_suffix(".onnx"))
    if question.manifest.task == "detect" and not os.environ.get(PROVIDERS):
        source, takes = _rewritten(question, source, family, notes)
    elif not os.environ.get(PROVIDERS):
        if (quicker := _dynamic(question, notes)) is not None:
            source, precision, how = quicker, DYNAMIC, "dynamic"
        if question.manifest.text is not None:
            source = _fused(question, source, notes)
    if not os.environ.get(PROVIDERS):
        optimise(source, out)
    elif how == "cut":
        # other processors than the one that it is optimised for may be asked to run it
        source.replace(out)
    else:
        raise RefusedError("there is nothing to make faster")
    made = msgspec.structs.replace(
        variant.file,
        name=f"{Path(variant.file.name).stem}.{how}",
        format="onnx" if os.environ.get(PROVIDERS) else "ort",
        sources=[],
        family=family,
        precision=precision,
        **takes,
    )
    files = [_lies(made, out), *_saturating(question, made, source, notes)]
    return Result(True, notes=notes, figures={"files": msgspec.to_builtins(files)})


def _lies(row: File, path: Path) -> File:
    return msgspec.structs.replace(row, sha256=store.digest(path), bytes=path.stat().st_size)


def _saturating(question: Derive, made: File, source: Path, notes: list[str]) -> list[File]:
    """The form `made` of the network in `source` once more, with products of int8 that may saturate, where they do on
    this processor and are faster than exact ones; `notes` says so.
    """
    out, quick = question.places
    if made.format != "ort" or not saturates() or not _has_int8(source):
        return []
    optimise(source, quick, exact=False)
    title = question.variants[0].file.title()
    second = msgspec.structs.replace(made, name=f"{made.name}.{SATURATING}", precision=f"{SATURATING}-{made.precision}")
    pair = Variant(made, str(out)), Variant(second, str(quick))
    try:
        exact, fast = (stepper(open_served(question.manifest, one, question.parts, 1)) for one in pair)
        share = _share(exact, fast)
    except ModelError as error:
        notes.append(f"{title} has exact products of int8: {error}")
        return []
    told = f"{title} has exact products of int8; with those that saturate on this processor it takes {share:.3f} of the"
    told += " processor time"
    notes.append(told if share < SAVES else f"{told}, so it has no form with them")
    return [_lies(second, quick)] if share < SAVES else []


def _has_int8(path: Path) -> bool:
    """Whether it has matrices or kernels of int8."""
    try:
        return any(tensor.dtype == np.int8 and tensor.ndim > 1 for tensor in Graph(path).tensors.values())
    except (IndexError, ValueError):
        return False


def _cut(question: Derive, out: Path) -> tuple[str, float]:
    """Write the network without its tail to `out`: the family that reads it, and how far its boxes are off."""
    (variant,) = question.variants
    recipe = CUTS.get(question.manifest.family)
    if recipe is None:
        raise RefusedError(f"nobody has written how {question.manifest.family} is cut")
    whole = Cuttable(Path(variant.path))
    found = whole.maps()
    whole.write(out, {name: f"map:{number}" for number, name in enumerate(found)})
    maps = open_net(out, "onnx", 1).outputs
    reason = "no reading of its maps fits its labels"
    asked = _detector(question, Path(variant.path))
    for names in _readings(dict(zip(found, maps, strict=True)), recipe, asked.head.classes):
        whole.write(out, names)
        if recipe.family == "yolov5-maps":
            whole.write(out, names, {"anchors": _anchors(asked, out)})
        try:
            return recipe.family, _same(asked, _detector(question, out, recipe.family))
        except RefusedError as error:
            reason = str(error)
    raise RefusedError(reason)


def _rewritten(question: Derive, source: Path, family: str | None, notes: list[str]) -> tuple[Path, Takes]:
    """The network in `source` rewritten, where that finds the same and is faster; else `source`. `notes` says which.
    With it what its input takes, where that is not what the model's does.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".rewritten.onnx"), variant.file.title()
    reason, takes = "", Takes()
    # to multiply the weights and not the pixels rounds otherwise, which some networks make much of
    for prepared in (input_of(question.manifest, variant.file), None):
        try:
            what = rewrite(source, path, prepared)
            if not what:
                return source, Takes()
            (spec,) = open_net(path, "onnx", 1).inputs
            takes = Takes(layout="NHWC", pixels=spec.dtype == "uint8") if spec.shape[-1] == 3 else Takes()
            made = _detector(question, path, family, takes)
            _same(_detector(question, Path(variant.path)), made, ROUNDED, ROUNDED_SCORE)
            share = _share(_to_outputs(_detector(question, source, family)), _to_outputs(made))
        except ModelError as error:
            reason = str(error).removeprefix(f"{source}: ")
            if takes.get("pixels"):
                continue
            break
        told = f"{title} rewritten ({what}) takes {share:.3f} of its processor time"
        notes.append(told if share < 1 else f"{told}, so it stays as it is")
        return (path, takes) if share < 1 else (source, Takes())
    notes.append(f"{title} is not rewritten: {reason}")
    return source, Takes()


def _dynamic(question: Derive, notes: list[str]) -> Path | None:
    """The network with its products in int8, where it has weights for that, answers alike and is faster; else None.
    `notes` says why not.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".dynamic.onnx"), variant.file.title()
    try:
        if not (count := dynamic(Path(variant.path), path)):
            return None
        row = msgspec.structs.replace(variant.file, precision=DYNAMIC)
        made = Variant(row, str(path))
        parts = question.parts
        verdict = agree(Agree(manifest=question.manifest, variants=[made, variant], parts=parts, parent_parts=parts))
        if not verdict.passed:
            raise RefusedError(verdict.reason)
        before, after = (stepper(open_served(question.manifest, each, question.parts, 1)) for each in (variant, made))
        share = _share(before, after)
    except ModelError as error:
        notes.append(f"{title} keeps its weights widened: {str(error).removeprefix(f'{variant.path}: ')}")
        return None
    told = f"{count} products of {title} done in int8 take {share:.3f} of its processor time ({verdict.notes[0]})"
    notes.append(told if share < 1 else f"{told}, so it stays as it is")
    return path if share < 1 else None


def _fused(question: Derive, source: Path, notes: list[str]) -> Path:
    """The text network in `source` with fewer operators, where that answers the same and is faster; else `source`.
    `notes` says which.
    """
    (variant,) = question.variants
    path, title = Path(question.out).with_suffix(".fused.onnx"), variant.file.title()
    try:
        if not (what := fuse(source, path)):
            return source
        before, after = (
            open_served(question.manifest, Variant(variant.file, str(p)), question.parts, 1) for p in (source, path)
        )
        _same_tokens(before.net, after.net)
        share = _share(stepper(before), stepper(after))
    except ModelError as error:
        notes.append(f"{title} is not fused: {str(error).removeprefix(f'{source}: ')}")
        return source
    told = f"{title} fused ({what}) takes {share:.3f} of its processor time"
    notes.append(told if share < 1 else f"{told}, so it stays as it is")
    return path if share < 1 else source


def _same_tokens(before: Net, after: Net) -> None:
    """RefusedError unless both say the same of two texts, the second half as long and padded where that can be."""
    roles = inputs_of("it", before)
    rows, size = (roles["ids"].shape[0] or 2), (roles["ids"].shape[1] or 2 * TOKENS)
    mask = np.ones((rows, size), np.int64)
    if "mask" in roles:
        mask[-1, size // 2 :] = 0
    ids = np.random.default_rng(0).integers(1, ORDINARY, (rows, size)) * mask
    arrays = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
    feed = {spec.name: arrays[role].astype(spec.dtype) for role, spec in roles.items()}
    theirs, ours = before.run(feed), after.run(feed)
    for name, expected in theirs.items():
        # nobody reads what is said of padding
        seen = mask.astype(bool) if expected.shape[:2] == mask.shape else slice(None)
        off, most = np.abs(ours[name][seen] - expected[seen]).max(), np.abs(expected[seen]).max()
        if not off <= TOKENS_OFF * most:
            raise RefusedError(f"fused, {name} is {off:.2g} off, of numbers up to {most:.2g}")


def _to_outputs(task: Detector) -> Callable[[], object]:
    """A picture up to the network's outputs."""
    picture = next(pictures()).image
    return lambda: task.model.net.run({task.model.net.inputs[0].name: task.prepare(picture)[0]})


def _share(before: Callable[[], object], after: Callable[[], object]) -> float:
    """Processor time of the step `after` over that of the one `before`; taken in turns."""
    took: list[list[float]] = [[], []]
    until = time.monotonic() + SECONDS
    for turn in itertools.count():
        if turn > TURNS and time.monotonic() > until:
            break
        for side in (0, 1) if turn % 2 else (1, 0):
            step = (after, before)[side]
            began = time.thread_time()
            step()
            took[side].append(time.thread_time() - began)
    shares = [ours / theirs for ours, theirs in zip(*took, strict=True)]
    return float(statistics.median(shares[1:]))


def _readings(maps: dict[str, TensorSpec], recipe: CutRecipe, classes: int) -> Iterator[dict[str, str]]:
    """What each tensor may be, as tensor -> role and level: levels by their size, roles by the number of channels."""
    levels: dict[tuple[int, ...], list[str]] = {}
    for name, spec in maps.items():
        if len(spec.shape) != 4 or None in spec.shape:
            raise RefusedError(f"{name} before its tail is no map: {list(spec.shape)}")
        levels.setdefault(tuple(-int(n or 0) for n in spec.shape[2:]), []).append(name)
    ordered = [levels[size] for size in sorted(levels)]
    if any(len(level) != len(recipe.roles) for level in ordered):
        raise RefusedError(f"it has {[len(level) for level in ordered]} maps a level, {len(recipe.roles)} are known")
    for roles in itertools.permutations(recipe.roles):
        pairs = [(name, role, n) for n, level in enumerate(ordered) for name, role in zip(level, roles, strict=True)]
        if all(_fits(recipe, role, int(maps[name].shape[1] or 0), classes) for name, role, _ in pairs):
            yield {name: f"{role}{level}" for name, role, level in pairs}


def _fits(recipe: CutRecipe, role: str, channels: int, classes: int) -> bool:
    if role == "all":
        return channels % (5 + classes) == 0 if recipe.family == "yolov5-maps" else (channels - classes) % 4 == 0
    return {"boxes": channels % 4 == 0, "objects": channels == 1, "classes": channels == classes}[role]


# ── against the whole network ────────────────────────────────────────────────────────────────────────────


def _detector(question: Derive, path: Path, family: str | None = None, takes: Takes | None = None) -> Detector:
    """The task on the network in `path`; `family`: whose decoder reads it, `takes`: what its input does, where they are
    not the model's.
    """
    file = question.variants[0].file
    row: File = msgspec.structs.replace(file, family=family, **(takes or {}))
    model = open_served(question.manifest, Variant(row, str(path)), question.parts, 1)
    task = make_task(Uri("detect", model.ref.name), lambda _: model, home())
    assert isinstance(task, Detector)
    return task


def _cells(task: Detector, frame: Frame) -> Candidates:
    """What it says of each cell, whatever the score."""
    tensor, _ = task.prepare(frame.image)
    return task.family.decode(task.model.net.run({task.model.net.inputs[0].name: tensor}), task.head, 0.0)


def _same(whole: Detector, cut: Detector, pixels: float = PIXELS, points: float = SCORE) -> float:
    """The largest difference between the boxes of the two, pixels of the canvas; RefusedError above `pixels`, where
    scores are more than `points` apart, or where classes are not alike.
    """
    most, compared = 0.0, 0
    for frame in itertools.islice(pictures(), SHOWN):
        one, other = _cells(whole, frame), _cells(cut, frame)
        if len(one.score) != len(other.score):
            raise RefusedError(f"its maps have {len(other.score)} cells, the whole network has {len(one.score)}")
        best = np.argsort(-one.score, kind="stable")[:LOOKED_AT]
        compared += len(best)
        score = float(np.abs(one.score[best] - other.score[best]).max(initial=0))
        box = float(np.abs(one.xyxy[best] - other.xyxy[best]).max(initial=0))
        if not (score <= points and box <= pixels):
            raise RefusedError(f"without it boxes are {box:.2g} px and scores {score:.2g} off")
        # below, and where a sigmoid has no digits left above, any class is as good as another
        clear = (one.score[best] > 100 * SCORE) & (one.score[best] < 1 - SCORE)
        if (one.label[best] != other.label[best])[clear].any():
            raise RefusedError("without it other classes come out")
        most = max(most, box)
    if not compared:
        raise RefusedError("it finds nothing at all in the pictures, so that nothing can be compared")
    return most


def _anchors(whole: Detector, out: Path) -> list[float]:
    """Width and height of each anchor, pixels, level by level: the whole network's boxes over what the maps hold."""
    tensor, _ = whole.prepare(next(pictures()).image)
    net = open_net(out, "onnx", 1)
    maps = net.run({net.inputs[0].name: tensor})
    boxes = whole.family.decode(whole.model.net.run({whole.model.net.inputs[0].name: tensor}), whole.head, 0.0).xyxy
    sizes, anchors, at = boxes[:, 2:] - boxes[:, :2], [], 0
    for level in range(len(maps)):
        rows = maps[f"all{level}"].reshape(-1, 5 + whole.head.classes, maps[f"all{level}"][0, 0].size)
        for row in rows:
            share = (sigmoid(row[2:4].T) * 2) ** 2
            anchors += np.median(sizes[at : at + len(share)] / share, axis=0).tolist()
            at += len(share)
    return anchors
