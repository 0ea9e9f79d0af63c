"""A real Home Assistant finds the device, shows its states, commands it, and forgets what is gone.

One house, one broker, one agent, whose life these tests follow in order.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from tests.broker import Consumer, Mosquitto, until
from tests.conftest import ROOT
from tests.homeassistant.house import House

pytestmark = pytest.mark.homeassistant

DEPLOYED = ROOT / "deploy" / "homeassistant"
HOME = """
http:
  server_host: 127.0.0.1
  server_port: PORT
api:
config:
frontend:
sun:
automation: !include automations.yaml
lovelace:
  dashboards:
    porch-yard:
      mode: yaml
      title: Porch
      filename: porch.yaml
logger:
  default: warning
"""
DASHBOARD = "views:\n  - title: Porch\n    cards:\n      - !include card.yaml\n"
CONFIG = """
[device]
id = "porch"
[mqtt]
url = "{url}"
[store]
path = "store"
[homeassistant]
[samples]
snapshots = true
[[pipeline]]
name = "{yard}"
source = "files:{pictures}?fps=3&loop=yes"
tasks = ["detect:edge-yolo?classes=person", "track"]
[[pipeline]]
name = "door"
source = "files:{pictures}?fps=1&loop=yes"
tasks = ["detect:edge-yolo?classes=person,dog&score=0.5"]
[[zone]]
name = "gate"
pipeline = "{yard}"
points = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
[[zone]]
name = "street"
pipeline = "{yard}"
line = true
points = [[0.0, 0.1], [1.0, 0.1]]
[[rule]]
name = "yard_alarm"
when = {{ object = "person", in = "gate" }}
[[profile]]
name = "home"
rules = []
[[profile]]
name = "away"
"""
WORDS = """
[[pipeline]]
name = "words"
source = "lines:{said}"
tasks = ["classify:encoder?labels={labels}"]
"""
ALL = {
    "binary_sensor.porch_yard_person": "on",
    "sensor.porch_yard_person_count": "1",
    "binary_sensor.porch_yard_gate_person": "on",
    "sensor.porch_yard_gate_person_count": "1",
    "sensor.porch_yard_street_in": "0",
    "binary_sensor.porch_door_occupied": "on",
    "binary_sensor.porch_door_person": "on",
    "binary_sensor.porch_door_dog": "off",
    "sensor.porch_door_person_count": "1",
    "sensor.porch_yard_stream": "ok",
    "binary_sensor.porch_yard_alarm": "on",
    "select.porch_profile": "away",
    "switch.porch_yard_pause": "off",
    "number.porch_yard_detect_score": "0.3",
    "update.porch_edge_yolo": "off",
    "sensor.porch_words_text": "turn the lamp on",
    "sensor.porch_words_label": "light",
    "sensor.porch_words_stream": "ok",
    "binary_sensor.porch_disk": "off",
    "binary_sensor.porch_new_config_refused": "off",
    "sensor.porch_events_lost": "0",
}


class Porch:
    """The three of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._agent: subprocess.Popen[bytes] | None = None
        keeps = f"allow_anonymous true\npersistence true\npersistence_location {folder}/"
        self.broker = Mosquitto(folder, config=keeps)
        (folder / "said.txt").write_text("turn the lamp on\n")
        (folder / "pictures").mkdir()
        (folder / "pictures" / "one.png").symlink_to(ROOT / "deploy" / "demo" / "astronaut.png")
        self.write()
        self.home = House(
            "porch",
            self.broker.port,
            configuration_yaml=HOME,
            automations_yaml=(DEPLOYED / "automations.yaml").read_text(),
            card_yaml=(DEPLOYED / "card.yaml").read_text(),
            porch_yaml=DASHBOARD,
        )

    def write(self, yard: str = "yard", words: bool = True, shown: bool = True) -> None:
        text = CONFIG + WORDS if words else CONFIG
        labels = ROOT / "deploy" / "demo" / "intents.toml"
        where = {"pictures": self.folder / "pictures", "said": self.folder / "said.txt", "labels": labels}
        text = text.format(url=self.broker.url, yard=yard, **where)
        (self.folder / "agent.toml").write_text(text if shown else text.replace("[homeassistant]\n", ""))

    def start_agent(self) -> None:
        command = [sys.executable, "-m", "edge_agent", "run", "-c", str(self.folder / "agent.toml")]
        told = {**os.environ, "EDGE_AGENT_HOME": str(self.folder / "home")}
        with (self.folder / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(command, stderr=log, env=told)

    def stop_agent(self, kill: bool = False) -> None:
        if self._agent is not None:
            self._agent.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._agent.wait(60)
            self._agent = None

    def reload(self) -> None:
        assert self._agent is not None
        self._agent.send_signal(signal.SIGHUP)

    def restart(self, what: str, kill: bool) -> None:
        if what == "broker":
            self.broker.stop(kill=kill)
            self.broker.start()
        elif what == "agent":
            self.stop_agent(kill)
            self.start_agent()
        else:
            self.home.stop(kill)
            self.home.start()

    def wrong(self, wanted: dict[str, str]) -> dict[str, str | None]:
        """Entities that say something else."""
        states = self.home.states()
        found = {entity: states[entity]["state"] if entity in states else None for entity in wanted}
        return {entity: said for entity, said in found.items() if said != wanted[entity]}

    def settles(self, wanted: dict[str, str], what: str) -> None:
        wrong: dict[str, str | None] = {}

        def right() -> bool:
            time.sleep(0.5)
            wrong.clear()
            wrong.update(self.wrong(wanted))
            return not wrong

        try:
            until(right, what, 120)
        except pytest.fail.Exception:
            pytest.fail(f"{what}: {wrong}")

    def retained(self) -> set[str]:
        """Topics of which the broker keeps something."""
        with Consumer(Mqtt(url=self.broker.url)) as consumer:
            time.sleep(1)
            return {topic for topic, payload, retained in consumer.heard if retained and payload}


@pytest.fixture(scope="module")
def porch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Porch]:
    made = Porch(tmp_path_factory.mktemp("porch"))
    try:
        yield made
    finally:
        made.stop_agent(kill=True)
        made.home.stop(kill=True)
        made.broker.stop(kill=True)


def test_it_appears_by_itself_and_shows_what_is_the_case(porch: Porch) -> None:
    porch.start_agent()
    # the third automation, as nobody is at home, chooses the profile in which there is an alarm
    porch.settles(ALL, "all say what is the case")
    picture = porch.home.picture("image.porch_yard_snapshot")
    assert picture[:3] == b"\xff\xd8\xff" and len(picture) > 2000
    assert porch.home.states()["sensor.porch_words_label"]["attributes"]["score"] > 0.5
    kinds = {one["platform"] for one in porch.home.registry().values()}
    assert kinds == {"mqtt"}
    assert all(identity.startswith("edge-agent_porch:") for identity in porch.home.registry())


def test_what_is_pressed_there_happens_here(porch: Porch) -> None:
    home = porch.home
    home.call("switch", "turn_on", "switch.porch_yard_pause")
    paused = {"switch.porch_yard_pause": "on", "sensor.porch_yard_stream": "paused"}
    porch.settles({**paused, "binary_sensor.porch_yard_person": "unavailable"}, "it is paused")
    home.call("switch", "turn_off", "switch.porch_yard_pause")
    porch.settles(ALL, "it goes on")
    home.call("number", "set_value", "number.porch_door_detect_score", value=0.99)
    unseen = {"binary_sensor.porch_door_person": "off", "sensor.porch_door_person_count": "0"}
    porch.settles({**unseen, "number.porch_door_detect_score": "0.99"}, "nobody is seen by that")
    home.call("number", "set_value", "number.porch_door_detect_score", value=0.5)
    porch.settles(ALL, "somebody is seen again")


def test_the_card_and_the_automations_are_for_it(porch: Porch) -> None:
    home = porch.home
    there = home.states()
    shown = home.websocket(type="lovelace/config", url_path="porch-yard")["views"][0]["cards"][0]
    assert [card["type"] for card in shown["cards"]] == ["picture-entity", "glance", "history-graph", "entities"]
    named = _entities("card.yaml")
    assert len(named) >= 9 and named <= set(there)
    automations = {one: there[one]["state"] for one in there if one.startswith("automation.")}
    assert list(automations.values()) == ["on"] * 3, "each is loaded, and none is refused"
    assert _entities("automations.yaml") - set(there) == {"light.gate"}, "the lamp is the user's"
    for before in home.websocket(type="persistent_notification/get"):
        home._ask("/api/services/persistent_notification/dismiss", {"notification_id": before["notification_id"]})
    home.call("select", "select_option", "select.porch_profile", option="home")
    porch.settles({"binary_sensor.porch_yard_alarm": "off"}, "at home it is off")
    home.call("select", "select_option", "select.porch_profile", option="away")
    until(lambda: home.websocket(type="persistent_notification/get"), "the alarm is told", 60)
    (told,) = home.websocket(type="persistent_notification/get")
    assert told["title"] == "Somebody is in the yard" and "![snapshot](/api/image_proxy/" in told["message"]


def _entities(file: str) -> set[str]:
    """The entities that a file of ours names."""
    return set(re.findall(r"entity(?:_id)?: ([a-z_]+\.\w+)", (DEPLOYED / file).read_text()))


@pytest.mark.parametrize("order", list(permutations(["broker", "agent", "home"])), ids="-".join)
def test_restarts_in_each_order(porch: Porch, order: tuple[str, ...]) -> None:
    """One after the other, without a pause; every second time killed."""
    before = porch.home.registry()
    for turn, what in enumerate(order):
        porch.restart(what, kill=bool(turn % 2))
    porch.settles(ALL, "all say what is the case again")
    after = porch.home.registry()
    assert {one: after[one]["entity_id"] for one in after} == {one: before[one]["entity_id"] for one in before}


def test_a_broker_that_forgets_all_and_a_home_that_starts_then(porch: Porch) -> None:
    porch.home.stop()
    porch.broker.stop(kill=True)
    for file in porch.folder.glob("mosquitto.db*"):
        file.unlink()
    porch.broker.start()
    porch.home.start()
    # of an earlier run of the agent only the broker knew them
    last = {"sensor.porch_words_text", "sensor.porch_words_label"}
    porch.settles({entity: said for entity, said in ALL.items() if entity not in last}, "all is said again")
    with (porch.folder / "said.txt").open("a") as said:
        said.write("turn the lamp on\n")
    porch.settles(ALL, "and what was understood, the next time")


def test_an_agent_that_is_away_says_nothing_of_the_world(porch: Porch) -> None:
    porch.stop_agent(kill=True)
    gone = dict.fromkeys(ALL, "unavailable")
    porch.settles(gone, "the broker tells the last will")
    porch.start_agent()
    porch.settles(ALL, "it is back")


def test_a_pipeline_that_goes_takes_its_entities_with_it(porch: Porch) -> None:
    assert any(":words:" in one for one in porch.home.registry())
    porch.write(words=False)
    porch.reload()
    until(lambda: not any(":words:" in one for one in porch.home.registry()), "they are gone", 60)
    until(lambda: not any("/words/" in one for one in porch.retained()), "its topics, too", 60)
    porch.write()
    porch.reload()
    porch.settles({"sensor.porch_words_stream": "ok"}, "it is back")


def test_a_pipeline_that_goes_while_nobody_is_at_home(porch: Porch) -> None:
    porch.home.stop()
    porch.write(words=False)
    porch.reload()
    time.sleep(15)
    porch.home.start()
    until(lambda: not any(":words:" in one for one in porch.home.registry()), "they are gone", 120)


def test_a_pipeline_that_is_called_otherwise_leaves_nothing_behind(porch: Porch) -> None:
    porch.write(yard="garden", words=False)
    porch.reload()
    porch.settles({"binary_sensor.porch_garden_gate_person": "on"}, "it is there by its new name")
    until(lambda: not any(":yard:" in one for one in porch.home.registry()), "nothing has the old one", 60)
    until(lambda: not any("/yard/" in one for one in porch.retained()), "no topic, either", 60)


def test_without_the_section_it_is_gone(porch: Porch) -> None:
    porch.write(yard="garden", words=False, shown=False)
    porch.reload()
    until(lambda: not porch.home.registry(), "all of it is gone", 60)
    assert not any(topic.startswith("homeassistant/device/") for topic in porch.retained())


def test_nothing_was_complained_about(porch: Porch) -> None:
    assert porch.home.complaints() == []
