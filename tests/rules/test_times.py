"""Restarts, clocks that jump, summer time, storms: what the evaluator is to outlive, step by step."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import pytest

from edge_agent.config.rules import Profile, Rule
from edge_agent.rules.engine import Engine
from edge_agent.rules.facts import Change, Now
from edge_agent.rules.profiles import planned
from tests.rules.reference import BOXES, PICTURE, SOUND, TRACKING, WORDS, Table
from tests.rules.test_engine import PIPES, event_of

NOON = datetime(2026, 6, 1, 12).timestamp()


def fresh(*rules: Table) -> Engine:
    """One that has not heard of any pipeline yet."""
    named = [{"name": "r", **rule} for rule in rules]
    return Engine(msgspec.convert(named, list[Rule]), PIPES)


def engine(*rules: Table) -> Engine:
    it = fresh(*rules)
    for name in PIPES:
        it.stream(name, "ok", at(0))
    return it


def at(seconds: float, wall: float = NOON) -> Now:
    return Now(seconds, wall + seconds)


def thing(phase: str, *zones: str, object: str = "x-1", **more: Any) -> Any:
    body = {"label": "person", "entered": [], "left": [], "loiters": [], "stationary": False, "why": "", **more}
    return event_of(
        {"kind": "object", "of": TRACKING, "object": object, "phase": phase, "zones": list(zones), **body}, 7
    )


def phases(changes: list[Change]) -> list[str]:
    return [change.phase for change in changes]


LAWN: Table = {"when": {"object": "person", "in": "lawn"}}


def restarted(before: Engine, now: Now, *rules: Table) -> tuple[Engine, list[Change]]:
    """Another engine that has read what this one left, as a device does that was off for two minutes."""
    after = fresh(*rules)
    return after, after.restore(before.kept(now), Now(0.0, now.wall + 120))


def test_a_restart_repeats_no_alert_of_what_is_found_again() -> None:
    first = engine(LAWN)
    assert phases(first.take(thing("new", "lawn"), at(1))) == ["on"]
    second, gone = restarted(first, at(2), LAWN)
    assert not gone and second.world.on.keys() == {"r"}
    assert not second.tick(at(300)), "a camera that gives nothing says nothing"
    second.stream(TRACKING, "ok", at(301))
    second.stream(BOXES, "ok", at(301))
    assert not second.tick(at(302)), "what stood there may be found for a while"
    assert not second.take(thing("update", "lawn", stationary=True), at(303))
    assert phases(second.take(thing("end"), at(400))) == ["off"]


def test_what_is_not_found_again_goes_off() -> None:
    first = engine(LAWN)
    first.take(thing("new", "lawn"), at(1))
    second, _ = restarted(first, at(2), LAWN)
    for name in (TRACKING, BOXES):
        assert not second.stream(name, "ok", at(10))
    assert not second.tick(at(10 + 74)) and second.due == 10 + 75
    assert phases(second.tick(at(10 + 75))) == ["off"]


def test_what_was_held_before_a_restart_is_still_held() -> None:
    rule = {"when": {"no": "person", "pipeline": TRACKING, "for": "10min"}}
    first = engine(rule)
    assert first.due == 600 and phases(first.tick(at(600))) == ["on"]
    second, _ = restarted(first, at(601), rule)
    assert not second.stream(TRACKING, "ok", at(30)) and not second.tick(at(200)), "it is still so"
    assert phases(second.take(thing("new"), at(300))) == ["off"]
    assert not second.take(thing("end"), at(310)) and second.due == 910


def test_a_camera_that_was_away_ends_nothing_and_begins_nothing() -> None:
    nobody: Table = {"no": "person", "pipeline": TRACKING, "for": "10min"}
    it = engine({"when": nobody}, {"name": "open", "when": [nobody, {"text": "help"}]})
    assert phases(it.tick(at(600))) == ["on"]
    text = event_of({"kind": "text", "of": WORDS, "text": "help"}, 1)
    assert not it.stream(TRACKING, "dark", at(700)) and not it.stream(TRACKING, "ok", at(5000))
    assert not it.take(text, at(5001)), "somebody may have been there in the dark"
    assert not it.tick(at(5600)) and phases(it.take(text, at(5601))) == ["on"]
    fresh = engine({"when": nobody})
    fresh.stream(TRACKING, "dark", at(500))
    assert not fresh.stream(TRACKING, "ok", at(550)) and fresh.due == 1150, "it has to be long enough from then on"


def test_another_rule_of_the_same_name_begins_anew_and_the_old_one_ends() -> None:
    first = engine(LAWN)
    first.take(thing("new", "lawn"), at(1))
    other = {"when": {"object": "person", "in": "pond"}}
    second, gone = restarted(first, at(2), other)
    assert [(change.rule, change.phase, change.why) for change in gone] == [("r", "off", "the config has changed")]
    assert phases(second.take(thing("new", "pond"), at(3))) == [] and not second.world.on
    second.stream(TRACKING, "ok", at(4))
    assert second.world.on.keys() == {"r"}


def test_a_word_said_just_before_a_restart_does_not_swallow_the_next() -> None:
    said = {"when": {"text": "help"}}
    text = event_of({"kind": "text", "of": WORDS, "text": "help"}, 1)
    first = engine(said)
    assert phases(first.take(text, at(1))) == ["on"]
    second, _ = restarted(first, at(1.5), said)
    assert phases(second.tick(at(1))) == ["off"] and phases(second.take(text, at(2))) == ["on"]


def test_a_cooldown_goes_on_over_a_restart_but_never_longer_than_it_is() -> None:
    rule = {"when": {"text": "help"}, "cooldown": "10min"}
    text = event_of({"kind": "text", "of": WORDS, "text": "help"}, 1)
    first = engine(rule)
    first.take(text, at(1))
    second, _ = restarted(first, at(301), rule)
    second.tick(at(0))
    assert not second.take(text, at(60)) and phases(second.take(text, at(181))) == ["on"]
    kept = first.kept(Now(301, NOON + 10**9))
    third = fresh(rule)
    third.restore(kept, at(0))
    assert phases(third.tick(at(2))) == ["off"]
    assert not third.take(text, at(599)) and phases(third.take(text, at(601))) == ["on"], "the clock was far ahead"


def test_what_stands_is_waited_for_when_its_pipeline_opens_anew() -> None:
    it = engine(LAWN)
    it.take(thing("new", "lawn"), at(1))
    stopped = {"why": "the source has stopped"}
    assert not it.take(thing("end", stationary=True, **stopped), at(20))
    assert not it.take(thing("update", "lawn", entered=["lawn"], stationary=True), at(40)), "found again"
    assert not it.tick(at(200))
    assert not it.take(thing("end", stationary=True, **stopped), at(300))
    assert phases(it.tick(at(375))) == ["off"], "not found again"


def test_what_is_found_again_has_not_come_in() -> None:
    it = engine({"when": {"enters": "lawn"}})
    assert not it.take(thing("update", "lawn", entered=["lawn"], object="old-1"), at(1))
    assert phases(it.take(thing("new", "lawn", entered=["lawn"], object="new-1"), at(2))) == ["on"]


def test_a_stop_of_the_agent_ends_nothing() -> None:
    it = engine(LAWN)
    it.take(thing("new", "lawn"), at(1))
    it.stopping = True
    assert not it.take(thing("end", left=["lawn"], why="the source has stopped"), at(2)) and it.kept(at(2))["r"].on


def test_a_clock_that_jumps_changes_no_duration() -> None:
    it = engine({"when": {"object": "person", "in": "lawn", "for": "60s"}})
    it.take(thing("new", "lawn"), Now(0, 5.0))
    assert not it.tick(Now(59, NOON)) and phases(it.tick(Now(60, NOON - 10**6))) == ["on"]


def test_a_time_of_day_counts_only_once_the_clock_is_set() -> None:
    it = engine({"when": {"object": "person", "between": "00:00-24:00"}})
    assert not it.take(thing("new"), Now(1, 30.0)), "a board without a battery starts in 1970"
    assert it.due <= 61 and phases(it.tick(Now(31, NOON))) == ["on"]
    assert not it.tick(Now(91, 90.0)), "and it stays what it is when that is lost"


def zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip("no time zones are installed (apt-get install tzdata)")


@pytest.mark.parametrize(
    ("day", "between", "held"),
    [
        # the clock goes from 02:00 to 03:00, and in autumn from 03:00 to 02:00
        (datetime(2026, 3, 29), "01:30-03:30", 60),
        (datetime(2026, 3, 29), "02:10-02:50", 0),
        (datetime(2026, 10, 25), "01:30-03:30", 180),
        (datetime(2026, 10, 25), "02:10-02:50", 80),
        (datetime(2026, 10, 26), "01:30-03:30", 120),
    ],
)
def test_summer_time(day: datetime, between: str, held: int) -> None:
    """A window holds as long as a clock on the wall shows it."""
    berlin = zone("Europe/Berlin")
    rule = msgspec.convert([{"name": "r", "when": {"between": between}}], list[Rule])
    it = Engine(rule, {}, lambda wall: datetime.fromtimestamp(wall, berlin).timetuple())
    start = day.replace(tzinfo=berlin).timestamp()
    minutes, now = 0, 0.0
    while now < 6 * 3600:
        it.tick(Now(now, start + now))
        minutes += "r" in it.world.on
        assert now < it.due <= now + 60
        now = it.due
    assert minutes == held


def test_the_profile_of_the_time() -> None:
    def of(*profiles: Table) -> list[Profile]:
        return msgspec.convert(list(profiles), list[Profile])

    made = of(
        {"name": "home"},
        {"name": "night", "between": "22:00-06:00"},
        {"name": "work", "between": "08:00-17:00", "days": "mon-fri"},
    )
    told = {
        when: planned(
            made, datetime.strptime(when, "%Y-%m-%d %H:%M").replace(tzinfo=zone("UTC")).timestamp(), time.gmtime
        )
        for when in ("2026-06-01 07:59", "2026-06-01 08:00", "2026-06-06 08:00", "2026-06-01 23:00", "2026-06-01 05:59")
    }
    assert list(told.values()) == ["home", "work", "home", "night", "night"]
    assert planned(made, 5.0, time.gmtime) is None and planned(of({"name": "a"}), NOON, time.gmtime) is None
    assert planned(of({"name": "a", "between": "22:00-22:01"}), NOON, time.gmtime) in ("", "a")


def test_a_storm_makes_two_events_of_a_rule_a_second_and_no_memory() -> None:
    it = engine({"when": {"object": "person", "in": "lawn"}}, {"name": "word", "when": {"text": "help"}})
    text = event_of({"kind": "text", "of": WORDS, "text": "help"}, 1)
    changes = []
    for number in range(5000):
        now = at(1 + number / 1000)
        changes += it.take(text, now)
        changes += it.take(thing("new", "lawn", object=f"x-{number}"), now)
        changes += it.take(thing("end", object=f"x-{number}"), now)
    assert len([change for change in changes if change.rule == "r"]) <= 2 * 6
    assert [change.phase for change in changes if change.rule == "word"] == ["on"]
    held = [len(things) for one in it.rules for leaf in one.leaves for things in getattr(leaf, "here", {}).values()]
    assert sum(held) == 0 and not it._there


def test_other_pipelines_leave_the_rules_of_the_same_ones_alone() -> None:
    it = engine(LAWN, {"name": "word", "when": {"text": "help", "for": "0.5s", "pipeline": WORDS}})
    it.take(thing("new", "lawn"), at(1))
    before = it.rules[0]
    rules = [one.rule for one in it.rules]
    assert it.turn_to(rules, {**PIPES, WORDS: msgspec.structs.replace(PIPES[WORDS], kinds=frozenset({"text"}))}) == []
    assert it.rules[0] is before and it.rules[1].name == "word"
    changed = msgspec.structs.replace(PIPES[TRACKING], zones=frozenset({"lawn"}))
    gone = it.turn_to(rules, {**PIPES, TRACKING: changed})
    assert phases(gone) == ["off"]
    assert phases(it.tick(at(2))) == ["on"], "who is on the lawn is known"


def test_an_event_names_what_made_it_and_where() -> None:
    it = engine(
        {"when": [{"object": "person", "in": "lawn"}, {"text": "help"}], "within": "30s"},
        {"name": "again", "when": {"rule": "r"}},
    )
    it.take(thing("new", "lawn"), at(1))
    text = event_of({"kind": "text", "of": WORDS, "text": "Help!"}, 9)
    on, again = it.take(text, at(5))
    assert (on.pipeline, on.because, on.why) == ("agent", ("d/1/7", "d/1/9"), 'person in lawn, text "help"')
    assert again.because == on.because and again.why == "rule r"
    (lawn,) = engine(LAWN).take(thing("new", "lawn"), at(1))
    assert (lawn.pipeline, lawn.because, lawn.since) == (TRACKING, ("d/1/7",), NOON + 1)


def test_a_rule_that_begins_later_knows_what_holds_already() -> None:
    it = engine()
    it.take(thing("new", "lawn"), at(1))
    for one in (
        {"kind": "scores", "of": PICTURE, "label": "open", "score": 0.9},
        {"kind": "detections", "of": BOXES, "labels": ["car"]},
        {"kind": "anomaly", "of": SOUND, "unusual": True},
        {"kind": "text", "of": WORDS, "text": "help"},
    ):
        it.take(event_of(one, 8), at(1))
    made: dict[str, Table] = {
        "lawn": {"object": "person", "in": "lawn"},
        "gate": {"label": "open", "pipeline": PICTURE},
        "door": {"object": "car", "pipeline": BOXES},
        "fan": {"anomaly": True},
        "word": {"text": "help"},
    }
    rules = msgspec.convert([{"name": name, "when": when} for name, when in made.items()], list[Rule])
    assert it.turn_to(rules, PIPES) == []
    assert {change.rule for change in it.tick(at(2))} == made.keys() - {"word"}, "words were a moment"
    assert len(it.turn_to([], PIPES)) == 4
    it.turn_to(rules, PIPES, anew=[PICTURE, BOXES])
    assert {change.rule for change in it.tick(at(9))} == {"lawn", "fan"}, "a new picture says what holds then"
