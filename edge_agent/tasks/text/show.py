"""What was found in a text, as JSON and in words, with the text itself."""

from __future__ import annotations

from typing import Any

import msgspec

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


def _text(found: Finding) -> str:
    assert isinstance(found.of, Text)
    return found.of.text
