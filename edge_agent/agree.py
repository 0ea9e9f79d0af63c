"""Does a variant (int8, fp16, pruned, another runtime) answer as its parent does? Runs in the child of prove.py.

The samples are sealed: the carried pictures, each also mirrored, darkened and cut, or everyday sentences; and what
the device itself recorded under HOME/samples.

The least of some figures decides, each of them 1 for a variant that answers alike. Detectors: mAP50 of the variant's
boxes against the parent's (those that the parent would report), what each reports of the other's boxes, how many and
how well they lie, what is left of the parent's faint boxes, and what it loses on labels where
HOME/samples/instances.json has some. Encoders: the correlation of the cosines of all pairs of sentences, agreement and
F1 of the labels that heads fitted on each give, and how near the vectors are to the parent's, of long texts too. Text
classifiers and taggers: agreement and F1 of their labels, or of their tags and spans. Classifiers of pictures: how
often the first label is the same, and sure enough. All three: how far the shares of the labels go up and down with the
parent's. Autoencoders: the rank correlation of the reconstruction errors, and how many are of the parent's size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from operator import itemgetter
from typing import TypeVar

import numpy as np

from edge_agent.errors import ModelError, RefusedError
from edge_agent.figures.coco_map import Flags, FoundBoxes, Truth, average_precision, iou
from edge_agent.figures.scores import Doubles, accuracy, macro_f1, pearson, similarities, spearman
from edge_agent.manifest import Served
from edge_agent.proof import LOW, open_served
from edge_agent.prove import Result, Trial
from edge_agent.registry import carried, home
from edge_agent.shown import frames, labelled, paragraphs, pictures, sentences, windows
from edge_agent.tasks import PLAIN, make_task
from edge_agent.tasks.encoder import Encoder, encoder
from edge_agent.tasks.head import fit
from edge_agent.tasks.texthead import TextHead, joined, text_head
from edge_agent.tasks.understand import read_labels
from edge_agent.types import Anomaly, Detections, Finding, Floats, Frame, Sample, Scores, Uri

Reader = TypeVar("Reader", Encoder, TextHead)

OF_SIZE = 1.5
"""times its parent's, or that part of it, is a variant's reconstruction error"""
MET = 0.5
"""IoU from which on two boxes of a class are the same"""
FAINT = 0.01
"""score from which on a parent's box is a candidate, whatever the parent would report"""
STEP = 1 / 256
"""of scores that come out as int8"""
KEPT = 0.75
"""share of its parent's candidates that a sound variant has; sound int8 ones were measured to have 0.88 and more, dead,
faint and half blind ones 0.59 and less; at another size 0.86 to 1.7 times the share of the pixels"""
OVERLAP = 0.88
"""mean IoU with its parent's boxes that a sound variant has; measured: 0.93 and more"""
NEAR = 0.9
"""cosine with its parent's vectors that a sound variant has; measured: 0.99 and more"""
FOLLOWS = 0.6
"""slope of its log shares over its parent's that a sound variant has, or its reciprocal; measured: 0.8 to 1"""
LITTLE = 0.05
"""standard deviation of log shares that says nothing"""
BY_CHANCE = 2
"""boxes that may be missed, or be too many, by chance: where there are few, one decides nothing"""


def agree(trial: Trial) -> Result:
    """How far the first variant agrees with the second. Refused below 1 - max_drop of the manifest."""
    assert trial.manifest is not None
    variant, parent = trial.variants
    one = open_served(trial.manifest, variant, trial.parts, trial.threads)
    other = open_served(trial.parent or trial.manifest, parent, trial.parent_parts, trial.threads)
    agreement, count, measure = _COMPARED[trial.manifest.task](one, other)
    figures = {"agreement": agreement, "measure": measure, "samples": count, "parent": parent.file.title()}
    figures["max_drop"] = trial.manifest.max_drop
    if np.isnan(agreement):
        note = f"not compared: its parent {parent.file.title()} has nothing to say about {count} samples"
        return Result(True, notes=[note], figures={**figures, "agreement": None})
    told = f"{measure} {agreement:.3f} against {parent.file.title()} on {count} samples"
    if agreement < 1 - trial.manifest.max_drop:
        least = f"at least {1 - trial.manifest.max_drop:.3f} is asked for"
        return Result(False, f"it does not agree with its parent: {told}, {least}", figures=figures)
    return Result(True, notes=[told], figures=figures)


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


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


def _margin(score: float) -> float:
    """How far above a threshold a score is sure: half of it again, or half way to 1."""
    return min(score, 1 - score) / 2


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


def _least(figures: list[tuple[float, str]]) -> tuple[float, str]:
    """The least figure and its name, the first of equals; NaN only where all are."""
    return min([figure for figure in figures if not np.isnan(figure[0])] or figures, key=itemgetter(0))


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


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoders(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: correlation of the cosines of all pairs of sentences; how often heads that are fitted on each say
    the same of them, and the F1 of that; and, where the vectors are as long, how near they are to the other's, of
    sentences and of long texts. And the sentences, and which it is.
    """
    readers = encoder(one), encoder(other)
    shown = sentences()
    long = _long(*readers, shown, Encoder.embed)
    examples = read_labels(carried("deploy", "demo", "intents.toml"))[1]
    taught = [text for texts in examples.values() for text in texts[::2]]
    asked = [text for texts in examples.values() for text in texts[1::2]] + shown
    y = np.repeat(np.arange(len(examples)), [len(texts[::2]) for texts in examples.values()])
    cosines, said, units = [], [], []
    for made in readers:
        vectors = made.embed_many(shown + long)
        units.append(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
        cosines.append(similarities(units[-1][: len(shown)]))
        # of the vectors alone: a head that also counts words would hide what became of them
        head = fit(made.embed_many(taught), y, tuple(examples))
        scores = [head(vector) for vector in made.embed_many(asked)]
        said.append([max(score, key=score.__getitem__) for score in scores])
    mine, theirs = said
    figures = [(_correlation(pearson, *cosines), "correlation"), (accuracy(theirs, mine), "agreement of the labels")]
    figures.append((macro_f1(theirs, mine), "F1 of the labels"))
    if units[0].shape == units[1].shape:
        near = (units[0] * units[1]).sum(axis=1).astype(np.float64)
        figures.append(_near(float(near[: len(shown)].mean()), "sentences"))
        figures += [_near(float(near[len(shown) :].min()), "long texts")] if long else []
    value, name = _least(figures)
    return value, len(asked), name


def _near(cosine: float, of: str) -> tuple[float, str]:
    """How near vectors are to the parent's, 1 from a cosine of NEAR on, and its name."""
    return min(1.0, max(0.0, cosine / NEAR)), f"nearness of {of} (cosine {cosine:.3f})"


def _long(one: Reader, other: Reader, shown: list[str], answer: Callable[[Reader, list[int]], object]) -> list[str]:
    """The long texts that the other can answer: its max_length may say more than it takes. RefusedError where `one`
    reads fewer word pieces of these, or of the texts `shown`.
    """
    texts, most = [], max(len(other.read(text)) for text in shown)
    for text in paragraphs():
        ids = other.read(text)
        with suppress(ModelError):
            answer(other, ids)
            texts.append(text)
            most = max(most, len(ids))
    if one.length < most:
        raise RefusedError(
            f"it reads {one.length} word pieces of a text, its parent {most}; convert it with as many, or have both "
            f"read {one.length}: max_length under [text]"
        )
    return texts


# ── texts with labels, and with tags ─────────────────────────────────────────────────────────────────────


def _labellers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the label of a sentence is the same, the F1 of that, and how far the shares follow the
    other's. And the sentences, and which it is.
    """
    _same_labels(one, other)
    shown, heads = sentences(), (text_head(one), text_head(other))
    read = shown + _long(*heads, shown, TextHead.shares)
    shares = [np.stack([head.shares(head.read(text)) for text in read]) for head in heads]
    mine, theirs = ([heads[0].labels[i] for i in some[: len(shown)].argmax(axis=1)] for some in shares)
    figures = [(accuracy(theirs, mine), "agreement of the labels"), (macro_f1(theirs, mine), "F1 of the labels")]
    value, name = _least([*figures, _follows(*shares)])
    return value, len(shown), name


def _taggers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the tag of a word is the same, and, where the parent marks any, F1 of the spans; and how
    far the shares follow the other's.
    """
    _same_labels(one, other)
    shown, heads = sentences(), (text_head(one), text_head(other))
    read = shown + _long(*heads, shown, TextHead.shares)
    tags = [[head.tags(text) for text in shown] for head in heads]
    mine, theirs = ([tag for text in told for _, _, tag, _ in text] for told in tags)
    spans = [{(i, *span[:3]) for i, text in enumerate(told) for span in joined(text)} for told in tags]
    figures = [(accuracy(theirs, mine), "agreement of the tags")]
    if spans[1]:
        figures.append((2 * len(spans[0] & spans[1]) / (len(spans[0]) + len(spans[1])), "F1 of the spans"))
    shares = [np.concatenate([head.shares(head.read(text)) for text in read]) for head in heads]
    value, name = _least([*figures, _follows(*shares)])
    return value, len(shown), name


def _follows(mine: Floats, theirs: Floats) -> tuple[float, str]:
    """How far the shares of labels, (n, C) each, go up and down with the other's from sample to sample, and its name.

    The slope of the one's log shares over the other's, less what a sample and a label have in the mean: 0 for a variant
    that says the same of everything, which agrees on all labels with a parent that finds nothing in these samples; and
    1 from FOLLOWS up to its reciprocal. A parent that hardly varies asks for nothing.
    """
    least = max(_least_share(mine), _least_share(theirs))
    a, b = (np.log(np.maximum(shares.astype(np.float64), least)) for shares in (mine, theirs))
    a, b = (logs - logs.mean(1, keepdims=True) for logs in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    little = a.size * LITTLE**2
    slope = float((a * b).sum() + little) / float((b * b).sum() + little)
    value = min(slope, 1 / slope) if slope > 0 else 0.0
    return min(1.0, value / FOLLOWS), f"following of the shares (slope {slope:.3f})"


def _least_share(shares: Floats) -> float:
    """The smallest of these that says something: the smallest at all of int8, and of a softmax that rounds to 0."""
    steps = shares / np.float32(STEP)
    coarse = (shares <= 0).any() or np.array_equal(steps, np.rint(steps))
    return float(np.clip(shares[shares > 0].min(), 1e-12, STEP)) if coarse else 1e-12


def _same_labels(one: Served, other: Served) -> None:
    if one.manifest.labels != other.manifest.labels:
        raise RefusedError(f"its labels are not those of its parent {other.manifest.name}")


# ── classifiers of pictures ──────────────────────────────────────────────────────────────────────────────


def _recognisers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: share of the pictures with the same first label; of those that the other is sure of, the share that
    `one` names alike, surely enough to report it; how far the shares follow the other's. And the pictures, and which it
    is.
    """
    _same_labels(one, other)
    shown, its = list(pictures()), other.manifest.score
    options = {"score": "0", "top": "1000"}
    mine, theirs = (
        [what for what in answers(model, shown, options) if isinstance(what, Scores)] for model in (one, other)
    )
    same = np.array([a.label == b.label for a, b in zip(mine, theirs, strict=True)])
    said = same & np.array([what.score >= one.manifest.score for what in mine])
    sure = np.array([what.score >= its + _margin(its) for what in theirs])
    figures = [(float(same.mean()), "agreement of the first label")]
    figures.append((float(said[sure].mean()) if sure.any() else float("nan"), "share of its parent's sure labels"))
    labels = sorted({label for what in (*mine, *theirs) for label in what.scores})
    shares = [
        np.array([[what.scores.get(label, 0.0) for label in labels] for what in some], np.float32)
        for some in (mine, theirs)
    ]
    value, name = _least([*figures, _follows(*shares)])
    return value, len(shown), name


# ── autoencoders ─────────────────────────────────────────────────────────────────────────────────────────


def _anomalies(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: rank correlation of the reconstruction errors, as their order says what is unusual; and, as a limit
    is set to what the parent gives, how many are of its size. And the samples, and which it is.
    """
    shown: Sequence[Sample] = list(pictures()) if other.input is not None else windows(other)
    mine, theirs = (
        np.array([what.error for what in answers(model, shown) if isinstance(what, Anomaly)]) for model in (one, other)
    )
    # next to errors of nothing a rounding is many times as much
    least = max(float(np.median(theirs)) / 10, 1e-30)
    ratio = (mine + least) / (theirs + least)
    alike = float(((ratio <= OF_SIZE) & (ratio >= 1 / OF_SIZE)).mean())
    figures = [(_correlation(spearman, mine, theirs), "rank correlation of the errors")]
    value, name = _least([*figures, (alike, "share of errors of its parent's size")])
    return value, len(shown), name


def _correlation(measure: Callable[[Doubles, Doubles], float], mine: Doubles, theirs: Doubles) -> float:
    """`measure`; 0 where only the parent's answers vary: it says nothing of what the parent tells apart."""
    return 0.0 if np.ptp(mine) == 0 < np.ptp(theirs) else measure(mine, theirs)


def answers(model: Served, shown: Sequence[Sample], options: Mapping[str, str] = {}) -> list[object]:
    """What the model finds in each sample, by the task that needs nothing but the model."""
    task = make_task(Uri(PLAIN[model.manifest.task], model.ref.name, options), lambda _: model, home())
    return [finding.what for item in shown for finding in task(item) if isinstance(finding, Finding)]


_COMPARED: dict[str, Callable[[Served, Served], tuple[float, int, str]]] = {
    "detect": _detectors,
    "encode": _encoders,
    "classify": _labellers,
    "tag": _taggers,
    "recognise": _recognisers,
    "anomaly": _anomalies,
}
"""task -> a function of a variant and its parent: what says least for the variant, samples, and what that is"""
