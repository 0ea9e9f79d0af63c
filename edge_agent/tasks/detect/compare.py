"""How two detectors are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_agent.errors import InputError, ModelError, RefusedError
from edge_agent.figures.coco_map import Flags, FoundBoxes, Truth, average_precision, iou, match
from edge_agent.figures.interval import Figure, share
from edge_agent.figures.scores import Doubles
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import frames, pictures
from edge_agent.samples.labelled import labelled
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import LOW, STEP, Measure, least_of, margin
from edge_agent.types import Detections, Finding, Frame, Sample
from edge_agent.uri import Uri

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


def compare(one: Served, other: Served) -> tuple[float, int, str]:
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
    sure = _at_least(seen, its + margin(its))
    figures = [(average_precision(truth_of(seen, its), held, ids).figures()["map50"], "mAP50")]
    # mAP50 looks at the order of the scores alone, and at the classes of the parent's boxes alone
    reported = _best(sure, _at_least(mine, asked))[0] >= MET
    figures.append(_kept(reported, "sure boxes of its parent that it reports"))
    known = _best(_at_least(mine, asked + margin(asked) / 2), seen)[0] >= MET
    figures.append(_kept(known, "boxes of its own that its parent sees"))
    count, most = len(_at_least(all_mine, asked).score), len(_at_least(all_theirs, its / 2).score) + BY_CHANCE
    figures.append((min(1.0, most / max(1, count)), f"boxes in number ({count} where its parent may see {most})"))
    figures += [_overlap(sure, held), *_faint(_at_least(all_theirs, FAINT), all_mine, _pixels(one, other))]
    figures += _on_labels(one, other)
    value, name = least_of(figures)
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
    found = []
    for frame in shown:
        (finding,) = task(frame)
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        found.append(finding.what)
    return as_columns(found, ids)


def as_columns(found: Sequence[Detections], ids: Mapping[int, int]) -> FoundBoxes:
    """What was found in each picture as figures are made of it, under the ids that the classes are mapped to; boxes of
    other classes are left out.
    """
    image = np.repeat(np.arange(len(found)), [len(one) for one in found])
    label, xyxy, score = (np.concatenate([getattr(one, key) for one in found]) for key in ("label", "xyxy", "score"))
    keep = np.isin(label, list(ids))
    xywh = np.concatenate([xyxy[keep, :2], xyxy[keep, 2:] - xyxy[keep, :2]], axis=1).astype(np.float64)
    known = np.array([ids[int(key)] for key in label[keep]], np.int64)
    return FoundBoxes(image[keep], known, xywh, score[keep].astype(np.float64))


def measure(parent: Served, shown: Sequence[Sample]) -> Measure:
    """mAP50 with the parent's boxes as the truth. InputError where it finds nothing."""
    frames = [item for item in shown if isinstance(item, Frame)]
    names, lowest = parent.manifest.names(), parent.manifest.score
    truth = truth_of(boxes(parent, frames, lowest / 2, {key: key for key in names}), lowest)
    if not np.isfinite(truth.area).any():
        raise InputError(
            f"{parent.manifest.name} finds nothing in {len(frames)} pictures, so no change of it would show; give "
            "pictures of what it detects"
        )

    def measured(candidate: Served) -> Figure:
        ids = _same_names(candidate, names)
        try:
            found = boxes(candidate, frames, LOW, ids)
        except (InputError, ModelError):
            # numbers that are none: a broken quantization
            return share([False] * len(frames))
        return match(truth, found, sorted(set(ids.values()))).figure(len(frames), "map50")

    return measured
