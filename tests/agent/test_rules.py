"""Rules and profiles of a running agent: switched, retained, kept over a restart, heard over a real broker."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.rules import WAITING
from edge_agent.agent.rules_file import NAME
from edge_agent.cli.listen import show_message
from edge_agent.config import Mqtt, load
from edge_agent.errors import UsageError
from edge_agent.events import EVENTS, ObjectEvent, RuleEvent, TextEvent
from edge_agent.rules.running import LEAST_COOLDOWN_S
from tests.agent.test_agent import finish, pipeline, start, write
from tests.agent.test_running import turning
from tests.agent.test_zones import LOWER, film, zone
from tests.broker import Consumer, Mosquitto, broker, until
from tests.cli.test_cli import run
from tests.conftest import lines_of
from tests.link.test_link import publish
from tests.tiny import tiny_detector

PROFILES = '[[profile]]\nname = "home"\npipelines = []\n[[profile]]\nname = "away"\n'


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))


@contextmanager
def made(tmp_path: Path, text: str) -> Iterator[Agent]:
    """An agent that does not run, in a store that the next one finds."""
    agent = Agent(load(write(tmp_path, None, text)))
    try:
        yield agent
    finally:
        agent.outbox.close()


def test_the_profile_is_switched_and_kept_over_a_restart(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\n")
    text = pipeline("words", "lines:words.txt?follow=false") + PROFILES
    told, replies = list[str](), list[object]()
    with made(tmp_path, text) as agent:
        agent.rules.listeners.append(told.append)
        assert (agent.rules.profile, agent.rules.profiles) == ("home", ["home", "away"])
        assert not agent.rules.alerts("words")
        with pytest.raises(UsageError, match='profile "awya" is none; did you mean "away"'):
            agent.rules.set_profile("awya")
        agent.rules.set_profile("away")
        agent.rules.set_profile("away")
        assert agent.rules.alerts("words") and told == ["away"]
    with made(tmp_path, text) as agent:
        assert agent.rules.profile == "away"
        agent.rules.command(b'{"id": "1", "profile": "home"}', replies.append)
        agent.rules.command(b'{"id": "2"}', replies.append)
    assert replies[0] == {"ok": True, "result": {"profile": "home"}} and "profile" in str(replies[1])
    for left in (b"\xff{", msgspec.json.encode({"v": 1, "profile": "gone"})):
        (tmp_path / "store" / NAME).write_bytes(left)
        with made(tmp_path, text) as agent:
            assert agent.rules.profile == "home"


def test_a_time_makes_a_profile_active_until_somebody_chooses_another(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("")
    text = pipeline("words", "lines:words.txt?follow=true") + PROFILES + 'between = "00:00-24:00"\n'
    for chosen in ("", "home"):
        agent = Agent(load(write(tmp_path, None, text)))
        stop = threading.Event()
        thread = threading.Thread(target=agent.run, args=(stop,))
        thread.start()
        try:
            until(lambda rules=agent.rules: rules._kept.planned == "away", "its time was looked at")  # type: ignore[misc]
            if not chosen:
                until(lambda rules=agent.rules: rules.profile == "away", "it is active by itself")  # type: ignore[misc]
                assert agent.rules._kept.by == "time"
                agent.rules.set_profile("home")
            until(lambda rules=agent.rules: rules.idle, "all was dealt with")  # type: ignore[misc]
            assert agent.rules.profile == "home", "also after a restart in the same time"
        finally:
            stop.set()
            thread.join(120)


def test_alerts_of_a_pipeline_that_a_profile_leaves_out_are_telemetry(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\n")
    agent = Agent(load(write(tmp_path, None, pipeline("words", "lines:words.txt?follow=false") + PROFILES)))
    try:
        classes: dict[int, str] = {}
        for name in ("home", "away"):
            agent.rules.set_profile(name)
            agent.keep.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00.000Z", text=name))

        def both() -> bool:
            classes.update((record.seq, record.entry.kind) for record in agent.outbox.take(10))
            return len(classes) == 2

        until(both, "both are there to be sent")
    finally:
        agent.outbox.close()
    assert classes == {1: "telemetry", 2: "alert"}


def test_a_command_switches_the_profile_and_the_broker_retains_it(mosquitto: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\n")
    file = write(tmp_path, mosquitto.url, pipeline("words", "lines:words.txt") + PROFILES)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:

        def profile() -> str:
            return str(json.loads(consumer.last("porch/profile") or b'{"profile": ""}')["profile"])

        agent = start(file)
        until(lambda: profile() == "home", "the first one is active")
        publish(mosquitto.port, "edge/v1/porch/cmd/profile", '{"id": "a", "profile": "away"}')
        until(lambda: profile() == "away", "the other one is")
        until(lambda: b'"ok":true' in (consumer.last("reply/profile") or b""), "it is answered")
        agent.terminate()
        finish(agent)
    with Consumer(Mqtt(url=mosquitto.url)) as late:
        until(lambda: late.last("porch/profile"), "it is retained")
        assert json.loads(late.last("porch/profile") or b"")["profiles"] == ["home", "away"]


# ── rules ────────────────────────────────────────────────────────────────────────────────────────────────


def rule(name: str, when: str, more: str = "") -> str:
    return f'[[rule]]\nname = "{name}"\nwhen = {when}\n{more}\n'


LAWN = zone("lawn", LOWER)
ALARM = rule("alarm", '{ object = "person", in = "lawn" }')


def said_by_rules(consumer: Consumer) -> list[dict[str, Any]]:
    """Each event once, in its order."""
    told = {event["seq"]: event for event in consumer.events() if event["kind"] == "rule"}
    return [event for _, event in sorted(told.items())]


def test_the_yard_alarm_over_a_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    """Twice: a film that has ended is over, and what is in it alerts again."""
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    yard = pipeline("yard", "files:film.avi", f'"detect:{model}", "track:?hits=2"')
    config = write(tmp_path, mosquitto.url, yard + LAWN + ALARM)
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:
        for runs in (1, 2):
            time.sleep(LEAST_COOLDOWN_S)  # after the first run: it comes on again that much later at the soonest
            finish(start(config))
            until(lambda runs=runs: len(said_by_rules(consumer)) == 2 * runs, "on and off arrive")  # type: ignore[misc]
        on, off = said_by_rules(consumer)[:2]
        events = {event["id"]: event for event in consumer.events()}
        until(lambda: b'"on":false' in (consumer.last("porch/rules") or b""), "it is retained that it is off")
    assert (on["rule"], on["phase"], on["pipeline"], on["why"]) == ("alarm", "on", "yard", "person in lawn")
    assert [events[name]["entered"] for name in on["because"]] == [["lawn"]]
    assert (off["phase"], [events[name]["phase"] for name in off["because"]]) == ("off", ["end"])
    assert off["since"] == on["since"] and EVENTS["rule"].words(on).startswith(
        "rule alarm is on   person in lawn   (event "
    )
    with Consumer(Mqtt(url=mosquitto.url)) as late:
        until(lambda: late.last("porch/rules"), "it is retained")
        assert json.loads(late.last("porch/rules") or b"")["rules"]["alarm"] == {"on": False, "since": None}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_repeats_no_alert(mosquitto: Mosquitto, tmp_path: Path, how: signal.Signals) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 600)
    yard = pipeline("yard", "files:film.avi?pace=own&frozen=off&dark=off", f'"detect:{model}", "track:?hits=2"')
    config, kept = write(tmp_path, mosquitto.url, yard + LAWN + ALARM), tmp_path / "store" / NAME
    with Consumer(Mqtt(url=mosquitto.url)) as consumer:

        def news() -> int:
            return len({e["object"] for e in consumer.events() if e["kind"] == "object" and e["phase"] == "new"})

        agent = start(config)
        until(lambda: kept.is_file() and b'"on":true' in kept.read_bytes(), "it is on, and that is kept")
        agent.send_signal(how)
        agent.communicate()
        agent = start(config)
        until(lambda: news() == 2, "somebody is seen by the next run")
        # whatever this run has to say of it is said before the person is seen
        agent.terminate()
        finish(agent)
        until(lambda: consumer.last("porch/status") == b"offline", "it says offline")
        assert [event["phase"] for event in said_by_rules(consumer)] == ["on"]


def test_words_and_pictures_together_and_only_in_a_profile(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi")
    (tmp_path / "words.txt").write_text("nothing\nplease HELP, me\n")
    text = pipeline("yard", "files:film.avi", f'"detect:{model}", "track:?hits=2"')
    text += pipeline("words", "lines:words.txt?follow=false")
    both = '[{ object = "person", enters = "lawn" }, { text = "help me" }]'
    text += (
        zone("lawn", LOWER, 'pipeline = "yard"')
        + rule("both", both, 'within = "60s"')
        + rule("never", both, 'within = "60s"')
    )
    text += '[[profile]]\nname = "home"\nrules = ["both"]\n[[profile]]\nname = "away"\n'
    heard: list[RuleEvent] = []
    agent = Agent(load(write(tmp_path, None, text)))
    agent.keep.listeners.append(lambda event: heard.append(event) if isinstance(event, RuleEvent) else None)
    agent.run(threading.Event())
    (on,) = heard
    assert (on.rule, on.phase, on.pipeline, on.profile, len(on.because)) == ("both", "on", "agent", "home", 2)
    assert on.why == 'person enters lawn, text "help me"'


def test_a_rule_that_the_config_lost_goes_off(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("help\n")
    words = pipeline("words", "lines:words.txt?follow=false")
    heard: list[tuple[str, str]] = []

    def runs(text: str) -> None:
        agent = Agent(load(write(tmp_path, None, text)))
        agent.keep.listeners.append(lambda e: heard.append((e.rule, e.phase)) if isinstance(e, RuleEvent) else None)
        agent.run(threading.Event())

    runs(words + rule("help", '{ text = "help" }', 'within = "1h"'))
    assert heard == [("help", "on")]
    runs(words + rule("help", '{ text = "help" }', 'within = "1h"'))
    assert heard == [("help", "on")], "it is on still, and every word of it was heard before"
    runs(words)
    assert heard == [("help", "on"), ("help", "off")]
    runs(words)
    assert len(heard) == 2


def test_a_storm_waits_for_the_rules_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("one\n")
    words = pipeline("words", "lines:words.txt?follow=true", more='class = "telemetry"')
    agent = Agent(load(write(tmp_path, None, words + rule("help", '{ text = "help 4999" }'))))
    heard: list[RuleEvent] = []
    agent.keep.listeners.append(lambda event: heard.append(event) if isinstance(event, RuleEvent) else None)
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        until(lambda: agent.rules._thread.is_alive(), "the rules are at work")
        for number in range(5000):
            event = TextEvent(pipeline="words", at="2026-01-01T00:00:00.000Z", text=f"help {number}")
            agent.keep.put(event, "telemetry")
            assert agent.rules._queue.qsize() <= WAITING
        until(lambda: heard, "the last one is heard")
        assert agent.rules._passed_over == 0
    finally:
        stop.set()
        thread.join(120)


def test_another_config_changes_only_the_rules_that_it_touches(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("")
    lines = [pipeline(name, f"lines:{name}.txt?follow=true") for name in ("a", "b")]
    rules = rule("a", '{ text = "help", pipeline = "a" }', 'within = "1h"') + rule(
        "b", '{ text = "help", pipeline = "b" }'
    )
    file = write(tmp_path, None, "".join(lines) + rules)
    agent = Agent(load(file), reread=lambda: load(file))
    heard: list[tuple[str, str]] = []
    agent.keep.listeners.append(lambda e: heard.append((e.rule, e.phase)) if isinstance(e, RuleEvent) else None)
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        with (tmp_path / "a.txt").open("a") as a:
            a.write("help\n")
        until(lambda: heard == [("a", "on")], "a is on")
        write(tmp_path, None, lines[0] + lines[1].replace("[]", '["classify:x"]') + rules)
        agent.reload()
        until(lambda: agent.state.refused, "no such model")
        write(tmp_path, None, lines[0] + lines[1].replace("true", "true&rate=100") + rules)
        agent.reload()
        until(lambda: agent.lines[1].config.source.endswith("rate=100") and not agent.state.refused, "b is another one")
        with (tmp_path / "b.txt").open("a") as b:
            b.write("help\n")
        until(lambda: ("b", "off") in heard, "and is heard")
        until(lambda: agent.rules.on == {"a": True, "b": False}, "that is noted")
        assert heard == [("a", "on"), ("b", "on"), ("b", "off")]
    finally:
        stop.set()
        thread.join(120)


def test_rules_and_profiles_change_while_the_pipelines_go_on(mosquitto: Mosquitto, tmp_path: Path) -> None:
    film(tmp_path / "film.avi", 20)
    tasks = f'"detect:{tiny_detector(tmp_path / "model")}", "track"'
    yard = pipeline("yard", "files:film.avi?pace=own&loop=true&frozen=off&dark=off", tasks) + LAWN
    plain = write(tmp_path, mosquitto.url, yard).read_text()
    with Consumer(Mqtt(url=mosquitto.url)) as consumer, turning(tmp_path) as (agent, turn, events):
        until(lambda: any(isinstance(event, ObjectEvent) for event in events), "somebody is there")
        (line,) = agent.lines
        turn(plain + ALARM + PROFILES)
        until(lambda: agent.rules.on == {"alarm": True}, "who stands there already counts")
        assert agent.rules.profile == "home" and agent.rules.profiles == ["home", "away"]
        turn(plain + ALARM.replace("lawn", "lown"))
        assert 'did you mean "lawn"' in agent.state.refused and agent.rules.on == {"alarm": True}
        turn(plain + rule("other", '{ no = "person" }') + PROFILES)
        until(lambda: b'"other"' in (consumer.last("porch/rules") or b""), "another rule is told")
        assert "the config has changed" in [event.why for event in events if isinstance(event, RuleEvent)]
        turn(plain)
        for topic in ("porch/rules", "porch/profile"):
            until(lambda topic=topic: consumer.last(topic) == b"", "it is cleared")  # type: ignore[misc]
        assert agent.lines == [line] and not line.ended and agent.again is None and agent.rules.on == {}


def test_a_model_without_the_label_of_a_rule_is_not_turned_to(tmp_path: Path) -> None:
    for name, label in (("person", "person"), ("cat", "cat")):
        manifest = tiny_detector(tmp_path / name) / "manifest.toml"
        manifest.write_text(manifest.read_text().replace('"person"', f'"{label}"'))
    film(tmp_path / "film.avi", 20)

    def text(model: str) -> str:
        source = "files:film.avi?pace=own&loop=true&frozen=off"
        return pipeline("yard", source, f'"detect:{tmp_path / model}", "track"') + LAWN + ALARM

    file = write(tmp_path, None, text("person"))
    agent = Agent(load(file), reread=lambda: load(file))
    stop = threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        write(tmp_path, None, text("cat"))
        agent.reload()
        until(lambda: agent.state.refused, "it is refused")
        assert agent.state.refused.startswith('rule alarm: person in lawn: no model here gives the label "person"')
        assert agent.lines[0].config.tasks[0].endswith("/person")
    finally:
        stop.set()
        thread.join(120)


def test_check_says_which_rule_can_never_be(tmp_path: Path) -> None:
    model = tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 2)
    yard = pipeline("yard", "files:film.avi", f'"detect:{model}", "track"') + LAWN
    for when, says in (
        ('{ object = "cat" }', 'rule alarm: cat: no model here gives the label "cat"'),
        ('{ object = "person", in = "lawm" }', 'rule[0] (alarm): when: in: "lawm" is no zone; did you mean "lawn"?'),
        (
            '[{ object = "person" }, { no = "person" }]',
            "rule alarm: it can never be true: person and no person exclude",
        ),
    ):
        out = run(tmp_path, "check", "-c", str(write(tmp_path, None, yard + rule("alarm", when))))
        assert out.returncode == 2 and len(lines_of(out.stderr)) == 1 and says in out.stderr, out.stderr
    for topic, code in (("agent/events", 2), ("+/events", 0)):
        own = pipeline("own", f"mqtt:edge/v1/porch/{topic}#json=why") + rule("echo", '{ text = "help" }')
        out = run(tmp_path, "check", "-c", str(write(tmp_path, "mqtt://127.0.0.1", own)))
        assert out.returncode == code and ("own hears what this device says itself" in out.stderr) == bool(code)
    assert 'rule echo: text "help"\n' in out.stdout


def test_listen_says_which_profile_is_active(capsys: pytest.CaptureFixture[str]) -> None:
    show_message("profile", {"v": 1, "profile": "away", "since": "", "by": "command", "profiles": ["home", "away"]})
    assert capsys.readouterr().out.endswith(" profile  away (command)\n")
