"""What the events and states of a pipeline are as metrics: each is called as the field of the JSON that it stands for.

Texts, numbers and yes or no become a metric each; a list of texts becomes one text, other lists stand in `event/json`
alone. Of boxes it is how many there are of each label.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from edge_agent.events import Event, kind_of
from edge_agent.link.sparkplug.payload import DOUBLE, INT64, Metric, Value, datatype_of

MOST = 500
"""metrics of a pipeline; what is more stands in `event/json` alone"""
LONGEST = 120
"""characters of a name"""
_ENVELOPE = ("v", "kind", "id", "epoch", "seq", "device", "pipeline", "at", "spent_ms", "model")
"""fields of an event that are no metrics of their kind"""


def flat(values: Mapping[str, Any], prefix: str) -> dict[str, Value]:
    """`prefix/name` -> value, of what is in a JSON object and in those that stand in it."""
    found: dict[str, Value] = {}
    for key, value in values.items():
        name = f"{prefix}/{key}"[:LONGEST]
        if isinstance(value, dict):
            found |= flat(value, name)
        elif isinstance(value, bool | int | float | str):
            found[name] = value
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            found[name] = ", ".join(value)
    return found


def of_event(event: Event, before: Iterable[str] = ()) -> dict[str, Value]:
    """The metrics of an event; `before`: names of those that its pipeline has had, of which counts are 0 now."""
    body, kind = msgspec.to_builtins(event), kind_of(event)
    found: dict[str, Value] = {"event/id": event.id, "event/kind": kind, "event/words": ""}
    with contextlib.suppress(KeyError, TypeError):  # somebody else's task made it otherwise
        found["event/words"] = event.words(body)
    found["event/json"] = msgspec.json.encode(event).decode()
    found |= flat({key: value for key, value in body.items() if key not in _ENVELOPE}, kind)
    if "detections" in body:
        labels = Counter(box["label"] for box in body["detections"])
        found |= _counted(flat(labels, f"{kind}/count"), f"{kind}/count/", before)
    return found


def of_state(state: Mapping[str, Any], counts: Mapping[str, Any], before: Iterable[str] = ()) -> dict[str, Value]:
    """The metrics of a pipeline's state and of the things that it counts; `before` as of `of_event`."""
    counted = _counted(flat(_said(counts), "counts"), "counts/", before) if counts else {}
    return flat(_said(state), "state") | counted


def of_health(health: Mapping[str, Any]) -> dict[str, Value]:
    """The metrics of the node: its health."""
    return flat({key: value for key, value in _said(health).items() if key != "at"}, "health")


def _said(body: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "v"}


def _counted(found: dict[str, Value], prefix: str, before: Iterable[str]) -> dict[str, Value]:
    """Counts with 0 for those of before that nothing is said of."""
    return dict.fromkeys((name for name in before if name.startswith(prefix)), 0) | found


class Table:
    """The metrics of the node, or of one of its devices: which there are, and what was said last of each."""

    def __init__(self, aliases: dict[tuple[str, str], int], device: str = "") -> None:
        """`aliases`: (device, name) -> alias, of the whole node, which grows; `device`: "" for the node itself."""
        self._aliases, self._device = aliases, device
        self._types: dict[str, int] = {}
        self._said: dict[str, tuple[Value | None, int]] = {}
        """name -> its value as it was sent last, and of when that is"""
        self.born = False
        """what it has was declared in this connection, and not taken back"""

    @property
    def names(self) -> list[str]:
        """Of all that it has."""
        return list(self._types)

    def learn(self, values: Mapping[str, Value], at: int) -> bool:
        """Have a metric for each value, up to MOST; whether there is one that was not declared as it is now."""
        fresh = False
        for name, value in values.items():
            known, kind = self._types.get(name), datatype_of(value)
            whole = known == DOUBLE and kind == INT64  # a number that happens to be a whole one
            if known == kind or whole or (known is None and len(self._types) >= MOST):
                continue
            self._types[name], fresh = kind, True
            self._said[name] = None, at
            self._aliases.setdefault((self._device, name), len(self._aliases) + 1)
        return fresh

    def birth(self, values: Mapping[str, Value], at: int) -> list[Metric]:
        """All metrics with their names and types, the oldest first; `values`: those that are new."""
        self._keep(values, at)
        self.born = True
        return [
            Metric(value, when, name, self._aliases[self._device, name], self._types[name])
            for name, (value, when) in sorted(self._said.items(), key=lambda said: said[1][1])
        ]

    def data(self, values: Mapping[str, Value], at: int) -> list[Metric]:
        """Those of the values that differ from what was said last."""
        changed = {name: value for name, value in values.items() if name in self._said and self._said[name][0] != value}
        self._keep(changed, at)
        return [Metric(self._said[name][0], at, alias=self._aliases[self._device, name]) for name in changed]

    def past(self, values: Mapping[str, Value], at: int) -> list[Metric]:
        """The values as history, which is not what is current."""
        known = {name: value for name, value in values.items() if name in self._types}
        return [
            Metric(self._fit(name, value), at, alias=self._aliases[self._device, name], historical=True)
            for name, value in known.items()
        ]

    def _keep(self, values: Mapping[str, Value], at: int) -> None:
        self._said |= {name: (self._fit(name, value), at) for name, value in values.items() if name in self._types}

    def _fit(self, name: str, value: Value) -> Value:
        """A value as its type has it."""
        return float(value) if self._types[name] == DOUBLE else value
