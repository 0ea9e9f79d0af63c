"""``[homeassistant]``: the device shows itself to Home Assistant over the broker; without the section it does not."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edge_agent.errors import ConfigError
from edge_agent.toml import PREFIX


class HomeAssistant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[homeassistant]``."""

    prefix: Annotated[str, msgspec.Meta(pattern=PREFIX, description="1 to 3 topic levels without + # or spaces")] = (
        "homeassistant"
    )
    """of the topics under which it looks for devices, as its MQTT integration is set"""


def checked_homeassistant(given: HomeAssistant | None, url: str | list[str] | None) -> None:
    """ConfigError where nobody would hear of it."""
    if given is not None and url is None:
        raise ConfigError("homeassistant: there is no broker; set mqtt.url")
