"""The config: TOML in, frozen structs out.

Secrets never stand in the file: it names a file that holds one, or a systemd credential
(``password_file = "credential:mqtt"`` reads ``$CREDENTIALS_DIRECTORY/mqtt``).
"""

from edge_agent.config.accuracy import Accuracy
from edge_agent.config.broker import BrokerAddress, parse_broker, parse_brokers, shown_url
from edge_agent.config.check import checked_mqtt
from edge_agent.config.fleet import Policy, Update
from edge_agent.config.inference import Inference
from edge_agent.config.load import broker_part, dotted, load, of, parse, part, secret, store_path, warnings
from edge_agent.config.notify import Choice, Notify
from edge_agent.config.opinion import Opinion
from edge_agent.config.page import Page
from edge_agent.config.rules import Condition, Profile, Rule
from edge_agent.config.samples import Samples
from edge_agent.config.sections import (
    RESERVED,
    Config,
    Device,
    Limits,
    Mqtt,
    Pipeline,
    Privacy,
    Store,
    level,
    photographed,
    tracks,
)
from edge_agent.config.sparkplug import Sparkplug
from edge_agent.config.zones import Zone

__all__ = [
    "RESERVED",
    "Accuracy",
    "BrokerAddress",
    "Choice",
    "Condition",
    "Config",
    "Device",
    "Inference",
    "Limits",
    "Mqtt",
    "Notify",
    "Opinion",
    "Page",
    "Pipeline",
    "Policy",
    "Privacy",
    "Profile",
    "Rule",
    "Samples",
    "Sparkplug",
    "Store",
    "Update",
    "Zone",
    "broker_part",
    "checked_mqtt",
    "dotted",
    "level",
    "load",
    "of",
    "parse",
    "parse_broker",
    "parse_brokers",
    "part",
    "photographed",
    "secret",
    "shown_url",
    "store_path",
    "tracks",
    "warnings",
]
