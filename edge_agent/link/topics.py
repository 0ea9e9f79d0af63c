"""The topics of a device: the only file that spells them. A tail is what stands behind PREFIX/DEVICE/.

A tail that begins with a / is a whole topic, elsewhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from edge_agent.config import Config, Mqtt, level, photographed, tracks
from edge_agent.uri import parse_uri

STATUS, HEALTH = "status", "health"
"""tails, retained"""
PROFILE, RULES = "profile", "rules"
"""tails, retained: which profile is active, and which rules are on; where the config has some"""
ACK = "ack"
"""tail of what a consumer acknowledges"""
JOBS, DESIRED, REPORTED = "jobs", "desired", "reported"
"""tails: below which a rollout's jobs come and go; what a device is to be, and what it is, both retained"""
JOBS_HEARD = ("notify-next", "$next/get/accepted", "+/update/accepted", "+/update/rejected")
"""tails, below that of jobs, of what is heard of them"""
COMMANDS = "cmd/+"
"""tail of the commands that come in"""
FOR_DEVICES = ("cmd", ACK, "desired", "jobs")
"""how tails begin under which others talk to a device"""
EVERY_EVENT = "+/events"
"""tail of the events of any pipeline"""


def base_of(prefix: str, device: str) -> str:
    """PREFIX/DEVICE; the device `+` stands for all of them."""
    return f"{prefix}/{level(device)}"


def whole(base: str, tail: str) -> str:
    """The topic of a tail."""
    return tail[1:] if tail.startswith("/") else f"{base}/{tail}"


def tail_of(base: str, topic: str) -> str:
    """The tail of a topic, wherever it is."""
    return topic.removeprefix(f"{base}/") if topic.startswith(f"{base}/") else f"/{topic}"


def group_desired(prefix: str, group: str) -> str:
    """Where what a group of devices is to be is retained: no device's name begins with a line."""
    return f"{prefix}/_groups/{group}/{DESIRED}"


def everything(prefix: str, device: str) -> str:
    """The filter of all that a device sends."""
    return f"{base_of(prefix, device)}/#"


def events(pipeline: str) -> str:
    """The tail of a pipeline's events."""
    return f"{level(pipeline)}/events"


def state(pipeline: str) -> str:
    """The tail of a pipeline's state, retained."""
    return f"{level(pipeline)}/state"


def counts(pipeline: str) -> str:
    """The tail of how many objects a pipeline sees, in all and by zone, retained."""
    return f"{level(pipeline)}/counts"


def snapshot(pipeline: str) -> str:
    """The tail of the newest picture of what a pipeline saw."""
    return f"{level(pipeline)}/snapshot"


def last(pipeline: str) -> str:
    """The tail of the last text and label of a pipeline, retained."""
    return f"{level(pipeline)}/last"


def command(verb: str) -> str:
    """The tail of a command."""
    return f"cmd/{verb}"


def reply(verb: str) -> str:
    """The tail of the answers to a command."""
    return f"reply/{verb}"


def verb_of(topic: str) -> str:
    """Which command came in."""
    return topic.rpartition("/")[2]


def holds_events(topic: str) -> bool:
    """Whether a topic, or a tail, is one of events."""
    return topic.endswith("/events")


def ack_of(topic: str) -> str:
    """Where the events of a topic are acknowledged."""
    return f"{topic.rsplit('/', 2)[0]}/{ACK}"


def node(config: Config) -> str:
    """What Home Assistant knows the device by, for ever: letters, digits, ``_`` and ``-``."""
    name, prefix = level(config.device.id), config.mqtt.prefix
    # the same device name of another site on the same broker
    return name if prefix == Mqtt().prefix else f"{name}_{zlib.crc32(prefix.encode()):08x}"


def discovery(config: Config) -> str:
    """The tail under which a device is described to Home Assistant, retained."""
    assert config.homeassistant is not None
    return f"/{config.homeassistant.prefix}/device/{node(config)}/config"


def homeassistant_status(config: Config) -> list[str]:
    """Where Home Assistant says that it has come or goes: there by default, whatever its prefix is; or below that."""
    if config.homeassistant is None:
        return []
    return sorted({"homeassistant/status", f"{config.homeassistant.prefix}/status"})


def _shown(config: Config) -> list[str]:
    """Tails that are there for Home Assistant."""
    if config.homeassistant is None:
        return []
    names = [pipe.name for pipe in config.pipeline]
    return [discovery(config), *map(last, names), *(counts(pipe.name) for pipe in config.pipeline if not tracks(pipe))]


def sparkplug(group: str, kind: str, node: str, device: str = "") -> str:
    """A topic of Sparkplug B, such as NBIRTH; `device`: a pipeline, of those that are a device's."""
    return f"spBv1.0/{group}/{kind}/{level(node)}" + (device and f"/{level(device)}")


def sparkplug_states(host: str) -> tuple[str, str]:
    """Where a host application says whether it is online: in Sparkplug 3.0, and before."""
    return f"spBv1.0/STATE/{host}", f"STATE/{host}"


def published(config: Config) -> list[str]:
    """The topics that an agent of this config publishes."""
    tails = [STATUS, HEALTH, events("agent"), reply("ping")]
    tails += [tail for pipe in config.pipeline for tail in (events(pipe.name), state(pipe.name))]
    tails += [counts(pipe.name) for pipe in config.pipeline if tracks(pipe)]
    tails += [PROFILE, reply("profile")] if config.profile else []
    tails += [RULES] if config.rule else []
    jobs = _jobs(config)
    tails += [REPORTED, f"{jobs}/$next/get", f"{jobs}/JOB/update"] if config.rollout is not None else []
    tails += [snapshot(name) for name in photographed(config)]
    base = base_of(config.mqtt.prefix, config.device.id)
    return [whole(base, tail) for tail in [*tails, *_shown(config)]] + _sparkplug_published(config)


def _sparkplug_published(config: Config) -> list[str]:
    if config.sparkplug is None:
        return []
    group, node, pipes = config.sparkplug.group, config.device.id, [pipe.name for pipe in config.pipeline]
    names = [sparkplug(group, kind, node) for kind in ("NBIRTH", "NDATA", "NDEATH")]
    return names + [sparkplug(group, kind, node, pipe) for kind in ("DBIRTH", "DDATA", "DDEATH") for pipe in pipes]


def heard(config: Config) -> list[str]:
    """The filters that an agent of this config subscribes to."""
    base = base_of(config.mqtt.prefix, config.device.id)
    uris = [parse_uri(pipe.source) for pipe in config.pipeline]
    own, told = [COMMANDS, *([ACK] if config.mqtt.ack else [])], config.sparkplug
    names = [f"{base}/{tail}" for tail in own] + [uri.rest for uri in uris if uri.scheme == "mqtt"]
    names += homeassistant_status(config)
    names += _of_rollout(config, base)
    if told is not None:
        names.append(sparkplug(told.group, "NCMD", config.device.id))
        names += sparkplug_states(told.primary_host) if told.primary_host else ()
    return names


def _of_rollout(config: Config, base: str) -> list[str]:
    """What is heard of jobs and of what is wanted."""
    if config.rollout is None:
        return []
    names = [f"{whole(base, _jobs(config))}/{tail}" for tail in JOBS_HEARD]
    if config.rollout.desired:
        names.append(whole(base, DESIRED))
        names += [group_desired(config.mqtt.prefix, config.update.group)] if config.update is not None else []
    return names


def _jobs(config: Config) -> str:
    """The tail of jobs; from / where they are not below the device's topics."""
    named = config.rollout.jobs if config.rollout is not None else None
    return tail_of(base_of(config.mqtt.prefix, config.device.id), named) if named else JOBS


def retained_with_dots(prefix: str, device: str, pipelines: Iterable[str]) -> list[str]:
    """What versions retained that wrote names with a dot as they are."""
    tails = [f"{pipeline}/state" for pipeline in pipelines if "." in device + pipeline]
    return [f"{prefix}/{device}/{tail}" for tail in [*tails, *([STATUS, HEALTH] if "." in device else [])]]
