"""Rules and profiles of a config that make no sense, each said in one line that names them."""

from __future__ import annotations

import re

import pytest

from edge_agent import config
from edge_agent.config.times import window
from edge_agent.errors import ConfigError
from tests.conftest import ROOT

PIPES = """
[[pipeline]]
name = "yard"
source = "camera:0"
tasks = ["detect:detector", "track"]
[[pipeline]]
name = "door"
source = "camera:1"
tasks = ["detect:detector", "track"]
[[zone]]
name = "lawn"
pipeline = "yard"
points = [[0, 0.5], [1, 0.5], [1, 1]]
labels = ["person"]
[[zone]]
name = "gate"
pipeline = "yard"
line = true
points = [[0, 0], [1, 1]]
[[zone]]
name = "sky"
pipeline = "yard"
mask = true
points = [[0, 0], [1, 0], [1, 0.2]]
"""


def rule(when: str, more: str = "", name: str = "alarm") -> str:
    return f'[[rule]]\nname = "{name}"\nwhen = {when}\n{more}\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            rule('{ object = "person", in = "lawm" }'),
            'rule[0] (alarm): when: in: "lawm" is no zone; did you mean "lawn"?',
        ),
        (rule('{ in = "gate" }'), 'in: "gate" is no zone'),
        (rule('{ in = "sky" }'), 'in: "sky" is no zone'),
        (rule('{ crosses = "lawn" }'), 'crosses: "lawn" is no line'),
        (rule('{ in = "lawn", pipeline = "door" }'), 'in: "lawn" lies in the picture of yard, not of door'),
        (rule('{ object = "car", in = "lawn" }'), 'in: "lawn" counts person only; it can never be true'),
        (rule('{ loiters = "lawn" }'), 'loiters: "lawn" has no stays'),
        (rule('{ object = "person", pipeline = "yart" }'), 'pipeline: "yart" is no pipeline; did you mean "yard"?'),
        (rule('{ rule = "alarn" }'), 'rule: "alarn" is no rule; did you mean "alarm"?'),
        (rule('{ rule = "alarm" }'), "rule[0] (alarm): waits for itself; take that"),
        (
            rule('{ rule = "b" }') + rule('{ not = { all = [{ rule = "alarm" }] } }', name="b"),
            "rule[0] (alarm): waits for itself by way of b",
        ),
        (rule('{ object = "person" }') * 2, 'rule[1].name: "alarm" stands twice'),
        (rule("{ }"), "when: it waits for nothing"),
        (rule("[]"), "when: it waits for nothing"),
        (rule("[{ object = [] }]"), "when[0]: object: it names nothing"),
        (rule("{ anomaly = false }"), "anomaly = false waits for nothing; write"),
        (rule('{ object = "a", text = "b" }'), "when: object and text: it is about one of the two"),
        (rule('{ text = "a", in = "lawn" }'), "when: in does nothing beside text; delete it"),
        (rule('{ text = "a", score = 0.5 }'), "when: score does nothing beside text; delete it"),
        (rule('{ no = "person", above = 3 }'), "when: above does nothing beside no; delete it"),
        (rule('{ pipeline = "yard" }'), "when: pipeline does nothing beside a time; delete it"),
        (rule('{ enters = "lawn", above = 1 }'), "above and below count what is there, not what enters"),
        (rule('{ enters = "lawn", in = "lawn" }'), "in and enters: give one of them"),
        (rule('{ object = "person", direction = "in" }'), 'direction is of a line; write crosses = "LINE"'),
        (rule('{ object = "person", below = 0 }'), "below = 0: no number is that"),
        (rule('{ object = "person", above = 2, below = 3 }'), "above = 2 and below = 3: no number is that"),
        (
            rule('{ object = "person", above = -1 }'),
            "rule[0].when.above: must be a whole number from 0 to 1_000, not -1",
        ),
        (rule('{ between = "22:00-22:00" }'), 'between: "22:00-22:00" is no time at all'),
        (rule('{ between = "25:00-06:00" }'), 'must be a time of day such as "22:00-06:00", not "25:00-06:00"'),
        (rule('{ days = "mon-fun" }'), 'must be days such as "mon-fri" or "sat,sun", not "mon-fun"'),
        (rule('{ object = "a", for = "soon" }'), 'when.for: must be a time such as "60s" or "5min", not "soon"'),
        (rule('{ zone = "lawn" }'), 'unknown key "rule[0].when.zone"; did you mean "in"?'),
        (rule('"person"'), "rule[0].when: must be a table or a list, not text"),
        (rule("{ not = " * 9 + '{ text = "a" }' + " }" * 9), "when.not.not"),
        (rule("[" + '{ text = "a" },' * 51 + "]"), "51 conditions; at most 50"),
        ("".join(rule('{ text = "a" }', name=f"r{n}") for n in range(201)), "[[rule]] stands 201 times; at most 200"),
        (
            rule('{ text = "a" }') + '[[profile]]\nname = "night"\nrules = ["alarn"]\n',
            'profile[0] (night): rules: "alarn" is no rule; did you mean "alarm"?',
        ),
        (
            '[[profile]]\nname = "night"\npipelines = ["lawn"]\n',
            'pipelines: "lawn" is no pipeline; known are yard, door',
        ),
        ('[[profile]]\nname = "night"\nbetween = "01:00-01:00"\n', "profile[0] (night): between:"),
        ('[[profile]]\nname = "a"\n[[profile]]\nname = "a"\n', 'profile[1].name: "a" stands twice'),
        (
            rule('{ text = "a" }') + '[[profile]]\nname = "home"\nrules = []\n[[profile]]\nname = "away"\nrules = []\n',
            "rule[0] (alarm): no [[profile]] has it among its rules",
        ),
    ],
)
def test_what_makes_no_sense_is_said_by_name(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(PIPES + text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_a_rule_without_names_of_its_own_is_any_of_them() -> None:
    made = config.parse(
        PIPES + rule('{ in = "lawn" }') + rule('[{ rule = "alarm" }, { between = "22:00-06:00" }]', name="b")
    )
    assert [rule.name for rule in made.rule] == ["alarm", "b"] and made.rule[1].condition().all is not None


@pytest.mark.parametrize(
    ("between", "days", "holds", "not_"),
    [
        ("22:00-06:00", "fri", [(4, 22 * 60), (5, 0), (5, 359)], [(4, 21 * 60 + 59), (4, 0), (5, 360), (5, 1380)]),
        ("08:00-17:30", "mon-wed", [(0, 480), (2, 1049)], [(0, 479), (2, 1050), (3, 600)]),
        (None, "sat-mon", [(5, 0), (6, 1439), (0, 0)], [(1, 0), (4, 1439)]),
        ("20:00-24:00", "sun, tue", [(6, 1439), (1, 1200)], [(0, 0), (2, 1200)]),
        ("00:00-24:00", None, [(d, m) for d in range(7) for m in (0, 1439)], []),
    ],
)
def test_a_window_past_midnight_is_of_the_day_it_begins_on(
    between: str | None, days: str | None, holds: list[tuple[int, int]], not_: list[tuple[int, int]]
) -> None:
    made = window(between, days)
    assert all(made.holds(*at) for at in holds) and not any(made.holds(*at) for at in not_)
    assert {day * 1440 + minute for day, minute in holds} <= made.minutes()


def test_the_page_s_examples_are_good() -> None:
    page = (ROOT / "docs" / "rules.md").read_text()
    rules, profiles, *_ = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    pool = '[[zone]]\nname = "pool"\npipeline = "yard"\npoints = [[0, 0], [1, 0], [1, 1]]\n'
    gate = '[[pipeline]]\nname = "gate"\nsource = "camera:2"\ntasks = ["recognise:x"]\n'
    made = config.parse(PIPES + pool + gate + rules + profiles)
    assert [rule.name for rule in made.rule] == ["yard", "gate", "help", "blind", "call"]
    readme = (ROOT / "README.md").read_text()
    (ten,) = [block for block in re.findall(r"```toml\n(.*?)```", readme, re.DOTALL) if "[[rule]]" in block]
    assert len(ten.splitlines()) == 10 and config.parse(ten).rule[0].name == "alarm"
