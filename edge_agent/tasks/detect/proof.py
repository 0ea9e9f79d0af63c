"""How a detector proves itself, and how two of them are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.figures.coco_map import Flags, FoundBoxes, Truth, average_precision, iou
from edge_agent.figures.scores import Doubles
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.shown import PICTURES, frames, labelled, pictures, scenes, thing_of, whole_scene
from edge_agent.tasks import make_task
from edge_agent.tasks.detect.detect import Detector
from edge_agent.tasks.detect.places import in_places, there
from edge_agent.tasks.proofs import LOW, STEP, Recorder, _constant, _least, _margin
from edge_agent.types import Detections, Finding, Frame
from edge_agent.uri import Uri

EXPECTED = 0.1
"""score at which something that is in a picture counts as seen"""
SURE = 0.5
"""score of a wrong name, which no sound model was seen to give to two different things"""
FEW = 3
"""classes that may be seen better in a picture than what is in it"""
MANY_CLASSES, COMMON, IN_TWO, ALL = 5, 0.4, 0.7, 0.9
"""from so many classes on, one that reaches COMMON in three pictures that have nothing in common, or IN_TWO in two of
them, is seen everywhere: of sound models none was measured above 0.09 and 0.36; of fewer classes, one that reaches ALL
in them and in noise
"""
CLIPPED = 0.1
"""share of box coordinates at an end of the scale from which on boxes are clipped; of sound heads it is below 0.001"""


def _detector(model: Served, seen: Recorder) -> list[str]:
    task = make_task(Uri("detect", model.ref.name, {"score": str(LOW)}), lambda _: model, home())
    assert isinstance(task, Detector)
    found = {}
    for name, frame in frames().items():
        try:
            (finding,) = task(frame)
        except EdgeAgentError as error:
            raise RefusedError(f"on the proof picture {name}: {error}") from None
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        found[name] = finding.what
    nothing = not any(len(what) for what in found.values())
    # a head that suppresses in the graph gives zeros when it finds nothing
    if _constant(seen) and (task.family.nms or not nothing):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    if task.family.nms or model.manifest.family.startswith("end2end"):
        _one_scale(seen)
    _placed([task.family.decode(outputs, task.head, LOW).xyxy for outputs in seen.outputs], model)
    names = {thing_of(name) or name.casefold(): key for key, name in model.manifest.names().items()}
    notes: list[str] = []
    for name, what in found.items():
        best = [f"{what.names[int(what.label[i])]} {what.score[i]:.2f}" for i in range(min(3, len(what)))]
        notes.append(f"{name}: {', '.join(best) or 'nothing'}")
    known = {picture: names[thing] for picture, thing in PICTURES.items() if thing in names}
    _everywhere(found)
    right = [picture for picture, key in known.items() if _near_the_top(found[picture], key)]
    # one class may be meant more narrowly than its name says
    doubts = _in_places(task, found, notes[:3])
    if known and not right:
        things = ", ".join(PICTURES[picture] for picture in known)
        why = f"it names {things}, but sees none of it where it is in the proof pictures ({'; '.join(notes[:3])})"
        # one class may be meant more narrowly than its name says
        if len(known) > 1:
            raise RefusedError(f"{why}: wrong colours, scale, layout or labels in its manifest, or a broken conversion")
        notes.append(f"doubtful: {why}")
    return [*notes, *doubts]


def _near_the_top(what: Detections, key: int) -> bool:
    """Whether a class is seen, and few others are seen better."""
    best = {int(label): float(what.score[what.label == label].max()) for label in set(what.label.tolist())}
    score = best.get(key, 0.0)
    return score >= EXPECTED and sum(other > score for other in best.values()) < FEW


def _everywhere(found: dict[str, Detections]) -> None:
    """RefusedError for a class that is in most pictures, which have nothing in common; of few classes, in noise too."""
    ids = {int(label) for what in found.values() for label in what.label}
    many = len(next(iter(found.values())).names) >= MANY_CLASSES
    for key in sorted(ids):
        scores = {name: float(what.score[what.label == key].max(initial=0.0)) for name, what in found.items()}
        least, second = sorted(score for name, score in scores.items() if name != "noise" or not many)[:2]
        if least >= (COMMON if many else ALL) or (many and second >= IN_TWO):
            label = next(iter(found.values())).names[key]
            told = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
            why = f"it sees {label} in pictures that have nothing in common ({told})"
            raise RefusedError(f"{why}: a broken conversion, or damaged")


def _in_places(task: Detector, whole: dict[str, Detections], notes: list[str]) -> list[str]:
    """Notes; RefusedError where what it names is seen, but elsewhere than it is, or where two different things have one
    wrong name: in the carried pictures and where these are put together.
    """
    named = {thing for name in task.names.values() if (thing := thing_of(name))}
    shown = scenes()
    known = [thing for thing, _ in shown[0].things if thing in named]
    found = []
    for scene in shown:
        (finding,) = task(scene.frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        found.append(finding.what)
    scores, wrong = in_places(found, shown, known) if known else ({}, 0)
    placed = sum(score > 0 for some in scores.values() for score in some)
    seen = f"({'; '.join(notes[:3])})"
    if wrong > placed:
        why = f"it sees {', '.join(known)} {wrong} times where none is, and {placed} times where one is"
        if len(known) == 1:
            return [f"doubtful: {why}"]
        raise RefusedError(f"{why} {seen}: wrong family, size or layout in its manifest, or a broken conversion")
    alone = [(whole[name], whole_scene(name)) for name in PICTURES]
    called: dict[str, set[str]] = {}
    for what, scene in [*alone, *zip(found, shown, strict=True)]:
        for thing, where in scene.things:
            score, name = there(what, where)
            if thing in known and score >= SURE and thing_of(name) != thing:
                called.setdefault(name, set()).add(thing)
    for name, things in called.items():
        if len(things) > 1:
            raise RefusedError(
                f"it calls {' and '.join(sorted(things))} {name} {seen}: a broken conversion, or damaged"
            )
    return []


def _one_scale(seen: Recorder) -> None:
    """RefusedError when boxes and scores stand in one tensor that was quantized with one scale, which clips the boxes.

    Such a tensor holds at most 256 different numbers, all of them whole multiples of one step, and its coordinates
    heap up at the ends; seen in the run, so that it is found behind a dequantizing last operator too.
    """
    for name in seen.outputs[0]:
        arrays = [outputs[name] for outputs in seen.outputs if outputs[name].ndim == 3]
        if not arrays or min(arrays[0].shape[1:]) < 6:
            continue
        levels = np.unique(np.concatenate([np.unique(array) for array in arrays]))
        if not 2 <= len(levels) <= 256:
            continue
        step = float(np.diff(levels).min())
        places = (levels - levels[0]) / step
        if places[-1] > 255.5 or np.abs(places - places.round()).max() > 0.01:
            continue
        boxes = np.concatenate([_coordinates(array).ravel() for array in arrays])
        scores = np.concatenate([_others(array).ravel() for array in arrays])
        low, high = float(levels[0]), float(levels[-1])
        clipped = float(((boxes == low) | (boxes == high)).mean())
        scale = f'its output "{name}" has one int8 scale ({step:.3g}) for boxes and scores'
        if clipped > CLIPPED:
            raise RefusedError(
                f"{scale}, so boxes clip: {clipped:.0%} of the coordinates are at {low:.3g} or {high:.3g}; "
                "convert it with the boxes and the scores as two outputs, or with a float output"
            )
        if not scores.any():
            raise RefusedError(f"{scale}, so every score becomes 0; convert it with boxes and scores as two outputs")


def _coordinates(array: Any) -> Any:
    """The four box numbers of each point: the shorter of the two axes holds what is said about a point."""
    return array[:, :, :4] if array.shape[2] < array.shape[1] else array[:, :4]


def _others(array: Any) -> Any:
    return array[:, :, 4:] if array.shape[2] < array.shape[1] else array[:, 4:]


def _placed(boxes: list[Any], model: Served) -> None:
    """RefusedError when the boxes found cannot be meant: off the picture, of no size, or one and the same."""
    assert model.input is not None
    wide, high = model.input.width, model.input.height
    xyxy = np.concatenate(boxes)
    if len(xyxy) < 2:
        return
    centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    off = ((centre < 0) | (centre > (wide, high))).any(axis=1).mean()
    flat = (size < 0.5).any(axis=1).mean()
    if off > 0.5:
        raise RefusedError(
            f"{off:.0%} of the {len(xyxy)} boxes in the proof pictures lie outside: wrong family or size"
        )
    if flat > 0.5:
        raise RefusedError(f"{flat:.0%} of the {len(xyxy)} boxes in the proof pictures have no area: wrong family")
    if len(xyxy) >= 10 and len(np.unique(xyxy.round(), axis=0)) == 1:
        raise RefusedError(f"all {len(xyxy)} boxes in the proof pictures are the same one")


MET = 0.5
"""IoU from which on two boxes of a class are the same"""
FAINT = 0.01
"""score from which on a parent's box is a candidate, whatever the parent would report"""
KEPT = 0.75
"""share of its parent's candidates that a sound variant has; sound int8 ones were measured to have 0.88 and more, dead,
faint and half blind ones 0.59 and less; at another size 0.86 to 1.7 times the share of the pixels"""
OVERLAP = 0.88
"""mean IoU with its parent's boxes that a sound variant has; measured: 0.93 and more"""
BY_CHANCE = 2
"""boxes that may be missed, or be too many, by chance: where there are few, one decides nothing"""


def _detectors(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of these, over the classes that both name: mAP50 of `one` with the boxes of `other` as the truth; what
    each reports of the other's boxes, and how many there are, in noise too; how well they lie; what is left of the
    other's faint boxes; and, where people drew boxes in recorded pictures, 1 less what `one` loses of the other's mAP50
    on these. And the pictures, and which it is.
    """
    shown = [*pictures(), frames()["noise"]]
    shared = _same_names(one, other.manifest.names())
    if not shared:
        raise RefusedError(f"it has no class in common with its parent {other.manifest.name}")
    ids = sorted(set(shared.values()))
    asked, its = one.manifest.score, other.manifest.score
    all_mine = boxes(one, shown, min(FAINT / 10, asked), shared)
    all_theirs = boxes(other, shown, min(FAINT, its / 2), {key: key for key in ids})
    # the noise is no picture of anything: it only has to be as quiet
    mine, theirs = (_where(found, found.image < len(shown) - 1) for found in (all_mine, all_theirs))
    held, seen = _at_least(mine, min(LOW, asked)), _at_least(theirs, its / 2)
    sure = _at_least(seen, its + _margin(its))
    figures = [(average_precision(truth_of(seen, its), held, ids).figures()["map50"], "mAP50")]
    # mAP50 looks at the order of the scores alone, and at the classes of the parent's boxes alone
    reported = _best(sure, _at_least(mine, asked))[0] >= MET
    figures.append(_kept(reported, "sure boxes of its parent that it reports"))
    known = _best(_at_least(mine, asked + _margin(asked) / 2), seen)[0] >= MET
    figures.append(_kept(known, "boxes of its own that its parent sees"))
    count, most = len(_at_least(all_mine, asked).score), len(_at_least(all_theirs, its / 2).score) + BY_CHANCE
    figures.append((min(1.0, most / max(1, count)), f"boxes in number ({count} where its parent may see {most})"))
    figures += [_overlap(sure, held), *_faint(_at_least(all_theirs, FAINT), all_mine, _pixels(one, other))]
    figures += _on_labels(one, other)
    value, name = _least(figures)
    return value, len(shown) - 1, name


def _kept(met: Flags, name: str, enough: float = 1.0) -> tuple[float, str]:
    """Share of what is met, 1 from `enough` on, and its name with the counts; NaN for none.

    A few of it may be missed by chance: where there are 19 boxes, one at the threshold is 0.05 of them.
    """
    n, kept = len(met), int(met.sum())
    share = min(1.0, (kept + BY_CHANCE) / n / enough) if n else float("nan")
    return share, f"{name} ({kept} of {n})"


def _overlap(sure: FoundBoxes, held: FoundBoxes) -> tuple[float, str]:
    """How well the boxes lie that meet the parent's sure ones: 1 from a mean IoU of OVERLAP on; and its name."""
    overlap = _best(sure, held)[0]
    overlap = overlap[overlap >= MET]
    # one box alone may lie badly, by chance: as many as may be missed count as if they lay well
    mean = float((overlap.sum() + BY_CHANCE) / (len(overlap) + BY_CHANCE)) if len(overlap) else float("nan")
    return float(np.minimum(1.0, mean / OVERLAP)), f"overlap with sure boxes of its parent (mean IoU {mean:.3f})"


def _pixels(one: Served, other: Served) -> float:
    """Pixels of the input of one of the two over those of the other, at most 1."""
    assert one.input is not None and other.input is not None
    mine, theirs = (spec.width * spec.height for spec in (one.input, other.input))
    return min(mine / theirs, theirs / mine)


def _faint(theirs: FoundBoxes, mine: FoundBoxes, pixels: float) -> list[tuple[float, str]]:
    """What is left of all that the parent sees, whatever it would report of it: of the boxes, and of the classes that
    have more than a few; and the names of that.

    The sealed pictures may show nothing of what a model is for. What it takes for that at a hundredth tells all the
    same whether a variant is dead, faint, or blind to some classes. Half the score will do, less a step of int8. Of
    another input size with this share of the `pixels`, as large a share will do: most of it is small.
    """
    met = _best(theirs, mine)[1] >= np.maximum(theirs.score / 2 - STEP, STEP / 10)
    labels, which, count = np.unique(theirs.label, return_inverse=True, return_counts=True)
    seen = np.bincount(which, met, len(labels))[count >= 2 * BY_CHANCE] > 0
    share = float(seen.mean()) if seen.size else float("nan")
    told = f"classes in faint boxes of its parent that it sees ({seen.sum()} of {len(seen)})"
    return [_kept(met, "faint boxes of its parent that it sees", KEPT * pixels), (share, told)]


def truth_of(found: FoundBoxes, score: float) -> Truth:
    """What a model finds as the truth that another one is held against.

    Boxes from `score` on, which it would report, count; what lies below that is set aside, like truth outside the range
    of areas: to find it is neither right nor wrong. Without that, one box at the threshold turns the figure of a class
    with few boxes over.
    """
    area = np.where(found.score < score, np.inf, found.xywh[:, 2] * found.xywh[:, 3])
    return Truth(found.image, found.label, found.xywh, area, np.zeros(len(area), bool))


def _at_least(found: FoundBoxes, score: float) -> FoundBoxes:
    return _where(found, found.score >= score)


def _where(found: FoundBoxes, keep: Flags) -> FoundBoxes:
    return FoundBoxes(found.image[keep], found.label[keep], found.xywh[keep], found.score[keep])


def _best(boxes: FoundBoxes, others: FoundBoxes) -> tuple[Doubles, Doubles]:
    """Of each of `boxes`: the greatest IoU with one of `others` of the same class and picture, and the greatest score
    of those that meet it; 0 for none.
    """
    overlap, score = np.zeros(len(boxes.score)), np.zeros(len(boxes.score))
    for image in np.unique(boxes.image):
        mine, theirs = np.flatnonzero(boxes.image == image), np.flatnonzero(others.image == image)
        both = iou(boxes.xywh[mine], others.xywh[theirs], np.zeros(len(theirs), bool))
        both = both * (boxes.label[mine][:, None] == others.label[theirs])
        overlap[mine] = both.max(1, initial=0.0)
        score[mine] = np.where(both >= MET, others.score[theirs], 0.0).max(1, initial=0.0)
    return overlap, score


def _on_labels(one: Served, other: Served) -> list[tuple[float, str]]:
    """1 less what `one` loses of the other's mAP50 on the boxes that people drew, and what that is; [] for no such."""
    found = labelled()
    if found is None:
        return []
    frames, truth, names = found
    # over the classes that both know: what one of them has never heard of says nothing about the other
    theirs, mine = _same_names(other, names), _same_names(one, names)
    both = sorted(set(theirs.values()) & set(mine.values()))
    if not both:
        return []
    reached = [
        average_precision(truth, boxes(model, frames, LOW, ids), both).figures()["map50"]
        for model, ids in ((one, mine), (other, theirs))
    ]
    told = f"mAP50 kept on {len(truth.label)} labelled boxes ({reached[0]:.3f} of {reached[1]:.3f})"
    return [(1 - max(0.0, reached[1] - reached[0]), told)]


def _same_names(model: Served, names: Mapping[int, str]) -> dict[int, int]:
    """Class id of the model -> id of the class of the same name."""
    known = {name.casefold(): key for key, name in names.items()}
    own = model.manifest.names()
    return {key: known[name.casefold()] for key, name in own.items() if name.casefold() in known}


def boxes(model: Served, shown: list[Frame], score: float, ids: dict[int, int]) -> FoundBoxes:
    """All boxes of the classes in `ids`, under the ids that these are mapped to."""
    task = make_task(Uri("detect", model.ref.name, {"score": str(score)}), lambda _: model, home())
    columns = []
    for number, frame in enumerate(shown):
        (finding,) = task(frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        what = finding.what
        keep = np.isin(what.label, list(ids))
        xywh = np.concatenate([what.xyxy[keep, :2], what.xyxy[keep, 2:] - what.xyxy[keep, :2]], axis=1)
        label = np.array([ids[int(key)] for key in what.label[keep]], np.int64)
        image = np.full(len(label), number, np.int64)
        columns.append(FoundBoxes(image, label, xywh.astype(np.float64), what.score[keep].astype(np.float64)))
    parts = [(c.image, c.label, c.xywh, c.score) for c in columns]
    return FoundBoxes(*(np.concatenate(column) for column in zip(*parts, strict=True)))
