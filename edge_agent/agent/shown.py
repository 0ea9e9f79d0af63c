"""What of a pipeline is shown to Home Assistant."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.agent.line import Line
from edge_agent.events.objects import Tracked
from edge_agent.events.understood import Answer
from edge_agent.homeassistant.facts import Pipe
from edge_agent.tasks import TASKS
from edge_agent.types import Anomaly, Detections, Frame, Scores, Text
from edge_agent.uri import parse_uri

MOST_LABELS = 12
"""that have entities of their own in one place; of a model that knows more, those that were seen first"""


def facts_of(line: Line, seen: Sequence[str], snapshots: bool) -> Pipe:
    """`seen`: labels that it has seen; `snapshots`: whether pictures of it are sent."""
    gives = _gives(line)
    return Pipe(
        name=line.config.name,
        places=_places(line, seen) if gives[-1] in (Detections, Tracked) else {},
        lines=[zone.name for zone in line.zones if zone.line],
        text=line.config.text and _has_words(line, gives),
        label=bool({Scores, Answer, object} & set(gives)),
        unusual=Anomaly in gives,
        snapshot=snapshots and line.opened.yields is Frame,
        models=list(line.versions),
        thresholds={key: one.option for key, one in line.thresholds.items()},
    )


def _gives(line: Line) -> list[type]:
    """What each of its tasks gives, or its source where it has none; of others' tasks nobody knows (object)."""
    rows = [TASKS.get(parse_uri(f"{task}:").scheme) for task in line.config.tasks]
    return [row.gives if row is not None else object for row in rows] or [line.opened.yields]


def _has_words(line: Line, gives: Sequence[type]) -> bool:
    """Whether its events hold a text: not numbers, though these come as lines."""
    return Text in gives or (line.opened.yields is not Frame and Anomaly not in gives)


def _labels(line: Line) -> list[str]:
    """The labels that its detectors may give."""
    return list(dict.fromkeys(name for task in line.teams[0] for name in getattr(task, "gives_names", ())))


def _places(line: Line, seen: Sequence[str]) -> dict[str, list[str]]:
    """Zone -> labels of what is counted in it (see `Pipe.places`)."""
    given = _labels(line)
    shown = _with_all(given) if 0 < len(given) <= MOST_LABELS else ["", *seen[:MOST_LABELS]]
    spelt = {name.casefold(): name for name in given}
    zones = [zone for zone in line.zones if not (zone.line or zone.mask)]
    named = {zone.name: [spelt.get(label.casefold(), label) for label in zone.labels] for zone in zones}
    return {"": shown} | {name: _with_all(labels[:MOST_LABELS]) if labels else shown for name, labels in named.items()}


def _with_all(labels: list[str]) -> list[str]:
    """Labels, and "" for all of them together; where there is but one, it is all."""
    return labels if len(labels) == 1 else ["", *labels]
