"""What the sections of a config ask for, in words, for `check`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.config import Config


def sections(loaded: Config) -> Iterator[str]:
    """What its sections ask for, a line each."""
    from edge_agent.agent.record import about_pictures
    from edge_agent.agent.rule_pipes import about_rules
    from edge_agent.agent.told import about_told
    from edge_agent.cli.page import about

    for part in (_node, _rollout, about_rules, about_told, about_pictures):
        yield from part(loaded)
    if loaded.page is not None:
        yield about(loaded)


def _node(loaded: Config) -> list[str]:
    """As what it appears in Sparkplug B, and which host it waits for."""
    from edge_agent.link import topics

    if loaded.sparkplug is None:
        return []
    host = loaded.sparkplug.primary_host
    waits = f", once {host} is online" if host else ""
    return [f"sparkplug: {topics.sparkplug(loaded.sparkplug.group, 'NBIRTH', loaded.device.id)}{waits}"]


def _rollout(loaded: Config) -> list[str]:
    """Who may have bundles taken here, and whether they have to sign that."""
    from edge_agent.link import topics

    section = loaded.rollout
    if section is None:
        return []
    at = section.jobs or topics.whole(topics.base_of(loaded.mqtt.prefix, loaded.device.id), topics.JOBS)
    said = [f"jobs at {at}"] * bool(loaded.mqtt.url) + ["what is wanted"] * bool(loaded.mqtt.url and section.desired)
    said += [f"hawkBit at {section.hawkbit}"] * bool(section.hawkbit)
    right = "signed" if loaded.mqtt.signers else "everybody that may publish there: set an ACL, or mqtt.signers"
    takes = "" if loaded.update is not None else "; without [update] nothing is taken"
    return [f"rollout: {', '.join(said)}, by {right}{takes}"]
