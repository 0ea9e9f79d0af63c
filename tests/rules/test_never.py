"""Rules that can never come true, or wait for what no pipeline gives: one line each, by name."""

from __future__ import annotations

import msgspec
import pytest

from edge_agent.config.rule_names import checked_rules
from edge_agent.config.rules import Rule
from edge_agent.errors import ConfigError
from edge_agent.rules import never
from edge_agent.rules.facts import Pipe
from tests.rules.reference import PICTURE, TRACKING, WORDS, Table
from tests.rules.test_engine import PIPES, ZONES

KNOWN = {
    **PIPES,
    TRACKING: msgspec.structs.replace(PIPES[TRACKING], labels=frozenset({"person", "car"})),
    PICTURE: msgspec.structs.replace(PIPES[PICTURE], labels=frozenset({"open", "shut"})),
    "said": Pipe(name="said", kinds=frozenset({"scores"}), senses=frozenset({"heard"}), words=False),
}


def checked(when: object, **more: object) -> None:
    made = msgspec.convert([{"name": "alarm", "when": when, **more}], list[Rule])
    checked_rules(made, [], list(KNOWN), ZONES)
    never.check(made, KNOWN)


YARD = {"pipeline": TRACKING}


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ([{"object": "person", **YARD}, {"no": "person", **YARD}], "person of yard and no person of yard exclude each"),
        ([{"object": "person", "in": "lawn"}, {"no": "any"}], "person in lawn and no thing exclude each other"),
        (
            [{"object": "car", "in": "lawn", "above": 3}, {"object": ["car", "person"], "below": 3}],
            "exclude each other",
        ),
        ([{"object": "car", "above": 1}, {"not": {"object": "car"}}], "car above 1 and not car exclude each other"),
        ([{"enters": "lawn"}, {"not": {"enters": "lawn"}}], "something enters lawn and not something enters lawn"),
        (
            {"all": [{"text": "a"}, {"any": [{"not": {"text": "a"}}, {"no": "car", "for": "5s"}]}, {"object": "car"}]},
            "exclude",
        ),
        ([{"between": "22:00-23:00"}, {"between": "08:00-09:00"}], "its times have no minute in common"),
        ({"object": "person", "between": "22:00-02:00", "days": "fri"}, None),
        ([{"object": "person", "days": "sat"}, {"between": "22:00-02:00", "days": "mon-thu"}], "no minute in common"),
        ([{"between": "22:00-06:00"}, {"not": {"between": "20:00-07:00"}}], "its times have no minute in common"),
        ([{"between": "22:00-06:00", "days": "fri"}, {"days": "sat"}], None),
        (
            [{"stream": "dark", **YARD}, {"stream": ["ok", "frozen"], **YARD}],
            "stream dark of yard and stream ok or frozen",
        ),
        ([{"label": "open", "pipeline": PICTURE}, {"label": "shut", "pipeline": PICTURE}], "exclude each other"),
        ([{"label": "open", "pipeline": WORDS}, {"label": "shut", "pipeline": WORDS}], None),
        ({"all": [{"object": "person"}, {"no": "person"}], "within": "5s"}, None),
        ([{"object": "person", "in": "lawn"}, {"no": "person", "in": "pond"}], None),
        ([{"object": "person", "above": 1}, {"object": "person", "below": 3}], None),
        (
            {"enters": "lawn", "for": "5s"},
            "something enters lawn lasts for a moment, so it never holds for 5s; write within",
        ),
        ({"all": [{"enters": "lawn"}], "for": "5s", "within": "9s"}, None),
        ({"object": "bird", **YARD}, 'bird of yard: no model here gives the label "bird"; known are car, person'),
        ({"label": "opne", "pipeline": PICTURE}, 'no model here gives the label "opne"; did you mean "open"?'),
        ({"object": "Person", **YARD}, None),
        ({"object": "person", "pipeline": WORDS}, 'person of words: words never finds objects; write tasks = ["detect'),
        ({"text": "help", "pipeline": "said"}, "said never gives words; take text = false out, or wait for a label"),
        ({"read": "AB 12"}, 'read "AB 12": no pipeline reads words; write tasks = ["read"]'),
        ({"text": ["help", "?!"]}, "there is no word in it"),
        ({"anomaly": True, **YARD}, "yard never finds anomalies"),
    ],
)
def test_what_can_never_be_true(when: Table | list[Table], says: str | None) -> None:
    if says is None:
        checked(when)
        return
    with pytest.raises(ConfigError) as caught:
        checked(when)
    assert str(caught.value).startswith("rule alarm: ") and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_rule_of_very_many_ways_is_let_pass_in_little_time() -> None:
    some = [{"object": "person", "in": zone, "above": n} for zone in ("lawn", "pond") for n in range(3)]
    checked([{"any": some}] * 7)


def test_what_others_tasks_give_is_not_known() -> None:
    made = msgspec.convert([{"name": "a", "when": {"label": "x", "pipeline": "p"}}], list[Rule])
    never.check(made, {"p": Pipe(name="p")})
