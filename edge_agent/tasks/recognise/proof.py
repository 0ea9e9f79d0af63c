"""How a classifier of pictures proves itself."""

from __future__ import annotations

import re
from collections.abc import Iterable

from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Served
from edge_agent.paths import home
from edge_agent.samples.carried import PICTURES, frames
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import Recorder, constant
from edge_agent.types import Finding, Frame, Scores, Task
from edge_agent.uri import Uri

WORDS_FOR = {
    "person": {"person", "people", "man", "woman", "face", "human"},
    "cat": {"cat", "tabby", "kitten"},
    "cup": {"cup", "mug", "espresso", "coffee"},
}
"""what the pictures show -> words of a label that means it"""


def prove(model: Served, seen: Recorder) -> list[str]:
    """Run it on what it is for. Notes on what it says; RefusedError where that makes no sense."""
    task = make_task(Uri("recognise", model.ref.name, {"score": "0"}), lambda _: model, home())
    found = {name: _scores(task, frame, name) for name, frame in frames().items()}
    if constant(seen):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    notes = []
    for name, what in found.items():
        best = [f"{label} {score:.2f}" for label, score in list(what.scores.items())[:3]]
        notes.append(f"{name}: {', '.join(best)}")
    return [*notes, *_doubts(model, found, "; ".join(notes[:3]))]


def _scores(task: Task, frame: Frame, name: str) -> Scores:
    """What it says of a proof picture. RefusedError where it fails."""
    try:
        (finding,) = task(frame)
    except EdgeAgentError as error:
        raise RefusedError(f"on the proof picture {name}: {error}") from None
    assert isinstance(finding, Finding) and isinstance(finding.what, Scores)
    return finding.what


def _doubts(model: Served, found: dict[str, Scores], told: str) -> list[str]:
    """A doubt, or none; RefusedError where it names several of the things in the pictures and sees none of them."""
    known = {picture: thing for picture, thing in PICTURES.items() if _is_among(model.manifest.names().values(), thing)}
    seen = [picture for picture, thing in known.items() if _is_among(found[picture].scores, thing)]
    if known and not seen:
        why = f"it names {', '.join(known.values())}, but not among the likeliest for the pictures of them ({told})"
        if len(known) > 1:
            raise RefusedError(f"{why}: wrong colours, scale, layout or labels in its manifest, or a broken conversion")
        return [f"doubtful: {why}"]
    if len({what.label for what in found.values()}) == 1:
        return [f"doubtful: it says {found['noise'].label} to all of them, and to noise"]
    return []


def _is_among(labels: Iterable[str], thing: str) -> bool:
    return any(means(label, thing) for label in labels)


def means(label: str, thing: str) -> bool:
    """Whether a label's words mean the thing that a proof picture shows."""
    return bool(WORDS_FOR[thing] & set(re.split(r"[^a-z]+", label.casefold())))
