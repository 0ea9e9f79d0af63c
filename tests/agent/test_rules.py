"""Rules and profiles of a running agent: switched, retained, kept over a restart, heard over a real broker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.rules import FILE, Rules
from edge_agent.config import Mqtt, load, parse
from edge_agent.errors import UsageError
from edge_agent.events import TextEvent
from tests.agent.test_agent import finish, pipeline, start, write
from tests.broker import Consumer, Mosquitto, broker, until
from tests.link.test_link import publish

PROFILES = '[[profile]]\nname = "home"\npipelines = []\n[[profile]]\nname = "away"\n'


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    with broker(tmp_path) as server:
        yield server


def test_the_profile_is_switched_and_kept_over_a_restart(tmp_path: Path) -> None:
    config = parse(pipeline("words", "lines:-") + PROFILES, tmp_path)
    rules, told = Rules(config, tmp_path, None), list[str]()
    rules.listeners.append(told.append)
    assert (rules.profile, rules.profiles) == ("home", ["home", "away"])
    assert not rules.alerts("words")
    with pytest.raises(UsageError, match='profile "awya" is none; did you mean "away"'):
        rules.set_profile("awya")
    rules.set_profile("away")
    rules.set_profile("away")
    assert rules.alerts("words") and told == ["away"] and Rules(config, tmp_path, None).profile == "away"
    replies: list[object] = []
    rules.command(b'{"id": "1", "profile": "home"}', replies.append)
    rules.command(b'{"id": "2"}', replies.append)
    assert replies[0] == {"ok": True, "result": {"profile": "home"}} and "profile" in str(replies[1])
    (tmp_path / FILE).write_bytes(b"\xff{")
    assert Rules(config, tmp_path, None).profile == "home"
    (tmp_path / FILE).write_bytes(msgspec.json.encode({"v": 1, "profile": "gone"}))
    assert Rules(config, tmp_path, None).profile == "home"


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
