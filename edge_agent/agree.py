"""Does a variant (int8, fp16, pruned, another runtime) answer as its parent does? Runs in the child of prove.py.

The samples are sealed: the carried pictures, each also mirrored, darkened and cut, or everyday sentences; and what
the device itself recorded under HOME/samples.

Detectors: mAP50 of the variant's boxes against the parent's (those that the parent would report), and what it loses on
labels where HOME/samples/instances.json has some. Encoders: the
least of the correlation of the cosines of all pairs of sentences, and of agreement and F1 of the labels that heads
fitted on each give. Text classifiers and taggers: the least of agreement and F1 of their labels, or of their tags and
spans. Classifiers of pictures: how often the first label is the same.
Autoencoders: the rank correlation of the reconstruction errors. Each is 1 for a variant that answers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter

import numpy as np

from edge_agent.errors import RefusedError
from edge_agent.figures.coco_map import Found, Truth, average_precision
from edge_agent.figures.scores import accuracy, macro_f1, pearson, similarities, spearman
from edge_agent.manifest import Served
from edge_agent.proof import LOW, open_served
from edge_agent.prove import Result, Trial
from edge_agent.registry import carried, home
from edge_agent.shown import labelled, pictures, sentences, windows
from edge_agent.tasks import PLAIN, everyday, make_task
from edge_agent.tasks.encoder import encoder
from edge_agent.tasks.head import fit
from edge_agent.tasks.texthead import joined, text_head
from edge_agent.tasks.understand import read_labels
from edge_agent.types import Anomaly, Detections, Finding, Frame, Sample, Scores, Text, Uri


def agree(trial: Trial) -> Result:
    """How far the first variant agrees with the second. Refused below 1 - max_drop of the manifest."""
    assert trial.manifest is not None
    variant, parent = trial.variants
    one = open_served(trial.manifest, variant, trial.parts, trial.threads)
    other = open_served(trial.parent or trial.manifest, parent, trial.parent_parts, trial.threads)
    compare, measure = _COMPARED[trial.manifest.task]
    agreement, count, *named = compare(one, other)
    measure = named[0] if named else measure
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
    """The least of: mAP50 of `one` with the boxes of `other` as the truth, over the classes that both name; and, where
    people drew boxes in recorded pictures, 1 less what it loses of the other's mAP50 on these. And the pictures.
    """
    shown = list(pictures())
    shared = _same_names(one, other.manifest.names())
    if not shared:
        raise RefusedError(f"it has no class in common with its parent {other.manifest.name}")
    truth = truth_of(other, shown, shared.values())
    mine = boxes(one, shown, LOW, shared)
    agreed = average_precision(truth, mine, sorted(set(shared.values()))).figures()["map50"]
    figures = [(agreed, "mAP50"), *_on_labels(one, other)]
    known = [figure for figure in figures if not np.isnan(figure[0])] or figures
    value, name = min(known, key=itemgetter(0))
    return value, len(shown), name


def truth_of(model: Served, shown: list[Frame], ids: Iterable[int]) -> Truth:
    """What a model finds in pictures, of the classes `ids`, as the truth that another one is held against.

    Boxes that it would report count; those that score at least half as much are what COCO calls a crowd: to find one is
    neither right nor wrong. Without that, one box at the threshold turns the figure of a class with few boxes over.
    """
    least = model.manifest.score
    found = boxes(model, shown, least / 2, {key: key for key in ids})
    area = found.xywh[:, 2] * found.xywh[:, 3]
    return Truth(found.image, found.label, found.xywh, area, found.score < least)


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


def boxes(model: Served, shown: list[Frame], score: float, ids: dict[int, int]) -> Found:
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
        columns.append(Found(image, label, xywh.astype(np.float64), what.score[keep].astype(np.float64)))
    parts = [(c.image, c.label, c.xywh, c.score) for c in columns]
    return Found(*(np.concatenate(column) for column in zip(*parts, strict=True)))


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoders(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: correlation of the cosines of all pairs of sentences; how often heads that are fitted on each say
    the same of them, and the F1 of that. And the sentences, and which it is.
    """
    shown = sentences()
    examples = read_labels(carried("deploy", "demo", "intents.toml"))[1]
    taught = [text for texts in examples.values() for text in texts[::2]]
    asked = [text for texts in examples.values() for text in texts[1::2]] + shown
    y = np.repeat(np.arange(len(examples)), [len(texts[::2]) for texts in examples.values()])
    cosines, said = [], []
    for model in (one, other):
        made = encoder(model)
        vectors = made.embed_many(shown)
        length = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        cosines.append(similarities(vectors / length))
        head = fit(made.embed_many(taught), y, tuple(examples), made.embed_many(everyday.SENTENCES))
        scores = [head(vector) for vector in made.embed_many(asked)]
        said.append([max(score, key=score.__getitem__) for score in scores])
    mine, theirs = said
    figures = [(pearson(*cosines), "correlation"), (accuracy(theirs, mine), "agreement of the labels")]
    figures.append((macro_f1(theirs, mine), "F1 of the labels"))
    value, name = min(figures, key=lambda figure: -1.0 if np.isnan(figure[0]) else figure[0])
    return value, len(asked), name


# ── texts with labels, and with tags ─────────────────────────────────────────────────────────────────────


def _labellers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the label of a sentence is the same, and the F1 of that; and the sentences."""
    _same_labels(one, other)
    shown = [Text(text, 0.0, 0.0) for text in sentences()]
    mine, theirs = (
        [what.label for what in answers(model, shown) if isinstance(what, Scores)] for model in (one, other)
    )
    figures = [(accuracy(theirs, mine), "agreement of the labels"), (macro_f1(theirs, mine), "F1 of the labels")]
    value, name = min(figures, key=itemgetter(0))
    return value, len(shown), name


def _taggers(one: Served, other: Served) -> tuple[float, int, str]:
    """The least of: how often the tag of a word is the same, and, where the parent marks any, F1 of the spans."""
    _same_labels(one, other)
    shown = sentences()
    tags = [[head.tags(text) for text in shown] for head in (text_head(one), text_head(other))]
    mine, theirs = ([tag for text in told for _, _, tag, _ in text] for told in tags)
    spans = [{(i, *span[:3]) for i, text in enumerate(told) for span in joined(text)} for told in tags]
    figures = [(accuracy(theirs, mine), "agreement of the tags")]
    if spans[1]:
        figures.append((2 * len(spans[0] & spans[1]) / (len(spans[0]) + len(spans[1])), "F1 of the spans"))
    value, name = min(figures, key=itemgetter(0))
    return value, len(shown), name


def _same_labels(one: Served, other: Served) -> None:
    if one.manifest.labels != other.manifest.labels:
        raise RefusedError(f"its labels are not those of its parent {other.manifest.name}")


# ── classifiers of pictures ──────────────────────────────────────────────────────────────────────────────


def _recognisers(one: Served, other: Served) -> tuple[float, int]:
    """Share of the pictures with the same first label; and the pictures."""
    _same_labels(one, other)
    shown = list(pictures())
    options = {"score": "0", "top": "1"}
    firsts = [
        [what.label for what in answers(model, shown, options) if isinstance(what, Scores)] for model in (one, other)
    ]
    return accuracy(firsts[1], firsts[0]), len(shown)


# ── autoencoders ─────────────────────────────────────────────────────────────────────────────────────────


def _anomalies(one: Served, other: Served) -> tuple[float, int]:
    """Rank correlation of the reconstruction errors, as only their order says what is unusual; and the samples."""
    shown: Sequence[Sample] = list(pictures()) if other.input is not None else windows(other)
    errors = [[what.error for what in answers(model, shown) if isinstance(what, Anomaly)] for model in (one, other)]
    return spearman(np.array(errors[0]), np.array(errors[1])), len(shown)


def answers(model: Served, shown: Sequence[Sample], options: Mapping[str, str] = {}) -> list[object]:
    """What the model finds in each sample, by the task that needs nothing but the model."""
    task = make_task(Uri(PLAIN[model.manifest.task], model.ref.name, options), lambda _: model, home())
    return [finding.what for item in shown for finding in task(item) if isinstance(finding, Finding)]


Compared = tuple[float, int] | tuple[float, int, str]
_COMPARED: dict[str, tuple[Callable[[Served, Served], Compared], str]] = {
    "detect": (_detectors, "mAP50"),
    "encode": (_encoders, "correlation"),
    "classify": (_labellers, "agreement of the labels"),
    "tag": (_taggers, "agreement of the tags"),
    "recognise": (_recognisers, "agreement of the first label"),
    "anomaly": (_anomalies, "rank correlation of the errors"),
}
