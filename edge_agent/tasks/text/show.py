"""What was found in a text, as JSON and in words, with the text itself."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.events.understood import Answer, Fill, Similar, Summary, Topic
from edge_agent.types import Embedding, Finding, Scores, Spans, Text
from edge_agent.walk.event import spans

FIRST = 8
"""numbers of a vector that are shown to people"""


def show_label(found: Finding) -> tuple[dict[str, Any], str]:
    """The label of a text, and the share of each."""
    what, text = found.what, _text(found)
    assert isinstance(what, Scores)
    scores = {name: round(score, 4) for name, score in what.scores.items()}
    row = {"text": text, "label": what.label, "score": round(what.score, 4), "scores": scores}
    return row, f"{what.label} {what.score:.2f}  {text}"


def show_spans(found: Finding) -> tuple[dict[str, Any], str]:
    """What is named in a text."""
    text = _text(found)
    assert isinstance(found.what, Spans)
    rows = spans(found.what, text)
    words = ", ".join(f'{s.label} {s.score:.2f} "{s.text}"' for s in rows)
    return {"text": text, "spans": msgspec.to_builtins(rows)}, f"{words or 'nothing'}  {text}"


def show_vector(found: Finding) -> tuple[dict[str, Any], str]:
    """The vector of a text."""
    text = _text(found)
    assert isinstance(found.what, Embedding)
    vector = found.what.vector
    row = {"text": text, "embedding": [round(float(x), 6) for x in vector]}
    return row, f"{' '.join(f'{x:.4f}' for x in vector[:FIRST])} …  {text}"


def show_fill(found: Finding) -> tuple[dict[str, Any], str]:
    """What could stand in the masks, and the text with it."""
    assert isinstance(found.what, Fill)
    places = ", ".join(" ".join(f"{one.word} {one.score:.2f}" for one in place.words) for place in found.what.places)
    return _whole(found), f"{found.what.filled}  ({places or 'nothing to fill'})"


def show_answer(found: Finding) -> tuple[dict[str, Any], str]:
    """The answer and the passages."""
    what = found.what
    assert isinstance(what, Answer)
    told = [f"{one.score:.2f} {one.source and f'{one.source}: '}{one.text}" for one in what.passages]
    if what.extracted:
        told.insert(0, f"{what.answer} {what.score:.2f}" if what.answer else "no answer in these passages:")
    return _whole(found), "\n".join(told or ["nothing has to do with it"])


def show_similar(found: Finding) -> tuple[dict[str, Any], str]:
    """What of the store is like a text."""
    assert isinstance(found.what, Similar)
    told = [f"{one.score:.2f}  {one.text}" for one in found.what.near]
    return _whole(found), "\n".join(told or [f'nothing is stored in "{found.what.store}"'])


def show_topic(found: Finding) -> tuple[dict[str, Any], str]:
    """How many lines were about what."""
    what = found.what
    assert isinstance(what, Topic)
    return _whole(found), f"{what.lines} lines: {', '.join(what.words)}  {what.first} … {_text(found)}"


def show_summary(found: Finding) -> tuple[dict[str, Any], str]:
    """The sentences that stand for a text."""
    assert isinstance(found.what, Summary)
    return _whole(found), "\n".join(found.what.sentences)


def _whole(found: Finding) -> dict[str, Any]:
    """The text, and all that was found in it."""
    told: dict[str, Any] = msgspec.to_builtins(found.what)
    return {"text": _text(found), **told}


def _text(found: Finding) -> str:
    assert isinstance(found.of, Text)
    return found.of.text
