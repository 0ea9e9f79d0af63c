"""From the conditions of a config, which its checks let pass, to a tree that can be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from edge_agent.config import rules
from edge_agent.config.rule_names import PLACES, keys_of, subject_of
from edge_agent.config.rules import Condition, words
from edge_agent.config.times import seconds, window
from edge_agent.rules.facts import Pipe, Pipes
from edge_agent.rules.leaves import (
    MOMENT_S,
    Clock,
    Found,
    Leaf,
    Moves,
    Other,
    Streams,
    Things,
    labelled,
    unusual,
)
from edge_agent.rules.nodes import Group, Held, Node, Not
from edge_agent.rules.said import Said, plain

TEXTS = frozenset({"text", "scores", "spans", "fill", "answer", "similar"})
KINDS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"object", "detections"}),
    "enters": frozenset({"object"}),
    "leaves": frozenset({"object"}),
    "crosses": frozenset({"crossing"}),
    "text": TEXTS,
    "heard": TEXTS,
    "read": TEXTS,
    "label": frozenset({"scores", "spans"}),
    "anomaly": frozenset({"anomaly"}),
}
"""what a condition is about (`about`) -> the kinds of events that say it"""


def about(one: Condition) -> str:
    """Its subject, but of an object that moves how it does, and "object" for one that is not there; "": it has none."""
    subject = subject_of(one)
    if subject not in ("object", "no"):
        return "" if subject in ("all", "any", "not") else subject
    place = place_of(one)
    return place if place in KINDS else "object"


def node_of(one: Condition, pipes: Pipes, within: float = 0.0) -> Node:
    """The tree of a condition. `within`: of what stands around it."""
    within = within if one.within is None else seconds(one.within)
    parts = [node_of(part, pipes, within) for part in one.all or ()]
    parts += _groups(one, pipes, within)
    if about(one):
        parts.append(leaf_of(one, pipes, within))
    if time := clock_of(one):
        parts.append(time)
    node = parts[0] if len(parts) == 1 else Group(parts, all=True)
    return node if one.for_ is None else Held(node, seconds(one.for_))


def _groups(one: Condition, pipes: Pipes, within: float) -> Iterator[Node]:
    if one.any is not None:
        yield Group([node_of(part, pipes, within) for part in one.any], all=False)
    if one.not_ is not None:
        yield Not(node_of(one.not_, pipes, within))


def clock_of(one: Condition) -> Clock | None:
    """The time of the week that it asks for."""
    if one.between is None and one.days is None:
        return None
    return Clock(words=" ".join(filter(None, (one.between, one.days))), window=window(one.between, one.days))


def leaf_of(one: Condition, pipes: Pipes, within: float) -> Leaf:
    """The condition that looks at something itself."""
    leaf = MAKE[about(one)](one)
    of = giving(one, pipes)
    leaf.pipelines = frozenset(pipe.name for pipe in of)
    leaf.hears = frozenset((kind, pipe.name) for pipe in of for kind in _heard_of(pipe, about(one)))
    if isinstance(leaf, Found):
        leaf.lasting = frozenset(name for name in leaf.pipelines if leaf.always or pipes[name].lasting)
    leaf.within = max(within, MOMENT_S) if leaf.moment else within
    leaf.words = words_of(one)
    return leaf


def giving(one: Condition, pipes: Pipes) -> list[Pipe]:
    """The pipelines that can say something about a condition."""
    return [pipe for pipe in pipes.values() if one.pipeline in (None, pipe.name) and _gives(pipe, one)]


def _heard_of(pipe: Pipe, what: str) -> frozenset[str]:
    """The kinds of events by which it says it: of one that tracks the lives of objects count, not their boxes."""
    if what != "object":
        return KINDS.get(what, frozenset())
    return frozenset({"object" if pipe.kinds is not None and "object" in pipe.kinds else "detections"})


def _gives(pipe: Pipe, one: Condition) -> bool:
    what, zone = about(one), zone_of(one)
    if what not in KINDS:
        return what == "stream"
    zoned = not zone or zone in pipe.zones
    kinds = pipe.kinds is None or bool(pipe.kinds & KINDS[what])
    senses = what not in ("heard", "read") or pipe.senses is None or what in pipe.senses
    return zoned and kinds and senses and (pipe.words or what not in ("text", "heard", "read"))


# ── leaves ───────────────────────────────────────────────────────────────────────────────────────────────


def labels_of(one: Condition) -> tuple[str, ...]:
    """The labels that it names; none where all count."""
    return tuple(label for label in words(one.object or one.no or one.label) if label.casefold() != rules.ANY)


def phrases_of(one: Condition) -> tuple[str, ...]:
    """The words that it waits for."""
    return words(one.text or one.heard or one.read)


def place_of(one: Condition) -> str:
    """Which key says where; "" where none does."""
    given = keys_of(one)
    return next((key for key in PLACES if key in given), "")


def zone_of(one: Condition) -> str:
    """The name of the zone or line; "" where there is none."""
    place = place_of(one)
    return str(keys_of(one)[place]) if place else ""


def bounds_of(one: Condition) -> tuple[int, float]:
    """The least and the largest number of things that make it true."""
    if one.no is not None:
        return 0, 0
    least = one.above + 1 if one.above is not None else 0 if one.below is not None else 1
    return least, float("inf") if one.below is None else one.below - 1


def _wanted(one: Condition) -> Callable[[str], bool]:
    return partial(_among, frozenset(label.casefold() for label in labels_of(one)))


def _among(labels: frozenset[str], label: str) -> bool:
    return not labels or label.casefold() in labels


def _things(one: Condition) -> Leaf:
    least, most = bounds_of(one)
    loiters = one.loiters is not None
    return Things(wanted=_wanted(one), zone=zone_of(one), loiters=loiters, least=least, most=most)


def _moves(one: Condition) -> Leaf:
    return Moves(wanted=_wanted(one), how=place_of(one), zone=zone_of(one), direction=one.direction)


def _said(one: Condition) -> Leaf:
    return Said(phrases=tuple(map(plain, phrases_of(one))), how=about(one), score=one.score or 0.0)


MAKE: Mapping[str, Callable[[Condition], Leaf]] = {
    "object": _things,
    "enters": _moves,
    "leaves": _moves,
    "crosses": _moves,
    "text": _said,
    "heard": _said,
    "read": _said,
    "label": lambda one: Found(so=labelled(_wanted(one), one.score or 0.0)),
    "anomaly": lambda one: Found(so=unusual, always=True),
    "stream": lambda one: Streams(conditions=frozenset(streams_of(one))),
    "rule": lambda one: Other(name=one.rule or ""),
}
"""what a condition is about -> how it is made"""


def streams_of(one: Condition) -> tuple[str, ...]:
    """The conditions of a source that it waits for."""
    return () if one.stream is None else (one.stream,) if isinstance(one.stream, str) else tuple(one.stream)


PLACED = {
    "in": "in {zone}",
    "enters": "enters {zone}",
    "leaves": "leaves {zone}",
    "loiters": "loiters in {zone}",
    "crosses": "goes {way} over {zone}",
}
"""key that says where -> how people say it"""


def words_of(one: Condition) -> str:
    """What a condition waits for, in words."""
    given, labels = keys_of(one), " or ".join(labels_of(one))
    number = " ".join(f"{key} {given[key]}" for key in ("above", "below") if key in given)
    place = PLACED.get(place_of(one), "").format(zone=zone_of(one), way=one.direction or "")
    quoted = " or ".join(phrases_of(one))
    told = {
        "no": f"no {labels or 'thing'} {place}",
        "object": f"{labels or 'something'} {number} {place}",
        "label": f"label {labels}",
        "stream": f"stream {' or '.join(streams_of(one))}",
        "rule": f"rule {one.rule}",
    }
    subject = subject_of(one)
    text = told.get(subject, f'{subject} "{quoted}"' if quoted else subject)
    return " ".join([*text.split(), *(["of", one.pipeline] if one.pipeline else [])])


def sentence(one: Condition) -> str:
    """All of a condition in words."""
    parts = [sentence(part) for part in one.all or ()]
    if one.any is not None:
        parts.append(f"({' or '.join(map(sentence, one.any))})")
    if one.not_ is not None:
        parts.append(f"not ({sentence(one.not_)})")
    parts += [words_of(one)] if about(one) else []
    given = keys_of(one)
    parts += [f"{given[key]}" for key in ("between", "days") if key in given]
    return " ".join([" and ".join(parts), *(f"{key} {given[key]}" for key in ("for", "within") if key in given)])
