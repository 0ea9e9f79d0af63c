"""What rules can hear of the pipelines: read from their tasks and models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edge_agent.agent.line import Line
from edge_agent.config import Condition, Config
from edge_agent.errors import ConfigError
from edge_agent.events.objects import Tracked
from edge_agent.link import topics
from edge_agent.rules import never
from edge_agent.rules.facts import Pipe, Pipes
from edge_agent.rules.made import KINDS, about, giving, sentence, words_of
from edge_agent.tasks import TASKS, TaskRow
from edge_agent.types import Audio, Detections, Embedding, Frame, Scores, Spans, Text
from edge_agent.uri import parse_task, parse_uri

CALLED: dict[type, tuple[str, ...]] = {Tracked: ("object", "crossing"), Embedding: ("text",)}
"""what a chain of tasks finds -> the kinds of its events, where they are not called as it is"""


def check_rules(config: Config, lines: Sequence[Line]) -> None:
    """ConfigError for a rule that no pipeline can make true, that contradicts itself, or that hears what it says
    itself; its name stands in it.
    """
    pipes = pipes_of(lines)
    never.check(config.rule, pipes)
    own = _hearing_itself(config, lines)
    for rule in config.rule:
        for one in filter(_hears, rule.condition().every()):
            for name in own & {pipe.name for pipe in giving(one, pipes)}:
                why = f"{name} hears what this device says itself; name another pipeline"
                raise ConfigError(f"rule {rule.name}: {words_of(one)}: {why}")


def _hears(one: Condition) -> bool:
    """Whether it is about events."""
    return about(one) in KINDS


def _hearing_itself(config: Config, lines: Iterable[Line]) -> set[str]:
    """The pipelines whose source is a topic of this device; under a filter with wildcards it does not hear itself."""
    base = topics.base_of(config.mqtt.prefix, config.device.id)
    sources = {line.config.name: parse_uri(line.config.source) for line in lines}
    own = {name: uri.rest for name, uri in sources.items() if uri.scheme == "mqtt" and uri.rest.startswith(f"{base}/")}
    return {name for name, topic in own.items() if not {"+", "#"} & set(topic)}


def about_rules(config: Config) -> list[str]:
    """What each rule waits for and each profile changes, a line each."""
    told = [f"rule {rule.name}: {sentence(rule.condition())}" for rule in config.rule]
    for profile in config.profile:
        time = " ".join(filter(None, (profile.between, profile.days))) or "by hand"
        rules = "all rules" if profile.rules is None else f"rules {', '.join(profile.rules) or 'none'}"
        pipes = "all pipelines" if profile.pipelines is None else f"pipelines {', '.join(profile.pipelines) or 'none'}"
        told.append(f"profile {profile.name} ({time}): alerts of {rules}, {pipes}")
    return told


def pipes_of(lines: Iterable[Line]) -> Pipes:
    """Each pipeline by its name."""
    return {line.config.name: _pipe(line) for line in lines}


def _pipe(line: Line) -> Pipe:
    """What can be heard of one."""
    rows = [TASKS.get(parse_task(task).scheme) for task in line.config.tasks]
    zones = frozenset(zone.name for zone in line.zones if not zone.mask)
    pipe = Pipe(name=line.config.name, zones=zones, words=line.config.text)
    if not all(rows):
        return pipe
    known = [row for row in rows if row is not None]
    found, of = _found(line.opened.yields, known)
    return Pipe(
        name=pipe.name,
        zones=zones,
        words=pipe.words,
        kinds=frozenset(CALLED.get(found, (found.__name__.casefold(),))),
        labels=_labels(line, known),
        lasting=of is Frame and found is Scores and TASKS["crop"] not in known,
        senses=_senses(line.opened.yields, known),
    )


def _senses(yields: type, rows: Sequence[TaskRow]) -> frozenset[str]:
    """How its texts are captured: "heard" where it has sound, "read" where it reads pictures."""
    there = {"heard": yields is Audio, "read": TASKS["read"] in rows}
    return frozenset(sense for sense, is_so in there.items() if is_so)


def _found(yields: type, rows: Sequence[TaskRow]) -> tuple[type, type]:
    """What is left at the end of a chain, and the kind of sample that it is of."""
    comes = of = yields
    for row in rows:
        if row.takes is None or issubclass(comes, row.takes):
            comes = row.gives
            of = comes if comes in (Frame, Text, Audio) else of
    return comes, of


def _labels(line: Line, rows: Sequence[TaskRow]) -> frozenset[str] | None:
    """Those that its last model gives; None where it does not say."""
    for task, row in zip(reversed(line.teams[0]), reversed(rows), strict=True):
        if row.gives in (Detections, Scores, Spans):
            names = getattr(task, "gives_names", None)
            return None if names is None else frozenset(names)
    return frozenset()
