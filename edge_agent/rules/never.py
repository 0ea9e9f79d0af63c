"""Rules that can never come true, found before they wait for ever: one line each, by name.

A rule is written out as alternatives, each a list of conditions that have to hold at once; where each alternative
contradicts itself the rule does. What counts for a while after it held contradicts nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import msgspec

from edge_agent.config.rules import Condition, Rule
from edge_agent.config.times import DAY, Window, seconds, window
from edge_agent.errors import ConfigError, nearest, within
from edge_agent.rules.facts import Pipe, Pipes
from edge_agent.rules.leaves import MOMENT_S
from edge_agent.rules.made import KINDS, about, bounds_of, giving, labels_of, phrases_of, streams_of, words_of, zone_of
from edge_agent.rules.said import plain

MOST_ALTERNATIVES = 512
"""of a rule: with more of them nobody looks for a contradiction"""
GIVES = {
    "object": 'finds objects; write tasks = ["detect:detector"]',
    "enters": 'follows objects; write tasks = ["detect:detector", "track"]',
    "leaves": 'follows objects; write tasks = ["detect:detector", "track"]',
    "crosses": 'follows objects; write tasks = ["detect:detector", "track"]',
    "text": "gives words; take text = false out, or wait for a label",
    "heard": 'hears words; write tasks = ["transcribe"], without text = false',
    "read": 'reads words; write tasks = ["read"], without text = false',
    "label": 'gives labels; write tasks = ["classify:encoder?labels=FILE.toml"]',
    "anomaly": 'finds anomalies; write tasks = ["anomaly:MODEL"]',
}


class Literal(NamedTuple):
    """One condition that has to hold, or must not."""

    one: Condition
    positive: bool
    within: float
    """seconds for which it counts after it held"""
    time: Window | None = None
    """it is a time alone"""


def check(made: Iterable[Rule], pipes: Pipes) -> None:
    """ConfigError, one line, for a rule that waits for what no pipeline gives, or that contradicts itself."""
    for rule in made:
        with within(f"rule {rule.name}"):
            for one in rule.condition().every():
                if about(one):
                    with within(words_of(one)):
                        _check_given(one, pipes)
            _check_lasts(rule.condition(), 0.0)
            _check_possible(rule, pipes)


# ── what pipelines give ──────────────────────────────────────────────────────────────────────────────────


def _check_given(one: Condition, pipes: Pipes) -> None:
    """ConfigError where no pipeline can say it, or none of its labels."""
    what, of = about(one), giving(one, pipes)
    if what not in KINDS:
        return
    if not all(plain(phrase).strip() for phrase in phrases_of(one)):
        raise ConfigError("there is no word in it; write one, of letters or digits")
    if not of:
        raise ConfigError(f"{one.pipeline or 'no pipeline'} {'never ' * bool(one.pipeline)}{GIVES[what]}")
    known = _labels(of)
    for label in labels_of(one) if known else ():
        if label.casefold() not in {name.casefold() for name in known}:
            raise ConfigError(f'no model here gives the label "{label}"{nearest(label, known)}')


def _labels(of: Sequence[Pipe]) -> list[str]:
    """The labels that they may give; none where nobody knows."""
    if any(pipe.labels is None for pipe in of):
        return []
    return sorted({label for pipe in of for label in pipe.labels or ()})


def _check_lasts(one: Condition, span: float) -> None:
    """ConfigError for what happens in a moment and is asked to last. `span`: for which it counts afterwards."""
    span = span if one.within is None else seconds(one.within)
    brief = about(one) in ("enters", "leaves", "crosses", *("text", "heard", "read"))
    if brief and one.for_ is not None and span <= MOMENT_S < seconds(one.for_):
        raise ConfigError(
            f"{words_of(one)} lasts for a moment, so it never holds for {one.for_}; write within beside it"
        )
    for inner in one.inner:
        _check_lasts(inner, span)


# ── contradictions ───────────────────────────────────────────────────────────────────────────────────────


def _check_possible(rule: Rule, pipes: Pipes) -> None:
    """ConfigError where each way to come true contradicts itself."""
    ways = alternatives(rule.condition(), True, 0.0)
    clashes = [_clash(way, pipes) for way in ways]
    if clashes and all(clashes):
        raise ConfigError(f"it can never be true: {clashes[0]}")


def alternatives(one: Condition, positive: bool, span: float) -> list[list[Literal]]:
    """The ways in which a condition holds, or does not; none where there are too many of them."""
    span = span if one.within is None else seconds(one.within)
    parts = [alternatives(part, positive, span) for part in one.all or ()]
    if one.any is not None:
        parts.append(_join([alternatives(part, positive, span) for part in one.any], not positive))
    if one.not_ is not None:
        parts.append(alternatives(one.not_, not positive, span))
    if about(one):
        parts.append([[Literal(_bare(one), positive, span)]])
    if one.between is not None or one.days is not None:
        parts.append([[Literal(_bare(one), positive, span, window(one.between, one.days))]])
    return _join(parts, positive)


def _join(parts: list[list[list[Literal]]], both: bool) -> list[list[Literal]]:
    """All of the parts at once (`both`), or one of them."""
    if math.prod(map(len, parts)) > MOST_ALTERNATIVES or not all(parts):
        return []
    if not both:
        return [way for part in parts for way in part]
    return [[literal for way in ways for literal in way] for ways in product(*parts)]


def _bare(one: Condition) -> Condition:
    """It, without what is said of its times."""
    return msgspec.structs.replace(one, between=None, days=None, within=None, for_=None)


def _clash(way: list[Literal], pipes: Pipes) -> str:
    """Which of these conditions exclude each other; "" where none do."""
    times = [(literal.time.minutes(), literal.positive) for literal in way if literal.time is not None]
    if times and not _minutes(times):
        return "its times have no minute in common"
    for a, b in combinations([literal for literal in way if literal.time is None], 2):
        if _exclude(a, b, pipes) or _exclude(b, a, pipes):
            return f"{_named(a)} and {_named(b)} exclude each other"
    return ""


def _minutes(times: Iterable[tuple[set[int], bool]]) -> set[int]:
    """The minutes of the week that are in all of these, or in none of those that are not meant."""
    week = set(range(7 * DAY))
    return week.intersection(*(these if meant else week - these for these, meant in times))


def _named(literal: Literal) -> str:
    return words_of(literal.one) if literal.positive else f"not {words_of(literal.one)}"


def _exclude(a: Literal, b: Literal, pipes: Pipes) -> bool:
    """Whether two conditions never hold at once."""
    if a.one == b.one and a.within == b.within:
        return a.positive != b.positive
    if a.within or b.within:
        return False
    both = {about(a.one), about(b.one)}
    return _too_many(a, b) if both == {"object"} else len(both) == 1 and _two_values(a, b, pipes)


def _two_values(a: Literal, b: Literal, pipes: Pipes) -> bool:
    """Whether a source has to be in two conditions, or a picture to have two labels."""
    what = about(a.one)
    one_at_a_time = what == "stream" or (what == "label" and all(pipe.lasting for pipe in giving(a.one, pipes)))
    same = a.one.pipeline == b.one.pipeline is not None and a.positive and b.positive
    return one_at_a_time and same and not set(_values(a.one)) & set(_values(b.one))


def _values(one: Condition) -> tuple[str, ...]:
    return streams_of(one) or tuple(label.casefold() for label in labels_of(one))


def _too_many(a: Literal, b: Literal) -> bool:
    """Whether there have to be more of `a` than there may be of `b`, though each of `a` is one of `b`."""
    least, most = _range(a)[0], _range(b)[1]
    zones = (zone_of(b.one) in ("", zone_of(a.one))) and (b.one.loiters is None or a.one.loiters is not None)
    pipes = b.one.pipeline in (None, a.one.pipeline)
    wide, narrow = labels_of(b.one), labels_of(a.one)
    labels = not wide or (bool(narrow) and {x.casefold() for x in narrow} <= {x.casefold() for x in wide})
    return zones and pipes and labels and least > most


def _range(literal: Literal) -> tuple[float, float]:
    """The least and the largest number of things with which it holds; all numbers where that is no range."""
    least, most = bounds_of(literal.one)
    if literal.positive:
        return least, most
    if most == math.inf:
        return 0, least - 1
    return (most + 1, math.inf) if least == 0 else (0, math.inf)
