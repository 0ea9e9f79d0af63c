"""Pauses and thresholds by command: they work at once, survive a restart, and the state says so."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.line import Line
from edge_agent.agent.state import line_state
from edge_agent.config import Config, Mqtt, parse
from edge_agent.events import Event, TextEvent
from tests.broker import Consumer, broker, hears, until
from tests.tiny import tiny_detector

CONFIG = """
[device]
id = "porch"
[store]
path = "store"
{mqtt}
[[pipeline]]
name = "door"
source = "files:{photos}?fps=20&loop=yes"
tasks = ["detect:{model}"]
[[pipeline]]
name = "words"
source = "lines:{folder}/said.txt"
"""


@pytest.fixture
def text(tmp_path: Path, demo_pictures: Path) -> str:
    """A config with a live pipeline and one whose texts are read in order."""
    (tmp_path / "photos").mkdir()
    shutil.copy(demo_pictures / "coffee.png", tmp_path / "photos")
    (tmp_path / "said.txt").write_text("one\n")
    model = tiny_detector(tmp_path / "model")
    return CONFIG.format(photos=tmp_path / "photos", model=model, folder=tmp_path, mqtt="")


@contextmanager
def running(config: Config, told: list[Event] | None = None) -> Iterator[Agent]:
    agent, stop = Agent(config), threading.Event()
    agent.keep.listeners.append((told if told is not None else []).append)
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        yield agent
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def commanding(agent: Agent) -> Callable[..., dict[str, Any]]:
    """-> command(verb, **fields): what is replied."""

    def command(verb: str, **fields: object) -> dict[str, Any]:
        replies: list[dict[str, Any]] = []
        agent.work.controls.verbs[verb](msgspec.json.encode({"id": "1", **fields}), replies.append)
        return replies[0]

    return command


def lines_of(agent: Agent) -> tuple[Line, Line]:
    door, words = agent.lines
    return door, words


def test_a_pause_closes_the_camera_and_outlives_a_restart(text: str, tmp_path: Path) -> None:
    told: list[Event] = []

    def texts() -> list[str]:
        return [event.text for event in told if isinstance(event, TextEvent)]

    with running(parse(text, tmp_path), told) as agent:
        command, (door, words) = commanding(agent), lines_of(agent)
        until(lambda: door.stats.samples > 2 and words.stats.samples == 1, "they work")
        assert command("pause", pipeline="door") == {"ok": True, "result": {"pipeline": "door", "paused": True}}
        state = line_state(door)
        assert (state["stream"], state["by_command"]) == ("paused", "paused")
        until(lambda: door.stop.paused and len(door.box) == 0 and not door.stats.under_way, "it rests")
        until(lambda: door.stop.unseen == 0.0, "its source has ended")
        taken, answered = door.taken, door.stats.samples
        command("pause", pipeline="words")
        with (tmp_path / "said.txt").open("a") as file:
            file.write("two\n")
        assert not threading.Event().wait(0.5)
        assert (door.taken, words.stats.samples) == (taken, 1)
        assert door.stats.samples - answered <= 1
    with running(parse(text, tmp_path), told) as agent:
        command, (door, words) = commanding(agent), lines_of(agent)
        assert line_state(door)["stream"] == "paused"
        assert command("pause", pipeline="door", paused=False)["result"] == {"pipeline": "door", "paused": False}
        until(lambda: door.stats.samples > 2, "the camera is opened again")
        assert (line_state(door)["stream"], line_state(door)["by_command"]) == ("ok", "")
        assert words.stats.samples == 0
    with running(parse(text, tmp_path), told) as agent:
        commanding(agent)("pause", pipeline="words", paused=False)
        until(lambda: len(texts()) > 1, "both lines are answered")
    assert texts() == ["one", "two"], "no text is lost, and none is answered twice"


def test_a_threshold_counts_at_once_and_until_the_config_says_something_else(text: str, tmp_path: Path) -> None:
    with running(parse(text, tmp_path)) as agent:
        command, (door, _) = commanding(agent), lines_of(agent)
        assert line_state(door)["thresholds"] == {"detect": 0.05}
        until(lambda: door.stats.findings, "somebody is in view")
        told = command("threshold", pipeline="door", value=0.99)
        assert told["result"] == {"pipeline": "door", "name": "detect", "value": 0.99, "config": 0.05}
        until(lambda: door.stats.findings == 2, "nobody is in view any more")
        assert line_state(door)["by_command"] == "score of detect is 0.99, not 0.05"
    with running(parse(text, tmp_path)) as agent:
        command, (door, _) = commanding(agent), lines_of(agent)
        until(lambda: door.stats.samples > 2, "it works")
        assert line_state(door)["thresholds"] == {"detect": 0.99}
        assert door.stats.findings == 0, "it is as it was set"
        assert command("threshold", pipeline="door", value=None)["result"]["value"] == 0.05
        until(lambda: door.stats.findings, "somebody is in view again")
        command("threshold", pipeline="door", value=0.9)
    other = text.replace("/model", "/model?score=0.2")
    with running(parse(other, tmp_path)) as agent:
        door, _ = lines_of(agent)
        assert (line_state(door)["thresholds"], line_state(door)["by_command"]) == ({"detect": 0.2}, "")


@pytest.mark.parametrize(
    ("verb", "fields", "error"),
    [
        ("pause", {"pipeline": "dor"}, 'pipeline: "dor" is none; did you mean "door"?'),
        ("pause", {}, "Object missing required field `pipeline`"),
        ("threshold", {"pipeline": "door", "value": 1.5}, "value: 1.5 is no score from 0 to 1"),
        ("threshold", {"pipeline": "door", "value": -1}, "value: -1 is no score from 0 to 1"),
        ("threshold", {"pipeline": "door", "value": "0.5"}, "Expected `float | null`, got `str` - at `$.value`"),
        ("threshold", {"pipeline": "words", "value": 0.5}, 'name: "" is no threshold of words; there are none'),
        ("threshold", {"pipeline": "door", "value": 0.5, "name": "read"}, 'name: "read" is no threshold of door'),
    ],
)
def test_a_wrong_command_is_one_true_line(
    text: str, tmp_path: Path, verb: str, fields: dict[str, object], error: str
) -> None:
    agent = Agent(parse(text, tmp_path))
    told = commanding(agent)(verb, **fields)
    agent.outbox.close()
    assert not told["ok"]
    assert error in told["error"]


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"paused": 3}', b"\xff" * 20])
def test_a_damaged_file_is_said_and_nothing_is_paused(
    text: str, tmp_path: Path, damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "by_command.json").write_bytes(damaged)
    agent = Agent(parse(text, tmp_path))
    agent.outbox.close()
    assert "what was set by command is as the config has it" in caplog.text
    assert not agent.lines[0].stop.paused


def test_over_a_real_broker(text: str, tmp_path: Path) -> None:
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url), "edge/v1/porch/#") as consumer:
        text = text.replace("[[pipeline]]", f'[mqtt]\nurl = "{server.url}"\n[[pipeline]]', 1)
        with running(parse(text, tmp_path)) as agent:
            until(lambda: consumer.last("door/state"), "it runs")
            until(lambda: hears(agent.link), "it hears")
            with Commander(server.port) as send:
                send("edge/v1/porch/cmd/pause", {"id": "p1", "pipeline": "door"})
                until(lambda: consumer.last("reply/pause"), "it answers")
                until(lambda: b'"paused"' in (consumer.last("door/state") or b""), "the state says so")


class Commander:
    """Sends commands with a client of its own."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Callable[[str, object], None]:
        self._client.loop_start()
        return self._send

    def _send(self, topic: str, body: object) -> None:
        payload = body if isinstance(body, str) else msgspec.json.encode(body)
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
