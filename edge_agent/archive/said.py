"""What an event says, as words to be searched; of a kind that is not known here, the words that it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Body = Mapping[str, Any]
"""an event as its JSON says it"""
LONGEST = 4000
"""characters of an event's words that are searched"""
PLACES = ("zones", "entered", "left", "loiters", "line")
"""fields of an event that name zones or lines"""
WORDS = ("rule", "label", "text", "answer", "filled", "sentences", "keywords", "first", "last", "why")
"""fields that hold words, in the order in which they are read"""


class Said(NamedTuple):
    """What is searched of one event."""

    text: str
    place: str
    """the pipeline, and the zones and lines that it names"""
    labels: tuple[str, ...]
    zones: tuple[str, ...]


def said(body: Body) -> Said:
    """The words, labels and zones of an event."""
    zones = tuple(dict.fromkeys(zone for key in PLACES for zone in _texts(body.get(key))))
    marked = [row.get("label") for key in ("detections", "spans") for row in _rows(body, key)]
    labels = [*_texts(body.get("label")), *_texts(body.get("rule")), *marked]
    place = " ".join(dict.fromkeys([str(body.get("pipeline", "")), *zones]))
    text = SAYS.get(str(body.get("kind")), _words)(body)
    return Said(" ".join(text.split())[:LONGEST], place[:LONGEST], tuple(dict.fromkeys(map(str, labels))), zones)


def _object(body: Body) -> str:
    """What became of a thing, without its number and times: of many things the same is said, and kept once."""
    did = [f"enters {zone}" for zone in body["entered"]] + [f"leaves {zone}" for zone in body["left"]]
    did += [f"loiters in {zone}" for zone in body["loiters"]] + ["stands still"] * bool(body["stationary"])
    phase = {"new": ["comes into view"], "end": ["is gone"]}.get(body["phase"], [])
    return f"{body['label']} {', '.join([*phase, *did]) or 'is still there'}"


def _detections(body: Body) -> str:
    counts = Counter(str(row["label"]) for row in body["detections"])
    seen = [f"{count} {label}" if count > 1 else label for label, count in counts.most_common()]
    return ", ".join(seen) or "nothing in view"


def _scores(body: Body) -> str:
    return f"{body['label']}: {body['text']}" if body.get("text") else str(body["label"])


def _spans(body: Body) -> str:
    named = ", ".join(f"{row['label']} {row['text']}" for row in body["spans"] if row["text"])
    return f"{body['text']} ({named})" if named else str(body["text"])


def _anomaly(body: Body) -> str:
    return {True: "unusual", False: "usual", None: "measured"}[body.get("unusual")]


SAYS: dict[str, Callable[[Body], str]] = {
    "object": _object,
    "crossing": lambda body: f"{body['label']} goes {body['direction']} over {body['line']}",
    "detections": _detections,
    "scores": _scores,
    "spans": _spans,
    "anomaly": _anomaly,
    "gap": lambda body: f"{body['count']} events lost: {body['why']}",
    "rule": lambda body: f"{body['rule']} {body['phase']}",
}
"""kind of event -> its words"""


def _words(body: Body) -> str:
    return ". ".join(text for key in WORDS for text in _texts(body.get(key)))


def _texts(value: object) -> list[str]:
    """A text, or the texts of a list."""
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in values if isinstance(text, str) and text]


def _rows(body: Body, key: str) -> list[Body]:
    rows = body.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
