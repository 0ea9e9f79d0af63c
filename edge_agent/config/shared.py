"""A config that a fleet shares: its sections stand in place of those of the device's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edge_agent import toml
from edge_agent.config.check import checked
from edge_agent.config.fleet import shared_folder
from edge_agent.config.sections import Config
from edge_agent.errors import ConfigError
from edge_agent.paths import home

FILE = "agent.toml"
OWN = ("device", "mqtt", "store", "update", "policy", "limits", "page", "inference", "mcp")
"""sections that stay the device's own: who it is, whom it trusts, where it listens"""
TOGETHER = ("pipeline", "zone", "rule", "profile")
"""these name each other: a shared config that has one of them has all"""
MOST = 1_000_000
"""bytes"""


def with_shared(config: Config, base: Path, table: dict[str, Any], place: Path | None = None) -> Config:
    """The config with what it follows; `base` and `table` as of `checked`.

    `place`: the folder of the shared one, in place of that which serves. The config itself where it follows none, or
    none is here yet. Raises ConfigError.
    """
    if place is None:
        if config.update is None or config.update.config is None:
            return config
        place = shared_folder(home(), config.update.config)
    path = place / FILE
    if not path.is_file():
        return config
    try:
        theirs = toml.parse(toml.read_text(path, MOST))
        check_own(theirs)
        real = path.resolve().parent
        shared = checked(toml.convert(theirs, Config), real, theirs)
        names = {*theirs, *(TOGETHER if set(theirs) & set(TOGETHER) else ())}
        merged = msgspec.structs.replace(config, **{name: getattr(shared, name) for name in names})
        return checked(merged, base, {**table, **theirs})
    except ConfigError as error:
        raise ConfigError(f"the shared config {path}: {error}") from None


def check_own(table: dict[str, Any]) -> None:
    """ConfigError for a section that no fleet may say."""
    for section in OWN:
        if section in table:
            raise ConfigError(f"[{section}] is each device's own; leave it out of what a fleet shares")
