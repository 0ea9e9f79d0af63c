"""Lines added to a config that a person wrote, with all else left as it is."""

from __future__ import annotations

import re

from edge_agent import toml
from edge_agent.errors import ConfigError, UsageError


def mqtt_lines(keys: dict[str, str]) -> list[str]:
    """Keys of ``[mqtt]`` as they stand in TOML."""
    return [f"{key} = {_quoted(value)}" for key, value in keys.items()]


def with_mqtt(text: str, keys: dict[str, str]) -> str:
    """The config's text with these keys in ``[mqtt]``; those that are there with the same value stay.

    ConfigError where it is no TOML; UsageError where a key is there with another value, or the lines find no place.
    """
    before = toml.parse(text)
    mqtt = before.get("mqtt", {})
    if not isinstance(mqtt, dict):
        raise ConfigError("mqtt: is no table; write [mqtt]")
    for key, value in keys.items():
        if mqtt.get(key, value) != value:
            raise UsageError(f"mqtt.{key} is there and says something else; edit it by hand")
    lines = mqtt_lines({key: value for key, value in keys.items() if key not in mqtt})
    after = _placed(text, "".join(f"{line}\n" for line in lines)) if lines else text
    try:
        good = toml.parse(after) == {**before, "mqtt": {**mqtt, **keys}}
    except ConfigError:
        good = False
    if not good:  # an inline table, dotted keys, or [mqtt] within a text of several lines
        raise UsageError("[mqtt] is written in a form to which nothing is added; add the lines by hand")
    return after


def _placed(text: str, lines: str) -> str:
    """The lines below the first [mqtt], or below one of their own at the end."""
    head = re.search(r"^[ \t]*\[[ \t]*mqtt[ \t]*\][^\n]*\n?", text, re.M)
    before, after = (text[: head.end()], text[head.end() :]) if head else (text, "")
    if before and not before.endswith("\n"):
        before += "\n"
    return before + ("" if head else "\n[mqtt]\n") + lines + after


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
