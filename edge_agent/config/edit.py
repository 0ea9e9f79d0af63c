"""Lines added to a config that a person wrote, with all else left as it is."""

from __future__ import annotations

import re

from edge_agent import toml
from edge_agent.errors import ConfigError, UsageError


def lines_of(keys: dict[str, str]) -> list[str]:
    """Keys of a section as they stand in TOML."""
    return [f"{key} = {_quoted(value)}" for key, value in keys.items()]


def with_keys(text: str, section: str, keys: dict[str, str]) -> str:
    """The config's text with these keys in a section; those that are there with the same value stay.

    ConfigError where it is no TOML; UsageError where a key is there with another value, or the lines find no place.
    """
    before = toml.parse(text)
    there = before.get(section, {})
    if not isinstance(there, dict):
        raise ConfigError(f"{section}: is no table; write [{section}]")
    for key, value in keys.items():
        if there.get(key, value) != value:
            raise UsageError(f"{section}.{key} is there and says something else; edit it by hand")
    lines = lines_of({key: value for key, value in keys.items() if key not in there})
    after = _placed(text, section, "".join(f"{line}\n" for line in lines)) if lines else text
    try:
        good = toml.parse(after) == {**before, section: {**there, **keys}}
    except ConfigError:
        good = False
    if not good:  # an inline table, dotted keys, or its head within a text of several lines
        raise UsageError(f"[{section}] is written in a form to which nothing is added; add the lines by hand")
    return after


def _placed(text: str, section: str, lines: str) -> str:
    """The lines below the section's first head, or below one of their own at the end."""
    head = re.search(rf"^[ \t]*\[[ \t]*{section}[ \t]*\][^\n]*\n?", text, re.M)
    before, after = (text[: head.end()], text[head.end() :]) if head else (text, "")
    if before and not before.endswith("\n"):
        before += "\n"
    return before + ("" if head else f"\n[{section}]\n") + lines + after


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", escaped) + '"'
