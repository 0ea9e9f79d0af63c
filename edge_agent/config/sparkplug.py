"""``[sparkplug]``: the device as an edge node of Sparkplug B."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge_agent.errors import ConfigError

_NAME = r"^[^+/#\x00-\x1f\x7f]{1,64}\Z"
_WORDS = "1 to 64 characters without + / #"
Id = Annotated[str, msgspec.Meta(pattern=_NAME, description=_WORDS, examples=["plant"])]


class Sparkplug(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[sparkplug]``: events and states as Sparkplug B as well, over a second connection to the broker of [mqtt]."""

    group: Id
    """the group that the node is in"""
    primary_host: Id | None = None
    """id of the host application that is waited for before anything is sent; none: nobody is"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000, le=10**12)] = 16_000_000
    """bytes on disk of what waits to be sent this way; when full the oldest goes, the events in JSON do not"""


def checked_sparkplug(given: Sparkplug | None, url: str | list[str] | None) -> None:
    """ConfigError where it cannot work: without a broker, or by a name that means something else."""
    if given is None:
        return
    if url is None:
        raise ConfigError("sparkplug: there is no broker; set mqtt.url")
    if given.group == "STATE":
        raise ConfigError('sparkplug.group: "STATE" stands for the states of hosts in Sparkplug; choose another')
