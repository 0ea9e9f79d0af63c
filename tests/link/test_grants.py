"""What a device says and hears, held against the rights that deploy/ gives it: nothing forgotten, nothing too much."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from paho.mqtt.client import topic_matches_sub

from edge_agent import config
from edge_agent.link import topics
from tests.conftest import ROOT

EVERYTHING = """
device.id = "porch"
mqtt = { url = "mqtt://x", ack = true }
homeassistant = {}
samples = { snapshots = true }
[[pipeline]]
name = "door"
source = "camera:0"
tasks = ["detect:detector", "track"]
[[pipeline]]
name = "words"
source = "lines:x"
[rollout]
[[rule]]
name = "r"
when = { object = "person", pipeline = "door" }
[[profile]]
name = "night"
"""


OF_ALL = ("homeassistant/status", "edge/v1/_groups/+/desired")
"""topics that every device may hear"""


def mosquitto() -> tuple[list[str], list[str]]:
    text = (ROOT / "deploy/broker/acl").read_text()
    says = re.findall(r"^pattern write (\S+)", text, re.M)
    hears = re.findall(r"^(?:pattern|topic) read (\S+)", text.partition("user consumer")[0], re.M)
    return [at.replace("%u", "porch") for at in says], [at.replace("%u", "porch") for at in hears]


def nats(text: str) -> tuple[list[str], list[str]]:
    _, _, mine = text.partition('"CN=porch"')
    lists = re.findall(r"(?:publish|subscribe): \{ allow: \[(.*?)\] \}", mine, re.S)[:2]
    says, hears = (re.findall(r'"(.*?)"', one) for one in lists)
    as_mqtt = str.maketrans(".*>", "/+#")
    return [at.translate(as_mqtt) for at in says], [at.translate(as_mqtt) for at in hears if not at.startswith("$MQTT")]


def one_broker() -> tuple[list[str], list[str]]:
    return nats((ROOT / "deploy/broker/nats.conf").read_text())


def cluster() -> tuple[list[str], list[str]]:
    command = [sys.executable, str(ROOT / "deploy/cloud/nats/users.py"), "cellar", "porch"]
    return nats(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("rights", [mosquitto, one_broker, cluster])
def test_a_device_may_say_and_hear_all_that_it_has_to(rights: object) -> None:
    says, hears = rights()  # type: ignore[operator]
    full = config.parse(EVERYTHING)
    assert len(topics.published(full)) > 10
    jobs = [f"edge/v1/porch/jobs/{tail}" for tail in ("j1/update", "$next/get")]
    for topic in [*topics.published(full), *jobs]:
        assert any(topic_matches_sub(at, topic) for at in says), f"may not say {topic}"
    answers = [
        f"edge/v1/porch/jobs/{tail}" for tail in ("$next/get/accepted", "+/update/accepted", "+/update/rejected")
    ]
    for topic in [*topics.heard(full), *answers, "edge/v1/_groups/+/desired"]:
        assert topic in hears, f"may not hear {topic}"
    for at in says + hears:
        assert "porch" in at.split("/") or at in OF_ALL, f"{at} is not its own"
        assert "#" not in at and not at.endswith("/events/+")
    assert not any(topic_matches_sub(at, "edge/v1/porch/cmd/ping") for at in says)


@pytest.mark.parametrize("name", ["a.b", "", "x y", "*", "consumer", "admin", "a>"])
def test_a_name_that_means_more_than_a_device_is_refused(name: str) -> None:
    command = [sys.executable, str(ROOT / "deploy/cloud/nats/users.py"), name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "no device's name" in done.stderr and not done.stdout
