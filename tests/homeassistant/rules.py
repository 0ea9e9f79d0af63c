"""What Home Assistant's MQTT integration takes in a device's discovery: facts read in the source of its releases
2026.2.3 and 2026.11.0 (components/mqtt: schemas, entity, discovery, the platforms), and a reader by them.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

import msgspec

LONG = {
    "avty": "availability", "avty_mode": "availability_mode", "cmd_t": "command_topic", "cmd_tpl": "command_template",
    "cont_type": "content_type", "def_ent_id": "default_entity_id", "dev_cla": "device_class",
    "ent_cat": "entity_category", "ic": "icon", "img_t": "image_topic", "json_attr_t": "json_attributes_topic",
    "json_attr_tpl": "json_attributes_template", "ops": "options", "p": "platform", "stat_cla": "state_class",
    "stat_t": "state_topic", "t": "topic", "tit": "title", "uniq_id": "unique_id",
    "unit_of_meas": "unit_of_measurement", "val_tpl": "value_template", "mf": "manufacturer", "mdl": "model",
    "ids": "identifiers", "sw": "sw_version", "dev": "device", "o": "origin", "cmps": "components",
}  # fmt: skip
TOPIC = re.compile(r"(?P<component>\w+)/(?:(?P<node_id>[a-zA-Z0-9_-]+)/)?(?P<object_id>[a-zA-Z0-9_-]+)/config")
"""what stands behind the prefix"""
TOP = {"device", "origin", "components", "availability", "availability_mode", "state_topic", "command_topic", "qos",
       "encoding"}  # fmt: skip
"""keys of the message itself: any other, `~` too, has it refused as a whole"""
COMMON = {"platform", "unique_id", "default_entity_id", "name", "availability", "availability_mode", "entity_category",
          "icon", "json_attributes_topic", "json_attributes_template", "qos", "enabled_by_default"}  # fmt: skip
READS = {"state_topic", "value_template"}
WRITES = READS | {"command_topic", "optimistic", "retain", "command_template"}
KEYS = {
    "binary_sensor": READS | {"device_class", "expire_after", "off_delay", "payload_on", "payload_off"},
    "sensor": READS | {"device_class", "state_class", "unit_of_measurement", "options", "expire_after",
                       "suggested_display_precision"},
    "image": {"image_topic", "content_type", "image_encoding", "url_topic", "url_template"},
    "update": READS | {"title", "device_class", "command_topic", "payload_install", "latest_version_topic"},
    "select": WRITES | {"options"},
    "switch": WRITES | {"device_class", "payload_on", "payload_off", "state_on", "state_off"},
    "number": WRITES | {"device_class", "min", "max", "step", "mode", "unit_of_measurement"},
}  # fmt: skip
NEEDED = {
    "binary_sensor": {"state_topic"}, "sensor": {"state_topic"}, "image": {"image_topic"}, "update": {"state_topic"},
    "select": {"command_topic", "options"}, "switch": {"command_topic"}, "number": {"command_topic"},
}  # fmt: skip
CLASSES = {
    "binary_sensor": {"occupancy", "problem"},
    "sensor": {"enum", "timestamp", "data_size", "duration"},
}
"""device classes, those of ours"""


def long(said: Any) -> Any:
    """The same by the long keys."""
    if isinstance(said, list):
        return [long(one) for one in said]
    return {LONG.get(key, key): long(value) for key, value in said.items()} if isinstance(said, dict) else said


def read(payload: bytes) -> dict[str, Any]:
    """A message as Home Assistant reads it; AssertionError where it would refuse it or complain."""
    body = msgspec.json.decode(payload)
    components = {cid: long(said) for cid, said in body.pop("cmps").items()}
    message = {**long(body), "components": components}
    assert set(message) <= TOP and {"device", "origin", "components"} <= set(message)
    assert message["device"]["identifiers"] and message["device"]["name"] and message["origin"]["name"]
    identities = [said["unique_id"] for said in components.values() if len(said) > 1]
    assert len(set(identities)) == len(identities)
    for cid, said in components.items():
        assert " " not in cid and cid.isascii()
        check(said)
    return message


def check(said: dict[str, Any]) -> None:
    """One entity."""
    platform = said["platform"]
    if len(said) == 1:  # it is removed
        return
    assert not set(said) - COMMON - KEYS[platform] and NEEDED[platform] <= set(said), said
    assert said["unique_id"].isascii()
    # `object_id` is what it was called until 2026.4; the domain has to be its own
    domain, _, name = said["default_entity_id"].partition(".")
    assert domain == platform and re.fullmatch("[a-z0-9_]+", name)
    _check_sensor(said)
    sets = ["config"] if platform in ("number", "select") else []
    assert said.get("entity_category") in (None, "diagnostic", *sets)
    if platform in CLASSES:
        assert said.get("device_class") in (None, *CLASSES[platform])
    for key, value in said.items():
        if key.endswith("_topic"):
            assert not set(value) & set("+#\0") and value.isascii()
    for one in said.get("availability", ()):
        assert set(one) <= {"topic", "value_template", "payload_available", "payload_not_available"} and one["topic"]


def _check_sensor(said: dict[str, Any]) -> None:
    if said["platform"] != "sensor":
        return
    if "options" in said:
        assert said["device_class"] == "enum" and said["options"]
        assert "state_class" not in said and "unit_of_measurement" not in said
    if said.get("device_class") == "timestamp":
        assert "state_class" not in said


# ── templates ────────────────────────────────────────────────────────────────────────────────────────────


def render(template: str, payload: object = None, value: object = None) -> str:
    """A template as it renders it: in a sandbox, with the payload of a state or the value of a command."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    made = ImmutableSandboxedEnvironment().from_string(template)
    told = {} if payload is None else {"value_json": payload}
    return made.render(now=lambda: datetime.now(timezone.utc), value=value, **told)
