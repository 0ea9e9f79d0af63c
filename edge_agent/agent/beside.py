"""What an agent has beside its pipelines and its link: each part is made here where the config asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edge_agent.agent.keep import Keep
from edge_agent.agent.line import Line
from edge_agent.agent.state import State
from edge_agent.config import Config

if TYPE_CHECKING:
    from edge_agent.agent.homeassistant import HomeAssistant
    from edge_agent.agent.lines import Lines
    from edge_agent.agent.record import Recorder
    from edge_agent.agent.reload import Reload
    from edge_agent.agent.rollouts import Rollouts
    from edge_agent.agent.rules import Rules
    from edge_agent.agent.swap import Swap
    from edge_agent.agent.update import Updating
    from edge_agent.fleet.update import Update
    from edge_agent.link.link import Link
    from edge_agent.recorder.tape import Tape
    from edge_agent.serving.models import Models


class Part(Protocol):
    """Works on threads of its own, from `start` to `close`; none of them may end the agent."""

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self, seconds: float) -> None:
        """Begin to end, which may take that long; returns at once."""

    def close(self) -> None:
        """Wait for the end, and give back what it holds; also of one that was not started."""


def parts_beside(
    config: Config, link: Link | None, keep: Keep, store: Path, state: State, models: Models, swap: Swap
) -> list[Part]:
    """Those of this config, told of each event that is kept from now on. Raises an EdgeAgentError.

    `store`: the folder in which they may keep something, under names of their own.
    """
    parts: list[Part] = []
    if config.sparkplug is not None and link is not None:
        from edge_agent.link.sparkplug.node import Node

        folder = store / "sparkplug"
        node = Node(config.sparkplug, config.mqtt, config.device.id, folder, state.seen, link.budget)
        keep.listeners.append(node.keep)
        parts.append(node)
    if config.policy.most_age_s is not None:
        from edge_agent.fleet.policy import Ages

        state.beside = {**state.beside, "policy": Ages(config.policy, state.lines).about}
    if config.accuracy is not None:
        from edge_agent.agent.guarding import Guarding

        state.accuracy = Guarding(config.accuracy, state.lines, models, store, swap)
        state.beside = {**state.beside, "accuracy": state.accuracy.about}
        parts.append(state.accuracy)
    return parts


def taping_of(
    config: Config, tape: Tape | None, models: Models, keep: Keep, work: Lines, rules: Rules, store: Path
) -> list[Part]:
    """What records, where the config asks for it or a `tape` is given. ConfigError."""
    samples = config.samples
    if not samples.record:
        return []
    from edge_agent.agent.taping import Taping
    from edge_agent.recorder.tape import Tape
    from edge_agent.walk import recording

    tape = tape or Tape(recording.place(), samples.record_bytes, samples.days)
    return [Taping(config, tape, models, keep, work, rules, store)]


def rollouts_of(
    config: Config,
    link: Link | None,
    update: Callable[[], Update | None],
    work: Lines,
    rules: Rules,
    store: Path,
    state: State,
) -> Rollouts | None:
    """What hears a fleet's rollouts, where the config has [rollout]."""
    if config.rollout is None:
        return None
    from edge_agent.agent.rollouts import Rollouts

    accuracy = lambda: state.beside.get("accuracy", str)()  # noqa: E731
    return Rollouts(config, link, update, work, rules, store, accuracy)


def updating_of(
    config: Config,
    lines: Sequence[Line],
    models: Models,
    state: State,
    swap: Swap,
    turning: Reload,
    record: Recorder,
) -> Updating | None:
    """What takes signed bundles, where the config has [update]; health says how it fares. Raises an EdgeAgentError."""
    if config.update is None:
        return None
    from edge_agent.agent.update import Updating

    disagreed = record.differing.disagreed if record.differing is not None else None
    updating = Updating(config, lines, models, swap.look.set, turning, disagreed)
    state.beside = {**state.beside, "update": updating.about, "refused": updating.refused}
    return updating


def show_of(
    config: Config, link: Link | None, keep: Keep, lines: Sequence[Line], wake: Callable[[], object]
) -> HomeAssistant | None:
    """What Home Assistant is shown of the pipelines, if the config has it; `wake` is called when there is more."""
    if config.homeassistant is None or link is None:
        return None
    from edge_agent.agent.homeassistant import HomeAssistant

    show = HomeAssistant(config, link, lines, keep.outbox.path, wake)
    keep.listeners.append(show.keep)
    return show
