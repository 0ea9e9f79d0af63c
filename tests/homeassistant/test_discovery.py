"""The message of a device, held against the rules by which Home Assistant reads it; no broker, no Home Assistant."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.config import parse
from edge_agent.homeassistant import discovery
from edge_agent.homeassistant.facts import Device, Pipe, Topics
from edge_agent.homeassistant.names import ascii_of, identity, slug
from edge_agent.homeassistant.said import said_by
from edge_agent.link import topics
from edge_agent.types import StreamCondition
from tests.homeassistant.rules import LONG, TOPIC, read, render

pytest.importorskip("jinja2", reason="the extra [dev] is not installed")

BASE = "edge/v1/porch"
TOPICS = Topics(
    status=f"{BASE}/status",
    health=f"{BASE}/health",
    profile=f"{BASE}/profile",
    rules=f"{BASE}/rules",
    state=lambda name: f"{BASE}/{name}/state",
    counts=lambda name: f"{BASE}/{name}/counts",
    last=lambda name: f"{BASE}/{name}/last",
    snapshot=lambda name: f"{BASE}/{name}/snapshot",
    command=lambda verb: f"{BASE}/cmd/{verb}",
)
YARD = Pipe(
    "yard",
    places={"": ["", "person", "Fußgänger"], "gate": ["person"], "any": [""]},
    lines=["street"],
    snapshot=True,
    models=["edge-yolo"],
    thresholds={"detect": "score"},
)
SAID = Pipe("said", text=True, label=True, unusual=True, models=["edge-bert"], thresholds={"anomaly": "limit"})
PORCH = Device("porch", "edge-agent_porch", "1.2", [YARD, SAID], rules=["yard-alarm"], profiles=["home", "away"])
COUNTS = {
    "all": {"person": 2},
    "zones": {"gate": {}, "any": {"dog": 1}},
    "lines": {"street": {"in": {"person": 2, "dog": 1}, "out": {}}},
}
STATE = {
    "stream": "ok",
    "why": "",
    "since": "2026-01-01T00:00:00Z",
    "trouble": "",
    "by_command": "",
    "refused": "",
    "versions": {"edge-yolo": {"serves": "1", "newest": "2"}, "edge-bert": {"serves": "1", "newest": "1"}},
    "thresholds": {"detect": 0.3, "anomaly": 12.5},
}


def entities(device: Device) -> dict[str, dict[str, Any]]:
    made, left_out = discovery.components(device, TOPICS)
    assert left_out == 0
    found: dict[str, dict[str, Any]] = read(discovery.message(device, TOPICS, made))["components"]
    return found


def shows(cid: str, payload: object) -> str:
    return render(entities(PORCH)[cid]["value_template"], payload)


def test_all_that_is_asked_for_is_there() -> None:
    found = entities(PORCH)
    assert {one["platform"] for one in found.values()} == {
        "binary_sensor", "sensor", "image", "update", "select", "switch", "number",
    }  # fmt: skip
    assert {
        "yard:in::person:here", "yard:in::person:count", "yard:in::Fu%df%g%e4%nger:here", "yard:in:::here",
        "yard:in:gate:person:count", "yard:in:any::count", "yard:over:street:in", "yard:snapshot", "yard:pause",
        "yard:threshold:detect", "yard:stream", "said:last:text", "said:last:label", "said:last:unusual",
        ":rule:yard-alarm", ":profile", ":health:memory", ":health:disk", ":model:edge-yolo", ":model:edge-bert",
    } <= set(found)  # fmt: skip


def test_what_is_kept_to_by_each_entity() -> None:
    """`read` holds the message against the rules; here is what they do not say."""
    found = entities(PORCH)
    assert not any("object_id" in one for one in found.values())
    assert all(one["default_entity_id"].split(".")[0] == one["platform"] for one in found.values())
    assert found["yard:stream"]["options"] == list(StreamCondition.__args__)  # type: ignore[attr-defined]
    message = msgspec.json.decode(discovery.message(PORCH, TOPICS, {}))
    assert message["avty"] == [{"t": f"{BASE}/status"}], "the last will counts for what has no availability of its own"
    for cid, one in found.items():
        stream = [where for where in one.get("availability", ()) if where["topic"].endswith("/state")]
        assert bool(stream) == (cid.split(":")[1] in ("in", "over", "last")), cid
        if stream:
            assert one["availability_mode"] == "all" and {"topic": f"{BASE}/status"} in one["availability"]
    assert {short: long for short, long in LONG.items() if long in discovery.SHORT} == {
        short: long for long, short in discovery.SHORT.items()
    }


@pytest.mark.parametrize(
    ("condition", "there"),
    [("ok", "online"), *((one, "offline") for one in StreamCondition.__args__ if one != "ok")],  # type: ignore[attr-defined]
)
def test_what_a_pipeline_says_of_the_world_is_there_while_it_sees_it(condition: str, there: str) -> None:
    (stream,) = [one for one in entities(PORCH)["yard:in::person:here"]["availability"] if "value_template" in one]
    assert render(stream["value_template"], {"stream": condition}) == there


@pytest.mark.parametrize(
    ("cid", "payload", "shown"),
    [
        ("yard:in::person:here", COUNTS, "ON"),
        ("yard:in::person:count", COUNTS, "2"),
        ("yard:in::Fu%df%g%e4%nger:here", COUNTS, "OFF"),
        ("yard:in::Fu%df%g%e4%nger:count", COUNTS, "0"),
        ("yard:in:::count", COUNTS, "2"),
        ("yard:in:gate:person:here", COUNTS, "OFF"),
        ("yard:in:any::here", COUNTS, "ON"),
        ("yard:in:any::count", COUNTS, "1"),
        ("yard:over:street:in", COUNTS, "3"),
        ("yard:over:street:out", COUNTS, "0"),
        ("yard:stream", STATE, "ok"),
        ("yard:pause", STATE, "OFF"),
        ("yard:pause", {**STATE, "stream": "paused"}, "ON"),
        ("yard:threshold:detect", STATE, "0.3"),
        ("said:threshold:anomaly", STATE, "12.5"),
        ("said:last:text", {"text": {"value": "turn it on", "at": "now"}}, "turn it on"),
        ("said:last:text", {"label": {"value": "light"}}, "None"),
        ("said:last:label", {"label": {"value": "light", "score": 0.9, "at": "now"}}, "light"),
        ("said:last:unusual", {"unusual": {"value": True}}, "ON"),
        ("said:last:unusual", {"unusual": {"value": False}}, "OFF"),
        ("said:last:unusual", {}, "None"),
        (":rule:yard-alarm", {"rules": {"yard-alarm": {"on": True, "since": "now"}}}, "ON"),
        (":rule:yard-alarm", {"rules": {"yard-alarm": {"on": False, "since": None}}}, "OFF"),
        (":profile", {"profile": "away"}, "away"),
        (":health:memory", {"rss_bytes": 104857600}, "100.0"),
        (":health:disk", {"disk": "ok"}, "OFF"),
        (":health:disk", {"disk": "No space left on device"}, "ON"),
        (":health:started", {"started": "2026-01-01T00:00:00Z"}, "2026-01-01T00:00:00Z"),
    ],
)
def test_states_are_shown(cid: str, payload: object, shown: str) -> None:
    assert shows(cid, payload) == shown


def test_a_model_and_the_newest_version_of_it() -> None:
    told = msgspec.json.decode(shows(":model:edge-yolo", {**STATE, "refused": "sees noise " * 50}))
    assert (told["installed_version"], told["latest_version"]) == ("1", "2")
    assert len(told["release_summary"]) == 255, "it takes no longer one"


@pytest.mark.parametrize(
    ("cid", "value", "topic", "wanted"),
    [
        ("yard:pause", "ON", "pause", {"pipeline": "yard", "paused": True}),
        ("yard:pause", "OFF", "pause", {"pipeline": "yard", "paused": False}),
        ("yard:threshold:detect", 0.45, "threshold", {"pipeline": "yard", "name": "detect", "value": 0.45}),
        (":profile", 'a "b"', "profile", {"profile": 'a "b"'}),
    ],
)
def test_each_command_is_one_of_ours_with_an_id_of_its_own(
    cid: str, value: object, topic: str, wanted: dict[str, object]
) -> None:
    one = entities(PORCH)[cid]
    assert one["command_topic"] == f"{BASE}/cmd/{topic}"
    sent = [msgspec.json.decode(render(one["command_template"], value=value)) for _ in range(2)]
    assert {key: field for key, field in sent[0].items() if key != "id"} == wanted
    assert sent[0]["id"] != sent[1]["id"]


def test_where_commands_are_to_be_signed_there_is_nothing_to_press() -> None:
    found = entities(msgspec.structs.replace(PORCH, commands=False))
    assert not any("command_topic" in one for one in found.values())
    assert found[":profile:shown"]["device_class"] == "enum", "options of a sensor need it"


def test_removing_takes_a_message_of_its_own_and_names_nothing_but_the_platform() -> None:
    made, _ = discovery.components(PORCH, TOPICS)
    gone = {cid: one for cid, one in made.items() if cid.startswith("said:")}
    left = {cid: one for cid, one in made.items() if cid not in gone}
    first = read(discovery.message(PORCH, TOPICS, {**discovery.removed(gone), **left}))["components"]
    assert list(first)[: len(gone)] == list(gone), "first: a message is read up to what is being made"
    assert all(set(first[cid]) == {"platform"} for cid in gone)
    assert discovery.read(discovery.message(PORCH, TOPICS, left).decode()) == left
    assert discovery.read("{") == discovery.read("[]") == discovery.read('{"cmps": {"a": 3}}') == {}


# ── identities ───────────────────────────────────────────────────────────────────────────────────────────


def test_an_identity_stays_whatever_else_changes() -> None:
    before = entities(PORCH)
    pipes = [msgspec.structs.replace(SAID, models=["other"]), msgspec.structs.replace(YARD, snapshot=False)]
    after = entities(msgspec.structs.replace(PORCH, version="9", pipes=pipes, rules=["other", "yard-alarm"]))
    same = before.keys() & after.keys()
    assert len(same) > 30
    assert {cid: before[cid]["unique_id"] for cid in same} == {cid: after[cid]["unique_id"] for cid in same}


@given(st.lists(st.text(max_size=20), min_size=2, max_size=2, unique=True))
def test_labels_have_identities_of_their_own_and_are_ascii(labels: list[str]) -> None:
    first, second = map(ascii_of, labels)
    assert first != second and (first + second).isascii() and ":" not in first + second
    assert all(one.isidentifier() or one[0].isdigit() for one in map(slug, labels))


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_a_label_of_a_stranger_s_model_is_only_ever_a_label(label: str) -> None:
    device = Device("d", "edge-agent_d", "1", [Pipe("p", places={"": [label]})])
    counts = {"all": {label: 7}, "zones": {}, "lines": {}}
    found = entities(device)
    assert render(found[identity("p", "in", "", ascii_of(label), "count")]["value_template"], counts) == "7"


@pytest.mark.parametrize("label", ["}}{{ now() }}", '"] }}{% if 1 %}', "{# #}", "a'b\"c\\", "\u2028\n", "人", "{%"])
def test_what_looks_like_a_template_is_only_ever_a_label(label: str) -> None:
    device = Device("d", "edge-agent_d", "1", [Pipe("p", places={"": [label, "x"]})])
    found = entities(device)[identity("p", "in", "", ascii_of(label), "count")]
    assert render(found["value_template"], {"all": {label: 7}}) == "7"


def test_a_flood_of_zones_is_cut_and_said() -> None:
    places = {f"zone-{i}": ["", *(f"label {j}" for j in range(12))] for i in range(500)}
    made, left_out = discovery.components(Device("d", "edge-agent_d", "1", [Pipe("p", places=places)]), TOPICS)
    size = len(discovery.message(PORCH, TOPICS, made))
    assert 100_000 < size <= discovery.MOST_BYTES and left_out + len(made) > 500 * 13


# ── topics ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("device", "more", "topic"),
    [
        ("porch", "", "homeassistant/device/porch/config"),
        ("a.b-c_1", "", "homeassistant/device/a_b-c_1/config"),
        ("porch", 'prefix = "site/a"', "homeassistant/device/porch_2abe9c53/config"),
    ],
)
def test_the_topic_is_one_that_it_listens_to(device: str, more: str, topic: str) -> None:
    text = f'[device]\nid = "{device}"\n[mqtt]\nurl = "mqtt://x"\n{more}\n[homeassistant]\n'
    config = parse(text + '[[pipeline]]\nname = "p"\nsource = "lines:-"\n')
    assert topics.discovery(config) == f"/{topic}"
    assert topic in topics.published(config), "doctor asks for the right to it"
    assert "homeassistant/status" in topics.heard(config)
    found = TOPIC.fullmatch(topic.removeprefix("homeassistant/"))
    assert found is not None and found["component"] == "device" and found["object_id"] == topics.node(config)


def test_what_an_event_leaves_to_be_seen() -> None:
    from edge_agent.events import ScoresEvent, TextEvent
    from edge_agent.types import ModelRef

    model = ModelRef("m", "1", "0" * 64)
    about: dict[str, Any] = {"id": "", "epoch": 1, "seq": 1, "device": "d", "pipeline": "p", "at": "t", "age_ms": 1.0}
    text = TextEvent(text="x" * 300, model=model, **about)
    assert said_by(text) == {"text": {"value": "x" * 255, "at": "t"}}
    kept = ScoresEvent(label="light", score=0.5, scores={"light": 0.5}, model=model, **about)
    assert said_by(kept) == {"label": {"value": "light", "score": 0.5, "at": "t"}}, "it keeps its words"
