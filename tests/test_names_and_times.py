"""Names with dots, what nobody serves any more, and a clock that is set while events wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from edge_agent import config
from edge_agent.agent.agent import Agent
from edge_agent.cli import main
from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.events import JSON, TextEvent, rfc3339
from edge_agent.link.clock import Clock
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import Consumer, broker, until
from tests.link.test_link import (
    box,  # noqa: F401
    quick_backoff,  # noqa: F401
)


def write(folder: Path, url: str, *pipelines: str, device: str = "d") -> Path:
    (folder / "in").write_text("a\n")
    file = folder / "agent.toml"
    pipes = "".join(f'[[pipeline]]\nname = "{name}"\nsource = "lines:{folder}/in"\n' for name in pipelines)
    file.write_text(f'[device]\nid = "{device}"\n[mqtt]\nurl = "{url}"\n[store]\npath = "{folder}/store"\n{pipes}')
    return file


def retained(url: str) -> dict[str, bytes]:
    """What a newcomer gets, before a message that is published once it has subscribed."""
    end = ["mosquitto_pub", "-p", url.rpartition(":")[2], "-q", "1", "-t", "edge/end", "-m", "x"]
    with Consumer(Mqtt(url=url), "edge/#") as consumer:
        until(lambda: not subprocess.run(end).returncode and consumer.last("edge/end"), "all has come")
        heard = list(consumer.heard)
    return {topic.removeprefix("edge/v1/"): payload for topic, payload, _ in heard if topic != "edge/end"}


def test_names_with_dots_are_one_level_in_topics_and_keep_their_ids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        old = ("porch.local/status", "porch.local/cam.1/state", "porch.local/health")
        for topic in old:  # as an earlier version has left them
            tool = ["mosquitto_pub", "-p", str(server.port), "-r", "-t", f"edge/v1/{topic}", "-m", "old"]
            subprocess.run(tool, check=True)
        file = write(tmp_path, server.url, "cam.1", device="porch.local")
        assert main(["check", "-c", str(file)]) == 0
        told = capsys.readouterr().out
        assert 'device.id "porch.local" is written porch_local in topics' in told and "edge/v1/porch_local" in told
        agent = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", "-c", str(file)])
        until(lambda: consumer.events(), "the event comes")
        (event,) = consumer.events()
        assert (event["device"], event["pipeline"]) == ("porch.local", "cam.1")
        assert event["id"] == f"porch.local/{event['epoch']}/1", "what consumers know stays as it is"
        topics = {topic for topic, payload, _ in list(consumer.heard) if payload not in (b"old", b"")}
        assert topics <= {f"edge/v1/porch_local/{tail}" for tail in ("status", "health", "cam_1/state", "cam_1/events")}
        until(lambda: not {*old} & set(retained(server.url)), "what was retained under the old names is cleared")
        agent.terminate()
        agent.wait(120)
    with pytest.raises(ConfigError, match=r"stands twice .*a dot is written _"):
        config.load(write(tmp_path, "mqtt://h", "a.b", "a_b"))


def test_states_that_nobody_serves_any_more_are_cleared_after_a_kill_too(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        for names, kill in ((("old", "keep"), True), (("new", "keep"), False)):
            file = write(tmp_path, server.url, *names)
            agent = subprocess.Popen([sys.executable, "-m", "edge_agent", "run", "-c", str(file)])
            served = {f"d/{name}/state" for name in names} | {"d/status", "d/health"}
            until(lambda: set(retained(server.url)) == served, f"just {served} are retained")  # noqa: B023
            (agent.kill if kill else agent.terminate)()
            agent.wait(120)
        states = {topic: payload for topic, payload in retained(server.url).items() if topic.endswith("state")}
        for payload in states.values():
            assert json.loads(payload)["stream"] == "stopped"
            assert json.loads(payload)["why"] == "the agent was stopped"


def test_a_source_that_has_ended_says_so(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        file = write(tmp_path, server.url, "words")
        file.write_text(file.read_text().replace("/in", "/in?follow=no"))
        done = subprocess.run([sys.executable, "-m", "edge_agent", "run", "-c", str(file)])
        assert done.returncode == 0
        assert json.loads(retained(server.url)["d/words/state"])["stream"] == "ended"


def test_health_says_which_mqtt_is_spoken(tmp_path: Path) -> None:
    with broker(tmp_path) as server:
        agent = Agent(config.load(write(tmp_path, server.url, "words")))
        assert agent.link is not None
        agent.link.start()
        until(lambda: agent.state.health()["mqtt"] == "5", "it is known once it is connected")
        agent.link.stop(drain=0)
        agent.outbox.close()


class Hands:
    """A wall clock and one that counts from the boot, which tests turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wall: float) -> None:
        self.wall, self.boot = wall, 1000.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr("edge_agent.link.clock._boottime", lambda: self.boot)

    def run(self, seconds: float) -> None:
        self.wall += seconds
        self.boot += seconds


def at(payload: bytes) -> float:
    return datetime.fromisoformat(json.loads(payload)["at"].replace("Z", "+00:00")).timestamp()


def body(when: float) -> bytes:
    return JSON.encode(TextEvent(pipeline="words", at=rfc3339(when), text="x"))


@pytest.mark.parametrize("behind", [5.0, 3 * 86400.0, 1.7e9, -3 * 86400.0])
def test_times_are_corrected_by_as_much_as_the_clock_was_set(monkeypatch: pytest.MonkeyPatch, behind: float) -> None:
    now = 1_800_000_000.0
    hands = Hands(monkeypatch, now - behind)
    clock = Clock()
    hands.run(100)
    early = hands.wall - 50
    hands.wall += behind
    assert abs(clock.notice(7) - behind) < 0.01
    assert abs(at(clock.right(5, body(early))) - (now + 50)) < 0.01
    assert at(clock.right(8, body(hands.wall))) == hands.wall, "what is numbered after the step is right"
    if behind > 0:
        assert at(clock.right(7, body(hands.wall))) == hands.wall, "put just before the step was noticed"
    hands.run(3600)
    assert clock.notice(20) == 0


def test_two_steps_and_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    hands = Hands(monkeypatch, 1_000_000.0)
    clock = Clock()
    first = hands.wall
    hands.run(10)
    hands.wall += 1000
    clock.notice(1)
    second = hands.wall
    hands.run(8 * 3600)  # asleep: both clocks go on
    assert clock.notice(2) == 0
    hands.wall += 50
    clock.notice(2)
    assert at(clock.right(1, body(first))) == first + 1050
    assert at(clock.right(2, body(second))) == second + 50
    hands.wall += 1  # steered
    assert clock.notice(3) == 0


def test_what_waits_is_not_thought_old_when_the_clock_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = 3 * 86400
    real, ahead = time.time, [-behind]
    monkeypatch.setattr(time, "time", lambda: real() + ahead[0])
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        box = Outbox(tmp_path / "store", "d", max_bytes=1_000_000, expire_hours=1)
        link = Link(Mqtt(url=server.url), "d", box)
        began = real()
        for i in range(400):
            box.put(TextEvent(pipeline="p", at=rfc3339(time.time()), text=f"{i} " + "x" * 400), "telemetry")
        for file in (tmp_path / "store").glob("*.log"):  # written by a clock that was behind
            os.utime(file, (real() - behind,) * 2)
        ahead[0] = 0
        link.start()
        until(lambda: len(consumer.events()) == 400, "all come, and none is dropped as old")
        times = [at(json.dumps(event).encode()) for event in consumer.events()]
        assert all(began - 60 < one < real() + 60 for one in times)
        assert not box.counts.dropped
        link.stop()
        box.close()
