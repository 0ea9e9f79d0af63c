"""The evaluator against the slow one, on rules and histories that hypothesis thinks of."""

from __future__ import annotations

import os
import time
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config.rule_names import checked_rules
from edge_agent.config.rules import Rule
from edge_agent.config.zones import Zone
from edge_agent.events import AnyEvent, Event
from edge_agent.rules.engine import Engine
from edge_agent.rules.facts import Change, Now, Pipe
from tests.rules import reference
from tests.rules.reference import BOXES, PICTURE, SOUND, STEP, TRACKING, WORDS, Happened, History, Table

PIPES = {
    pipe.name: pipe
    for pipe in (
        Pipe(name=TRACKING, kinds=frozenset({"object", "crossing"}), zones=frozenset({"lawn", "pond", "line"})),
        Pipe(name=BOXES, kinds=frozenset({"detections"})),
        Pipe(name=WORDS, kinds=frozenset({"scores", "text"}), senses=frozenset()),
        Pipe(name=PICTURE, kinds=frozenset({"scores"}), lasting=True, words=False),
        Pipe(name=SOUND, kinds=frozenset({"anomaly"})),
    )
}
ZONES = [
    Zone("lawn", [(0, 0), (1, 0), (1, 1)], TRACKING, stays="2s"),
    Zone("pond", [(0, 0), (1, 0), (1, 1)], TRACKING, stays="2s"),
    Zone("line", [(0, 0), (1, 0)], TRACKING, line=True),
]
STARTS = 1_800_000_000.0 - 1_800_000_000 % 86400 + 6 * 3600 - 8
"""eight seconds before six in the morning, UTC, of some day"""

LABELS = ("person", "car")
labels = st.one_of(st.sampled_from([*LABELS, "any"]), st.just(["person", "car"]))
zones = st.sampled_from(["lawn", "pond"])
times = st.sampled_from(["0.5s", "1s", "2s", "3.5s"])


def table(required: dict[str, Any], optional: dict[str, Any] | None = None) -> st.SearchStrategy[Table]:
    return st.fixed_dictionaries(required, optional=optional or {})


def leaves(others: list[str]) -> st.SearchStrategy[Table]:
    rule = [table({"rule": st.sampled_from(others)})] if others else []
    pipe = {"pipeline": st.sampled_from([TRACKING, BOXES])}
    return st.one_of(
        table({"object": labels}, {**pipe, "above": st.integers(0, 2)}),
        table({"object": labels, "below": st.integers(1, 3)}, pipe),
        table({"object": labels}, {"in": zones}),
        table({"object": labels, "loiters": zones}),
        table({"no": labels}, {"in": zones}),
        table({"no": labels}, pipe),
        table({"enters": zones}, {"object": labels}),
        table({"leaves": zones}, {"object": labels}),
        table({"crosses": st.just("line")}, {"direction": st.sampled_from(["in", "out"]), "object": labels}),
        table({"text": st.sampled_from(["help", ["help", "fire"]])}),
        table({"label": st.sampled_from(["open", "shut"])}, {"pipeline": st.sampled_from([WORDS, PICTURE])}),
        table({"label": st.just("open"), "pipeline": st.just(WORDS), "score": st.just(0.5)}),
        table({"anomaly": st.just(True)}),
        table(
            {"stream": st.sampled_from(["dark", ["dark", "stalled"]])}, {"pipeline": st.sampled_from([TRACKING, SOUND])}
        ),
        st.sampled_from([{"between": "05:00-06:00"}, {"between": "06:00-05:00"}, {"days": "mon"}]),
        *rule,
    )


def conditions(others: list[str]) -> st.SearchStrategy[Table]:
    def timed(one: st.SearchStrategy[Table]) -> st.SearchStrategy[Table]:
        more = table({}, {"for": times, "within": times, "between": st.just("05:00-06:00")})
        return st.builds(lambda a, b: {**b, **a}, one, st.one_of(st.just({}), more))

    return st.recursive(
        timed(leaves(others)),
        lambda inner: timed(
            st.one_of(
                table({"all": st.lists(inner, min_size=1, max_size=3)}),
                table({"any": st.lists(inner, min_size=1, max_size=3)}),
                table({"not": inner}),
            )
        ),
        max_leaves=4,
    )


@st.composite
def rule_sets(draw: st.DrawFn) -> list[Table]:
    made: list[Table] = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        when = conditions([rule["name"] for rule in made])
        rule = {"name": name, "when": draw(st.one_of(when, st.lists(when, min_size=1, max_size=2)))}
        made.append({**rule, **draw(table({}, {"for": times, "within": times, "cooldown": times}))})
    return made


some_zones = st.lists(zones, unique=True, max_size=2)
happenings = st.one_of(
    table(
        {
            "kind": st.just("object"),
            "of": st.just(TRACKING),
            "object": st.sampled_from(["1", "2"]),
            "label": st.sampled_from(LABELS),
            "phase": st.sampled_from(["new", "update", "update", "end"]),
            "zones": some_zones,
            "entered": some_zones,
            "left": some_zones,
            "loiters": some_zones,
            "stationary": st.booleans(),
            "why": st.sampled_from(["", "the source has stopped"]),
        }
    ),
    table(
        {"kind": st.just("detections"), "of": st.just(BOXES), "labels": st.lists(st.sampled_from(LABELS), max_size=3)}
    ),
    table(
        {
            "kind": st.just("crossing"),
            "of": st.just(TRACKING),
            "line": st.just("line"),
            "direction": st.sampled_from(["in", "out"]),
            "label": st.sampled_from(LABELS),
        }
    ),
    table(
        {
            "kind": st.just("scores"),
            "of": st.sampled_from([WORDS, PICTURE]),
            "label": st.sampled_from(["open", "shut", "unknown"]),
            "score": st.sampled_from([0.4, 0.9]),
            "text": st.sampled_from(["", "Help me!", "helpful fire"]),
        }
    ),
    table({"kind": st.just("text"), "of": st.just(WORDS), "text": st.sampled_from(["fire", "HELP", "nothing"])}),
    table({"kind": st.just("anomaly"), "of": st.just(SOUND), "unusual": st.sampled_from([True, False, None])}),
    table(
        {
            "kind": st.just("stream"),
            "of": st.sampled_from(sorted(PIPES)),
            "is": st.sampled_from(["ok", "ok", "dark", "stalled", "ended"]),
        }
    ),
    table({"kind": st.just("profile"), "rules": st.sampled_from([None, ["a"], ["b", "c"], []])}),
)
BEGIN: list[Happened | None] = [{"kind": "stream", "of": name, "is": "ok"} for name in sorted(PIPES)]
histories = st.one_of(
    st.lists(st.one_of(st.none(), happenings), max_size=24).map(lambda many: [*BEGIN, *many, *[None] * 8]),
    st.lists(st.one_of(st.none(), happenings), max_size=24),
)
AT = "2026-01-01T00:00:00.000Z"
BOX = {"score": 0.9, "box": (0, 0, 1, 1), "width": 1, "height": 1}


def event_of(one: Happened, number: int) -> Event:
    """What the agent would keep."""
    body: dict[str, Any] = {"pipeline": one["of"], "at": AT, "id": f"d/1/{number}", "kind": one["kind"]}
    if one["kind"] == "object":
        body |= {**BOX, "class_id": 0, "since": AT, "seconds": 1.0}
    elif one["kind"] == "crossing":
        body |= {**BOX, "object": "1"}
    elif one["kind"] == "detections":
        boxes = [{"label": label, "class_id": 0, "score": 0.9, "box": (0, 0, 1, 1)} for label in one["labels"]]
        body |= {"width": 1, "height": 1, "detections": boxes}
    elif one["kind"] == "scores":
        body |= {"scores": {}}
    elif one["kind"] == "anomaly":
        body |= {"error": 1.0}
    kinds = {key: value for key, value in one.items() if key not in ("of", "labels")}
    event: Event = msgspec.convert({**body, **kinds}, AnyEvent)
    return event


def engine_of(rules: list[Table]) -> Engine:
    made = msgspec.convert(rules, list[Rule])
    checked_rules(made, [], list(PIPES), ZONES)
    return Engine(made, PIPES, time.gmtime)


def played(engine: Engine, history: list[Happened | None]) -> list[tuple[int, Change]]:
    """Let an engine live through a history, woken when it wants to be."""
    found: list[tuple[int, Change]] = []
    for step, one in enumerate(history):
        at = step * STEP
        while step and engine.due < at:
            due = engine.due
            assert due > at - STEP, "it was woken then"
            assert not engine.tick(Now(due, STARTS + due)), "nothing changes between two steps"
        now = Now(at, STARTS + at)
        if one is None:
            changes = engine.tick(now)
        elif one["kind"] == "stream":
            changes = engine.stream(one["of"], one["is"], now)
        elif one["kind"] == "profile":
            changes = engine.switch(None if one["rules"] is None else frozenset(one["rules"]), now)
        else:
            changes = engine.take(event_of(one, step), now)
        found += [(step, change) for change in (*changes, *engine.tick(now))]
    return found


@settings(max_examples=int(os.environ.get("EDGE_AGENT_EXAMPLES", 40)))
@given(rule_sets(), histories)
def test_it_says_what_the_slow_one_says(rules: list[Table], history: list[Happened | None]) -> None:
    found = played(engine_of(rules), history)
    assert [(step, change.rule, change.phase) for step, change in found] == reference.run(
        rules, History(history, STARTS, 0)
    )
    for step, change in found:
        numbers = [int(name.rpartition("/")[2]) for name in change.because]
        assert numbers == sorted(numbers) and all(history[n] and n <= step for n in numbers), "events from before"
