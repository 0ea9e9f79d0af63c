"""How a classifier of pictures proves itself, and how two of them are compared."""

from __future__ import annotations

import re

import numpy as np

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.shown import PICTURES, frames, pictures
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import Recorder, _constant, _follows, _least, _margin, _same_labels, answers
from edge_agent.types import Finding, Scores
from edge_agent.uri import Uri

WORDS_FOR = {
    "person": {"person", "people", "man", "woman", "face", "human"},
    "cat": {"cat", "tabby", "kitten"},
    "cup": {"cup", "mug", "espresso", "coffee"},
}
"""what the pictures show -> words of a label that means it"""


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
