"""What the types of rules and profiles cannot say: one subject a condition, and names that name something."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from edge_agent.config import rules
from edge_agent.config.rules import Condition, Profile, Rule
from edge_agent.config.times import window
from edge_agent.config.zones import Zone
from edge_agent.errors import ConfigError, nearest, within

PLACES = ("in", "enters", "leaves", "loiters", "crosses")
"""keys that say where an object is; at most one of them"""
WITH = {
    "object": (*PLACES, "direction", "above", "below", "pipeline"),
    "no": ("in", "pipeline"),
    "text": ("pipeline",),
    "heard": ("score", "pipeline"),
    "read": ("score", "pipeline"),
    "label": ("score", "pipeline"),
    "anomaly": ("pipeline",),
    "stream": ("pipeline",),
    "rule": (),
    "all": (),
    "any": (),
    "not": (),
}
"""subject -> the keys that may stand beside it"""
COUNTS = ("above", "below")
ALWAYS = ("between", "days", "within", "for")
"""keys that may stand beside each of them; the first two also alone"""


def keys_of(one: Condition) -> dict[str, Any]:
    """What is written in a condition, as it is called there."""
    fields = msgspec.structs.fields(one)
    return {field.encode_name: value for field in fields if (value := getattr(one, field.name)) is not None}


def subject_of(one: Condition) -> str:
    """What a condition is about: a key of WITH, or "" for a time alone. ConfigError where it is about none or two."""
    given = keys_of(one)
    subjects = list(filter(given.__contains__, WITH)) or ["object"] * bool({*PLACES, *COUNTS} & given.keys())
    if len(subjects) > 1:
        raise ConfigError(f"{subjects[0]} and {subjects[1]}: it is about one of the two; write all = [{{…}}, {{…}}]")
    subject = "".join(subjects)
    beside = {*WITH.get(subject, ()), *ALWAYS, subject}
    if wrong := given.keys() - beside:
        raise ConfigError(f"{min(wrong)} does nothing beside {subject or 'a time'}; delete it")
    if not subject and not {"between", "days"} & given.keys():
        raise ConfigError(f"it waits for nothing; write e.g. object, and known are {', '.join(WITH)}")
    return subject


def checked_rules(
    made: Sequence[Rule], profiles: Sequence[Profile], pipes: Sequence[str], zones: Sequence[Zone]
) -> None:
    """ConfigError, one line that names the rule, for one that is about nothing or about something that is not there."""
    _check_many("rule", [rule.name for rule in made], rules.MOST_RULES)
    _check_many("profile", [profile.name for profile in profiles], rules.MOST_PROFILES)
    names = [rule.name for rule in made]
    for at, rule in enumerate(made):
        with within(f"rule[{at}] ({rule.name})"):
            _check_rule(rule, lambda one: _check(one, names, pipes, zones))
    _check_circle(made)
    for at, profile in enumerate(profiles):
        with within(f"profile[{at}] ({profile.name})"):
            window(profile.between, profile.days)
            _each_named("rules", profile.rules or (), names)
            _each_named("pipelines", profile.pipelines or (), pipes)
    _check_profiled(names, profiles)


def _check_profiled(names: Sequence[str], profiles: Sequence[Profile]) -> None:
    """ConfigError for a rule that no profile lets come on."""
    among = [profile.rules for profile in profiles]
    for at, name in enumerate(names):
        if profiles and not any(rules is None or name in rules for rules in among):
            raise ConfigError(f"rule[{at}] ({name}): no [[profile]] has it among its rules; add it to one")


def _parts(rule: Rule) -> list[Condition]:
    return rule.when if isinstance(rule.when, list) else [rule.when]


def _check_rule(rule: Rule, check: Callable[[Condition], None]) -> None:
    """Check each condition of a rule; an error says which."""
    window(rule.between, rule.days)
    parts = _parts(rule)
    count = sum(1 for part in parts for _ in part.every())
    if not count:
        raise ConfigError('when: it waits for nothing; write e.g. { object = "person" }')
    if count > rules.MOST_CONDITIONS:
        raise ConfigError(f"when: {count} conditions; at most {rules.MOST_CONDITIONS}, make two rules of it")
    for at, one in enumerate(parts):
        _down(f"when[{at}]" if isinstance(rule.when, list) else "when", one, check, 1)


def _down(where: str, one: Condition, check: Callable[[Condition], None], depth: int) -> None:
    with within(where):
        if depth > rules.DEEPEST:
            raise ConfigError(
                f"conditions stand more than {rules.DEEPEST} deep within each other; make two rules of it"
            )
        check(one)
    for key, inner in (("all", one.all), ("any", one.any), ("not", [one.not_] if one.not_ else None)):
        for at, part in enumerate(inner or ()):
            _down(f"{where}.{key}" + f"[{at}]" * (key != "not"), part, check, depth + 1)


def _check(one: Condition, names: Sequence[str], pipes: Sequence[str], zones: Sequence[Zone]) -> None:
    subject, given = subject_of(one), keys_of(one)
    window(one.between, one.days)
    if given.get(subject) == []:
        raise ConfigError(f"{subject}: it names nothing; write {subject} = one or more")
    if one.anomaly is False:
        raise ConfigError("anomaly = false waits for nothing; write anomaly = true, or not = { anomaly = true }")
    _each_named("rule", filter(None, [one.rule]), names)
    _each_named("pipeline", filter(None, [one.pipeline]), pipes)
    places = [key for key in PLACES if key in given]
    _check_counts(one, places)
    for key in places:
        _check_zone(key, given[key], one, zones)


def _check_counts(one: Condition, places: list[str]) -> None:
    """What is said of where an object is, and of how many."""
    if len(places) > 1:
        raise ConfigError(f"{places[0]} and {places[1]}: give one of them, or two conditions")
    if one.direction is not None and "crosses" not in places:
        raise ConfigError('direction is of a line; write crosses = "LINE" beside it')
    counts = {key: value for key, value in keys_of(one).items() if key in COUNTS}
    if counts and {"enters", "leaves", "crosses"} & set(places):
        raise ConfigError(f"above and below count what is there, not what {places[0]}; write in = …")
    if counts.get("below", 10**9) - counts.get("above", -1) < 2:
        what = " and ".join(f"{key} = {value}" for key, value in counts.items())
        raise ConfigError(f"{what}: no number is that; it can never be true")


def _check_zone(key: str, name: str, one: Condition, zones: Sequence[Zone]) -> None:
    """ConfigError unless `name` is a zone of the kind that `key` asks for, in which such an object can be."""
    line = key == "crosses"
    fitting = [zone for zone in zones if (zone.line, zone.mask) == (line, False)]
    _each_named(key, [name], [zone.name for zone in fitting], "line" * line or "zone")
    called = [zone for zone in fitting if zone.name == name]
    mine = [zone for zone in called if one.pipeline in (None, zone.pipeline)]
    if not mine:
        raise ConfigError(f'{key}: "{name}" lies in the picture of {called[0].pipeline}, not of {one.pipeline}')
    _check_holds(key, mine, [*rules.words(one.object), *rules.words(one.no)])


def _check_holds(key: str, zones: Sequence[Zone], labels: Sequence[str]) -> None:
    """ConfigError where no object with one of these labels can be in one of the `zones`, which have one name."""
    name, counted = zones[0].name, ", ".join(zones[0].labels)
    if key == "loiters" and all(zone.stays is None for zone in zones):
        raise ConfigError(f'loiters: "{name}" has no stays, so nothing loiters there; write stays = "60s" there')
    if not any(rules.counts(zone.labels, labels) for zone in zones):
        raise ConfigError(f'{key}: "{name}" counts {counted} only; it can never be true')


def _each_named(key: str, names: Iterable[str], known: Sequence[str], what: str = "") -> None:
    for name in names:
        if name not in known:
            near = nearest(name, known) if known else ""
            raise ConfigError(f'{key}: "{name}" is no {what or key.rstrip("s")}{near}')


def _check_many(what: str, names: Sequence[str], most: int) -> None:
    if len(names) > most:
        raise ConfigError(f"[[{what}]] stands {len(names)} times; at most {most}")
    for at, name in enumerate(names):
        if name in names[:at]:
            raise ConfigError(f'{what}[{at}].name: "{name}" stands twice; give each its own name')


def _check_circle(made: Sequence[Rule]) -> None:
    """ConfigError for a rule that waits for itself, by whatever way."""
    waits = {rule.name: {one.rule for one in rule.condition().every() if one.rule is not None} for rule in made}
    for at, rule in enumerate(made):
        if rule.name in _reached(rule.name, waits):
            others = sorted(other for other in waits[rule.name] if rule.name in _reached(other, waits))
            how = "" if rule.name in others else f" by way of {', '.join(others)}"
            raise ConfigError(f"rule[{at}] ({rule.name}): waits for itself{how}; take that condition out")


def _reached(name: str, waits: dict[str, set[str]]) -> set[str]:
    """The rules that one waits for, and those that these wait for."""
    found, new = set[str](), {name}
    while new := {other for one in new for other in waits[one]} - found:
        found |= new
    return found
