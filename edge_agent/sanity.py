"""What a model says of things that are known, looked at: is it sane? Runs in the child of prove.py (see proof.py).

Each look takes the model and what its network gave, and returns notes, one line each. RefusedError, one line, for
what makes no sense.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from edge_agent.errors import EdgeAgentError, ModelError, RefusedError
from edge_agent.manifest import Served
from edge_agent.proof import LOW, Recorder
from edge_agent.registry import home
from edge_agent.registry.text import longest
from edge_agent.shown import PICTURES, SENTENCES, frames, scenes, thing_of, whole_scene, windows
from edge_agent.tasks import make_task
from edge_agent.tasks.anomaly import rebuilder
from edge_agent.tasks.detect import Detector
from edge_agent.tasks.encoder import encoder
from edge_agent.tasks.everyday import SENTENCES as EVERYDAY
from edge_agent.tasks.texthead import OUTSIDE, joined, text_head
from edge_agent.tasks.wordpiece import WordPiece
from edge_agent.trial import in_places, there
from edge_agent.types import Anomaly, Detections, Finding, Scores, Uri

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
WORDS_FOR = {
    "person": {"person", "people", "man", "woman", "face", "human"},
    "cat": {"cat", "tabby", "kitten"},
    "cup": {"cup", "mug", "espresso", "coffee"},
}
"""what the pictures show -> words of a label that means it"""
ALIKE = 1e-9
"""mean squared error below which an autoencoder only copies"""


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


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


def _constant(seen: Recorder) -> bool:
    first, *others = seen.outputs
    return all(np.array_equal(first[name], other[name]) for other in others for name in first)


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


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoder(model: Served, seen: Recorder) -> list[str]:
    made = encoder(model)
    _full(model, made.words, made.length, made.embed)
    vectors = made.embed_many([sentence for pair in SENTENCES for sentence in pair]).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if np.ptp(vectors, axis=0).max() < 1e-6:
        raise RefusedError("it gives the same vector for six different sentences")
    cosine = unit @ unit.T
    alike = float(np.mean([cosine[i, i + 1] for i in range(0, len(unit), 2)]))
    apart = float(np.mean([cosine[i, j] for i, j in combinations(range(len(unit)), 2) if i // 2 != j // 2]))
    notes = [f"cosine of sentences that mean the same {alike:.2f}, of others {apart:.2f}"]
    if alike <= apart:
        notes.append("doubtful: sentences that mean the same are no closer to each other than others")
    return notes


def _full(model: Served, words: WordPiece, length: int, answer: Callable[[list[int]], object]) -> None:
    """Have it read as many pieces as its manifest says. RefusedError, with how many it takes."""
    try:
        answer([words.cls, *[words.unknown] * (length - 2), words.sep])
    except ModelError:
        raise RefusedError(
            f"it takes {longest(model.net, length)} word pieces of a text, and max_length under [text] says {length}; "
            "write what it takes"
        ) from None


# ── texts with labels, and with tags ─────────────────────────────────────────────────────────────────────


def _labeller(model: Served, seen: Recorder) -> list[str]:
    head = text_head(model)
    _full(model, head.words, head.length, head.scores)
    shares = np.stack([head.shares(head.read(text)) for text in EVERYDAY])
    if np.ptp(shares, axis=0).max() < 1e-6:
        raise RefusedError(f"it gives the same scores for {len(shares)} different sentences")
    said = [head.labels[i] for i in shares.argmax(axis=1)]
    counts = ", ".join(f"{label} {said.count(label)}" for label in sorted(set(said), key=lambda one: -said.count(one)))
    notes = [f"of {len(said)} everyday sentences: {counts}"]
    return [*notes, f"doubtful: it says {said[0]} to all of them"] if len(set(said)) == 1 else notes


def _tagger(model: Served, seen: Recorder) -> list[str]:
    head = text_head(model)
    _full(model, head.words, head.length, head.scores)
    shares = np.concatenate([head.shares(head.read(text)) for text in EVERYDAY])
    if np.ptp(shares, axis=0).max() < 1e-6:
        raise RefusedError(f"it gives the same scores for all {len(shares)} word pieces of {len(EVERYDAY)} sentences")
    tagged = [(text, head.tags(text)) for text in EVERYDAY]
    found = [(text[start:end], kind) for text, tags in tagged for start, end, kind, _ in joined(tags)]
    words = sum(len(tags) for _, tags in tagged)
    few = ", ".join(f"{word} {kind}" for word, kind in found[:4]) or "nothing"
    notes = [f"in {len(EVERYDAY)} everyday sentences of {words} words it finds {few}"]
    outside = any(tag.upper() == OUTSIDE for _, tags in tagged for _, _, tag, _ in tags)
    return [*notes, "doubtful: every word belongs to something"] if not outside else notes


# ── classifiers of pictures ──────────────────────────────────────────────────────────────────────────────


def _recogniser(model: Served, seen: Recorder) -> list[str]:
    task = make_task(Uri("recognise", model.ref.name, {"score": "0"}), lambda _: model, home())
    found: dict[str, Scores] = {}
    for name, frame in frames().items():
        try:
            (finding,) = task(frame)
        except EdgeAgentError as error:
            raise RefusedError(f"on the proof picture {name}: {error}") from None
        assert isinstance(finding, Finding) and isinstance(finding.what, Scores)
        found[name] = finding.what
    if _constant(seen):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    notes = []
    for name, what in found.items():
        best = [f"{label} {score:.2f}" for label, score in list(what.scores.items())[:3]]
        notes.append(f"{name}: {', '.join(best)}")
    known = {picture: thing for picture, thing in PICTURES.items() if any(means(n, thing) for n in _names(model))}
    right = [p for p, thing in known.items() if any(means(label, thing) for label in found[p].scores)]
    if known and not right:
        things = ", ".join(known.values())
        why = f"it names {things}, but not among the likeliest for the pictures of them ({'; '.join(notes[:3])})"
        if len(known) > 1:
            raise RefusedError(f"{why}: wrong colours, scale, layout or labels in its manifest, or a broken conversion")
        notes.append(f"doubtful: {why}")
    elif len({what.label for what in found.values()}) == 1:
        notes.append(f"doubtful: it says {found['noise'].label} to all of them, and to noise")
    return notes


def _names(model: Served) -> list[str]:
    return list(model.manifest.names().values())


def means(label: str, thing: str) -> bool:
    """Whether a label's words mean the thing that a proof picture shows."""
    return bool(WORDS_FOR[thing] & set(re.split(r"[^a-z]+", label.casefold())))


# ── autoencoders ─────────────────────────────────────────────────────────────────────────────────────────


def _anomaly(model: Served, seen: Recorder) -> list[str]:
    task = make_task(Uri("anomaly", model.ref.name), lambda _: model, home())
    sink = rebuilder(model).sink.name
    shown: list[Any] = list(frames().values()) if model.input is not None else windows(model)
    seen.outputs.clear()
    errors = []
    for item in shown:
        (finding,) = task(item)
        assert isinstance(finding, Finding) and isinstance(finding.what, Anomaly)
        errors.append(finding.what.error)
    if all(np.array_equal(seen.outputs[0][sink], outputs[sink]) for outputs in seen.outputs):
        raise RefusedError(f"it gives the same output whatever goes in, on {len(shown)} samples")
    if max(errors) < ALIKE:
        raise RefusedError("it gives back exactly what goes in: an error of 0 tells nothing")
    return [f"reconstruction error {min(errors):.4g} to {max(errors):.4g} on {len(shown)} samples"]


SanityCheck = Callable[[Served, Recorder], list[str]]
SANITY_CHECKS: dict[str, SanityCheck] = {
    "detect": _detector,
    "encode": _encoder,
    "classify": _labeller,
    "tag": _tagger,
    "recognise": _recogniser,
    "anomaly": _anomaly,
}
