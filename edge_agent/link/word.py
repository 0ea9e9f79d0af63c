"""A last word to the broker of a device that does not start, so that nobody has to drive there to learn why."""

from __future__ import annotations

import logging
import time

import msgspec

from edge_agent import __version__
from edge_agent.config import Config
from edge_agent.errors import EdgeAgentError
from edge_agent.events import rfc3339
from edge_agent.link import topics
from edge_agent.link.broker import Broker
from edge_agent.link.rights import Visit

log = logging.getLogger("edge_agent")


def say_why(config: Config, why: str) -> bool:
    """Retain under `health` why the device does not start, one line; False, and logged, where that cannot be."""
    told = {"v": 1, "at": rfc3339(time.time()), "version": __version__, "config": why}
    try:
        broker = Broker(config.mqtt)
        with Visit(broker, f"edge-agent-{config.device.id}-check") as visit:  # not the agent's own name
            topic = f"{topics.base_of(config.mqtt.prefix, config.device.id)}/{topics.HEALTH}"
            visit.tell(topic, msgspec.json.encode(told))
    except (EdgeAgentError, OSError, ValueError) as error:
        log.warning("the broker could not be told: %s", error)
        return False
    return True
