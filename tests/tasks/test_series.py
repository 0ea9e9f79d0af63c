"""Numbers one after the other: what is rare among those before it, and bad input of all kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError, InputError
from edge_agent.tasks import make_task
from edge_agent.tasks.anomaly.series import CALM, LEARN, Series, SeriesTask, point
from edge_agent.types import Anomaly, Finding, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event

LIMIT, STEP = 130.0, 300.0


def noise(count: int, seed: int = 0) -> list[float]:
    return [float(x) for x in np.random.default_rng(seed).normal(20, 1, count)]


def told(values: list[float], step: float = STEP, begin: float = 0.0) -> list[bool]:
    """Whether the series is unusual at each of these."""
    series = Series()
    return [series(begin + i * step, x, LIMIT)[1] for i, x in enumerate(values)]


def task(home: Path, options: str = "store=boiler") -> SeriesTask:
    made = make_task(parse_uri(f"anomaly:series?{options}"), lambda name: pytest.fail(name), home)
    assert isinstance(made, SeriesTask)
    return made


def line(text: str, at: float = 0.0) -> Text:
    return Text(text, at, 0.0)


def what(found: Finding) -> Anomaly:
    assert isinstance(found.what, Anomaly)
    return found.what


def test_a_jump_of_the_level_is_noticed_and_the_usual_is_not() -> None:
    usual = noise(3000)
    alarms = sum(now and not before for before, now in zip([False, *told(usual)], told(usual), strict=False))
    assert alarms <= 3000 / LIMIT, "no more often than once in LIMIT points"
    shown = told([*usual, *(x + 8 for x in noise(50, 1))])[3000:]
    assert any(shown[:12]), "within a dozen points"


def test_what_is_usual_at_noon_is_unusual_at_midnight() -> None:
    hours = [20 + 10 * np.sin(2 * np.pi * i / 288) for i in range(288 * 14)]
    values = [x + 0.2 * y for x, y in zip(hours, noise(len(hours)), strict=True)]
    at_night = [*values, *values[144 : 144 + 12]]
    assert any(told(at_night)[-12:]) and not told(values)[-1]


def test_nothing_of_the_future_is_used() -> None:
    first, second = noise(600), noise(600, 5)
    assert told([*first, *second])[:600] == told(first)


def test_a_number_that_stands_still_is_noticed_and_one_that_always_did_is_not() -> None:
    assert any(told([*noise(1000), *[20.0] * 80])[1000:])
    assert not any(told([7.0] * 2000)), "a constant series is usual"
    changed = told([*[7.0] * 1000, 7.5, 7.5])
    assert not any(changed[:1000]) and changed[1000], "until it changes"


def test_it_says_nothing_before_it_has_learned() -> None:
    assert not any(told([*noise(LEARN - 50), 1e6, 1e6]))


def test_after_a_gap_the_mean_of_the_last_numbers_begins_anew() -> None:
    series = Series()
    for i, x in enumerate(noise(500)):
        series(i * STEP, x, LIMIT)
    late = 500 * STEP + 86400 * 3
    series(late, 20.5, LIMIT)
    assert series.level.last == 20.5 and series.points == 501


def test_it_is_usual_again_after_so_many_usual_points() -> None:
    flags = told([*noise(2000), *[60.0] * 3, *noise(CALM + 40, 3)])
    assert flags[2000] and flags[2003] and not flags[-1]


def test_a_restart_changes_nothing(tmp_path: Path) -> None:
    values = noise(900)

    def run(home: Path, stops: tuple[int, ...]) -> list[Anomaly]:
        found, one = [], task(home)
        for i, x in enumerate(values):
            if i in stops:
                list(one.ended())
                one = task(home)
            found += [what(each) for each in one(line(f"{x!r}", i * STEP))]
        return found

    assert run(tmp_path / "a", ()) == run(tmp_path / "b", (1, 150, 700))


def test_points_that_are_read_again_after_a_restart_do_not_count_twice(tmp_path: Path) -> None:
    one = task(tmp_path)
    lines = [line(f"{1000 + 10 * i},{x}") for i, x in enumerate(noise(50))]
    assert sum(len(list(one(each))) for each in lines + lines[-20:]) == 50
    assert len(list(one(line("1000,3", 0)))) == 0
    assert len(list(one(line("2020-01-01T00:00:00Z,3")))) == 1


@pytest.mark.parametrize(
    ("text", "at", "x"),
    [
        ("21.5", 5.0, 21.5),
        ("2014-02-14 14:30:00,42.25", 1392388200.0, 42.25),
        ("1392388200, -3e2", 1392388200.0, -300.0),
        ("2014-02-14T14:30:00Z,1", 1392388200.0, 1.0),
        ('{"value": 7, "time": "2014-02-14T15:30:00+01:00", "unit": "C"}', 1392388200.0, 7.0),
        ('{"value": 7}', 5.0, 7.0),
    ],
)
def test_the_forms_of_a_number(text: str, at: float, x: float) -> None:
    assert point(line(text, 5.0), "value", "time") == (at, x)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("warm", '"warm" is no number'),
        ("nan", "is no finite number"),
        ("1e999", "is no finite number"),
        ("now,3", '"now" is no time'),
        ("-5,3", "no time of seconds since 1970"),
        ('{"value": "x"}', "is no number"),
        ('{"value": true}', "is no finite number"),
        ('{"value": null}', "is no number"),
        ('{"value": [1]}', "is no number"),
        ('{"temp": 3}', 'the line has no "value", only temp; name it with value='),
        ("{", "is no JSON"),
    ],
)
def test_a_line_that_holds_no_number(text: str, says: str, tmp_path: Path) -> None:
    one = task(tmp_path)
    list(one(line("1", 1.0)))
    with pytest.raises(InputError, match=says):
        list(one(line(text, 2.0)))
    assert one._series.points == 1, "it changes nothing"


def test_a_member_of_an_object_by_its_name(tmp_path: Path) -> None:
    one = task(tmp_path, "store=x&value=temp&time=when")
    (found,) = one(line(json.dumps({"temp": 3.5, "when": 100})))
    event = to_event(found, "boiler")
    assert event.value == 3.5  # type: ignore[attr-defined]


def test_what_cannot_be_made(tmp_path: Path) -> None:
    for options, says in (
        ("store=a/b", "store=a/b: give a name"),
        ("limit=1&store=x", "limit=1: give a number from 2"),
        ("store=x&valu=y", 'unknown option "valu"; did you mean "value"'),
    ):
        with pytest.raises(ConfigError, match=says):
            task(tmp_path, options)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "bad.json").write_text('{"points": "many"}')
    with pytest.raises(ConfigError, match="is no series of ours"):
        task(tmp_path, "store=bad")
    (tmp_path / "series" / "bad.json").write_text('{"hours": [], "points": 3}')
    with pytest.raises(ConfigError, match="is no series of ours"):
        task(tmp_path, "store=bad")
