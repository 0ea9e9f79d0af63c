"""The one message of a device, as Home Assistant's MQTT integration takes it.

It is retained, and says nothing of what is the case now: that stands under the topics that it names. What is left out
of it stays in Home Assistant: to be removed, an entity has to come once more with nothing but its platform, in a
message of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.homeassistant.entities import entities
from edge_agent.homeassistant.facts import Device, Topics

MOST_BYTES = 128_000
"""of a message, as some brokers take no larger ones"""

Components = dict[str, dict[str, Any]]
"""identity of an entity -> what is said of it, by the keys as they are sent"""


class _Message(msgspec.Struct):
    """What is read of a message."""

    cmps: Components


SHORT = {
    "availability": "avty",
    "availability_mode": "avty_mode",
    "command_template": "cmd_tpl",
    "command_topic": "cmd_t",
    "content_type": "cont_type",
    "default_entity_id": "def_ent_id",
    "device_class": "dev_cla",
    "entity_category": "ent_cat",
    "icon": "ic",
    "image_topic": "img_t",
    "json_attributes_template": "json_attr_tpl",
    "json_attributes_topic": "json_attr_t",
    "options": "ops",
    "platform": "p",
    "state_class": "stat_cla",
    "state_topic": "stat_t",
    "title": "tit",
    "topic": "t",
    "unique_id": "uniq_id",
    "unit_of_measurement": "unit_of_meas",
    "value_template": "val_tpl",
}
"""key -> its abbreviation there: a third of the bytes"""


def components(device: Device, topics: Topics) -> tuple[Components, int]:
    """What is announced, and how many entities are left out, as the message would be too large."""
    all_of_them = {cid: _short(said) for cid, said in entities(device, topics).items()}
    room = MOST_BYTES - len(message(device, topics, {}))
    made: Components = {}
    for cid, said in all_of_them.items():
        room -= len(msgspec.json.encode({cid: said}))
        if room >= 0:
            made[cid] = said
    return made, len(all_of_them) - len(made)


def read(payload: str) -> Components:
    """The components of a message of ours; none where it is none."""
    with suppress(*UNREADABLE):
        return msgspec.json.decode(payload, type=_Message).cmps
    return {}


def removed(before: Components) -> Components:
    """What has them removed."""
    return {cid: {"p": said["p"]} for cid, said in before.items()}


def message(device: Device, topics: Topics, some: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The message of these components, in this order."""
    body = {
        "dev": {"ids": [device.node], "name": device.id, "mf": "edge-agent", "mdl": "edge-agent", "sw": device.version},
        "o": {"name": "edge-agent", "sw": device.version},
        "avty": [{"t": topics.status}],
        "qos": 1,
        "cmps": some,
    }
    return msgspec.json.encode(body)


def _short(said: Any) -> Any:
    """The same by short keys."""
    if isinstance(said, list):
        return [_short(one) for one in said]
    return {SHORT.get(key, key): _short(value) for key, value in said.items()} if isinstance(said, dict) else said
