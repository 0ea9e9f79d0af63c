"""An agent that shows itself to Home Assistant, at a real broker: what is sent there, in which order, and how often."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.agent import homeassistant
from edge_agent.agent.agent import Agent
from edge_agent.config import Config, Mqtt, parse
from edge_agent.errors import ConfigError
from edge_agent.link import broker as broker_module
from tests.agent.test_controls import Commander
from tests.broker import Consumer, Mosquitto, broker, hears, until
from tests.homeassistant.rules import read, render
from tests.tiny import tiny_detector

pytest.importorskip("jinja2", reason="the extra [dev] is not installed")

NODE = "porch"
TOPIC = f"homeassistant/device/{NODE}/config"
HEAD = """
[device]
id = "porch"
[store]
path = "store"
{store}
[mqtt]
url = "{url}"
"""
DOOR = """
[[pipeline]]
name = "door"
source = "files:{folder}/photos?fps=10&loop=yes"
tasks = ["detect:{folder}/model"{more}]
"""
WORDS = """
[[pipeline]]
name = "words"
source = "lines:{folder}/said.txt"
{more}
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homeassistant, "GAP_S", 0.3)
    monkeypatch.setattr(homeassistant, "GREET_S", (0.0, 0.0))
    monkeypatch.setattr(homeassistant, "AGAIN_S", 0.5)
    monkeypatch.setattr(homeassistant, "LAST_S", 0.0)
    monkeypatch.setattr(broker_module, "FIRST_PAUSE_S", 0.05)


class Place:
    """A folder with what the pipelines read, a broker, and what is heard of it."""

    def __init__(self, folder: Path, pictures: Path, server: Mosquitto, consumer: Consumer) -> None:
        self.folder, self.server, self.consumer = folder, server, consumer
        (folder / "photos").mkdir()
        shutil.copy(pictures / "chelsea.png", folder / "photos")
        (folder / "said.txt").write_text("turn the lamp on\n")
        tiny_detector(folder / "model")

    def config(self, *pipes: str, head: str = "[homeassistant]\n", store: str = "") -> Config:
        text = HEAD.format(url=self.server.url, store=store) + head + "".join(pipes or (DOOR, WORDS))
        text = text.replace("{folder}", str(self.folder)).replace("{more}", "")
        return parse(text, self.folder)

    def heard(self, tail: str = TOPIC) -> list[bytes]:
        return [payload for topic, payload, _ in self.consumer.heard if topic == tail]

    def of(self, what: str) -> Any:
        return msgspec.json.decode(self.heard(f"edge/v1/porch/{what}")[-1])

    def entities(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = read(self.heard()[-1])["components"]
        return found

    def shows(self, cid: str) -> str:
        """What an entity says by what was heard last."""
        one = self.entities()[cid]
        told = self.heard(one["state_topic"])
        return render(one["value_template"], msgspec.json.decode(told[-1])) if told else ""


@pytest.fixture
def place(tmp_path: Path, demo_pictures: Path) -> Iterator[Place]:
    with broker(tmp_path) as server, Consumer(Mqtt(url=server.url)) as consumer:
        yield Place(tmp_path, demo_pictures, server, consumer)


@contextmanager
def running(config: Config, reread: Callable[[], Config] | None = None) -> Iterator[Agent]:
    agent, stop = Agent(config, reread=reread), threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        yield agent
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def test_it_is_announced_before_any_state_and_shows_what_is_the_case(place: Place) -> None:
    with running(place.config()):
        until(lambda: place.heard("edge/v1/porch/words/last"), "the text is said")
        until(
            lambda: place.heard("edge/v1/porch/door/counts") and place.of("door/counts")["all"], "somebody is in view"
        )
        states = {f"edge/v1/porch/{one}" for one in ("door/state", "words/state", "health")}
        until(lambda: states <= {topic for topic, _, _ in list(place.consumer.heard)}, "all states are said")
        topics = [topic for topic, _, _ in list(place.consumer.heard)]
        assert topics.index(TOPIC) < min(map(topics.index, states))
        assert {cid for cid in place.entities() if ":" in cid and cid[0] != ":"} == {
            "door:in::person:here", "door:in::person:count", "door:stream", "door:pause", "door:threshold:detect",
            "words:last:text", "words:stream", "words:pause",
        }  # fmt: skip
        assert (place.shows("door:in::person:here"), place.shows("door:in::person:count")) == ("ON", "1")
        assert place.shows("words:last:text") == "turn the lamp on" and place.shows(":health:disk") == "OFF"
        until(lambda: place.shows("door:stream") == "ok", "its state is said")
        until(lambda: '"installed_version": "1"' in place.shows(":model:tiny"), "and the model's")
    until(lambda: place.consumer.last("porch/status") == b"offline", "it is gone")
    assert len(place.heard()) == 1


def test_what_is_pressed_happens(place: Place) -> None:
    head = '[homeassistant]\n[[profile]]\nname = "home"\n[[profile]]\nname = "away"\n'
    with running(place.config(head=head)) as agent, Commander(place.server.port) as send:
        until(lambda: place.heard("edge/v1/porch/door/state") and place.shows("door:stream") == "ok", "it runs")
        until(lambda: hears(agent.link), "it hears")

        def press(cid: str, value: object) -> None:
            one = place.entities()[cid]
            send(one["command_topic"], msgspec.json.decode(render(one["command_template"], value=value)))

        press("door:pause", "ON")
        until(lambda: place.shows("door:pause") == "ON" and place.shows("door:stream") == "paused", "it is paused")
        press("door:pause", "OFF")
        until(lambda: place.shows("door:stream") == "ok", "it goes on")
        press("door:threshold:detect", 0.99)
        until(lambda: place.shows("door:threshold:detect") == "0.99", "the threshold is another one")
        until(lambda: place.shows("door:in::person:here") == "OFF", "nobody is seen any more")
        press(":profile", "away")
        until(lambda: place.shows(":profile") == "away", "the profile is another one")


def test_a_restart_says_nothing_twice_and_who_comes_is_greeted(place: Place) -> None:
    config = place.config()
    for run in range(2):
        with running(config) as agent:
            until(lambda: len(place.heard("edge/v1/porch/door/state")) > run, "it runs")  # noqa: B023
            until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
        until(lambda: place.consumer.last("porch/status") == b"offline", "it is gone")
    assert len(place.heard()) == 1
    assert place.heard("edge/v1/porch/words/last") != [b""], "the last text stays, though it is not said again"
    with running(config) as agent, Commander(place.server.port) as send:
        until(lambda: hears(agent.link), "it hears")
        states = len(place.heard("edge/v1/porch/door/state"))
        send("homeassistant/status", "online")
        until(lambda: len(place.heard()) == 2, "it is greeted")
        until(lambda: len(place.heard("edge/v1/porch/door/state")) > states, "with the states")
        began = time.monotonic()
        for _ in range(20):
            send("homeassistant/status", "online")
        until(lambda: len(place.heard()) >= 3, "it is greeted again")
        assert not threading.Event().wait(0.3)
        greeted = len(place.heard()) - 2
        assert greeted <= 2 + (time.monotonic() - began) / homeassistant.AGAIN_S, "but not as often as somebody says so"
    assert len(set(place.heard())) == 1


def test_a_broker_that_has_forgotten_all_is_told_again(place: Place) -> None:
    with running(place.config()) as agent:
        until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
        place.server.stop(kill=True)
        until(lambda: agent.link and not agent.link.connected, "it notices")
        place.server.start()
        until(lambda: len(place.heard()) == 2, "it is said again")


def test_a_pipeline_that_goes_takes_two_messages_and_its_topics_with_it(place: Place) -> None:
    now = [place.config()]
    with running(now[0], reread=lambda: now[0]) as agent, Commander(place.server.port) as send:
        until(lambda: place.heard("edge/v1/porch/words/last"), "it runs")
        until(lambda: hears(agent.link), "it hears")
        send("homeassistant/status", "online")
        until(lambda: len(place.heard()) == 2, "it is known that somebody listens")
        before = place.entities()
        now[0] = place.config(DOOR, WORDS.replace("words", "other"))
        agent.reload()
        until(lambda: len(place.heard()) == 4, "two messages")
        first, last = (read(payload)["components"] for payload in place.heard()[2:])
        gone = {cid for cid in before if cid.startswith("words:")}
        assert gone and {cid for cid, said in first.items() if len(said) == 1} == gone
        assert last.keys() == first.keys() - gone and "other:last:text" in last
        for tail in ("state", "last"):
            until(lambda: place.heard(f"edge/v1/porch/words/{tail}")[-1:] == [b""], "it is cleared")  # noqa: B023
        send("homeassistant/status", "online")
        until(lambda: len(place.heard()) == 5, "it is greeted")
        assert read(place.heard()[-1])["components"] == last, "what it saw go is not shown to it once more"


def test_a_rule_comes_and_goes_while_the_pipelines_go_on(place: Place) -> None:
    rule = '[[rule]]\nname = "lamp"\nwhen = { text = "lamp" }\n'
    now = [place.config()]
    with running(now[0], reread=lambda: now[0]) as agent:
        until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
        lines = list(agent.lines)
        now[0] = place.config(DOOR, WORDS, rule)
        agent.reload()
        until(lambda: len(place.heard()) == 2, "it is announced")
        cid = next(cid for cid in place.entities() if "lamp" in cid)
        now[0] = place.config()
        agent.reload()
        until(lambda: len(place.heard()) == 4, "two messages remove it")
        assert read(place.heard()[2])["components"][cid] == {"platform": "binary_sensor"}
        assert cid not in place.entities()
        until(lambda: place.heard("edge/v1/porch/rules")[-1:] == [b""], "and then its topic is cleared")
        assert agent.lines == lines


def test_what_went_while_nobody_listened_is_removed_when_somebody_comes(place: Place) -> None:
    with running(place.config()) as agent:
        until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
    with running(place.config(DOOR)) as agent, Commander(place.server.port) as send:
        until(lambda: len(place.heard()) == 3, "it is removed")
        until(lambda: hears(agent.link), "it hears")
        send("homeassistant/status", "online")
        until(lambda: len(place.heard()) == 7, "it is greeted, shown, removed and gone")
        *_, shown, removed, gone = (read(payload)["components"] for payload in place.heard())
        assert len(shown["words:last:text"]) > 1 and removed["words:last:text"] == {"platform": "sensor"}
        assert "words:last:text" not in gone
        send("homeassistant/status", "online")
        until(lambda: len(place.heard()) == 8, "it is greeted")
    until(lambda: place.consumer.last("porch/status") == b"offline", "all is said")
    assert len(place.heard()) == 8, "once"


def test_a_removal_that_a_stop_cut_short_is_done_by_the_next_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(place.config()) as agent:
        until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
    monkeypatch.setattr(homeassistant, "GAP_S", 1000.0)
    with running(place.config(DOOR)):
        until(lambda: len(place.heard()) == 2, "the first message of two")
    monkeypatch.setattr(homeassistant, "GAP_S", 0.1)
    with running(place.config(DOOR)):
        until(lambda: len(place.heard()) == 4, "both, once more")
    first, last = (read(payload)["components"] for payload in place.heard()[2:])
    assert first["words:pause"] == {"platform": "switch"} and "words:pause" not in last


@pytest.mark.parametrize("head", ["", '[homeassistant]\nprefix = "other"\n'])
def test_what_stands_under_a_topic_of_before_is_cleared(place: Place, head: str) -> None:
    with running(place.config()) as agent:
        until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
    with running(place.config(head=head)):
        until(lambda: place.heard()[-1:] == [b""], "it is cleared")
        if head:
            until(lambda: place.heard(f"other/device/{NODE}/config"), "it is announced elsewhere")
        else:
            until(lambda: place.heard("edge/v1/porch/words/last")[-1:] == [b""], "as is what is there for it alone")


def test_a_label_that_is_new_becomes_an_entity_and_stays_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.agent.shown._labels", lambda line: [])  # as of a model that names none
    for run in range(2):
        with running(place.config(DOOR)):
            until(lambda: len(place.heard("edge/v1/porch/door/counts")) > run, "it runs")  # noqa: B023
            until(lambda: "door:in::person:here" in place.entities() or run, "it is announced")  # noqa: B023
        until(lambda: place.consumer.last("porch/status") == b"offline", "it is gone")
    assert len(place.heard()) <= 2, "known from the start, the second time"
    assert "door:in::person:here" in place.entities()


def test_what_a_pipeline_keeps_to_itself_is_not_shown(place: Place) -> None:
    tasks = 'tasks = ["classify:encoder?labels={labels}"]\ntext = false'
    (place.folder / "labels.toml").write_text(
        '[labels]\nlight = ["lamp on", "turn the lamp off"]\nweather = ["is it going to rain", "will it snow"]\n'
    )
    words = WORDS.replace("{more}", tasks.replace("{labels}", str(place.folder / "labels.toml")))
    with running(place.config(words)):
        until(lambda: place.heard("edge/v1/porch/words/last"), "a label is said")
        assert set(place.of("words/last")) == {"v", "label"}
        assert "words:last:text" not in place.entities() and "words:last:label" in place.entities()
    assert not any(b"lamp" in payload for _, payload, _ in place.consumer.heard)


def test_a_metered_link_carries_it_once(place: Place) -> None:
    config = place.config(store="bytes_per_day = 100_000")
    for _ in range(3):
        with running(config) as agent:
            until(lambda: agent.link and agent.link.stands(f"/{TOPIC}"), "the broker has it")
    until(lambda: place.consumer.last("porch/status") == b"offline", "it is gone")
    assert len(place.heard()) == 1 and len(place.heard()[0]) < 8_000


@pytest.mark.parametrize("damaged", [b"", b"{", b'{"payload": 3}', b'{"payload": "{", "topic": "x"}'])
def test_a_damaged_file_has_all_announced_anew(place: Place, damaged: bytes) -> None:
    (place.folder / "store").mkdir()
    (place.folder / "store" / "homeassistant.json").write_bytes(damaged)
    with running(place.config()):
        until(lambda: place.heard(), "it is announced")


def test_without_a_broker_it_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"^homeassistant: there is no broker; set mqtt.url$"):
        parse('[homeassistant]\n[[pipeline]]\nname = "p"\nsource = "lines:-"\n')
    with pytest.raises(ConfigError, match="prefix"):
        parse('[mqtt]\nurl = "mqtt://x"\n[homeassistant]\nprefix = "a/+"\n[[pipeline]]\nname="p"\nsource="lines:-"\n')
