"""Another config while the agent runs: what each section that may change under the pipelines does then.

A section that is not named here has the whole agent opened anew (`Agent.again`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.line import make_line
from edge_agent.agent.lines import Lines
from edge_agent.agent.requests import Requests
from edge_agent.agent.rule_pipes import check_rules
from edge_agent.agent.state import State
from edge_agent.agent.store import checked_store
from edge_agent.agent.told import check_told
from edge_agent.config import Config, Store
from edge_agent.link import topics
from edge_agent.outbox.outbox import Outbox

if TYPE_CHECKING:
    from edge_agent.link.link import Link
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

Turn = Callable[[Config], Callable[[], object]]
"""Checks what is new, raises an EdgeAgentError where it is wrong, and returns what then turns to it. Nothing changes
before that is called, and that raises nothing."""


OF_LINES = ("rule", "profile", "notify", "opinion")
"""sections about what pipelines give: they turn with these (`Lines.turning`)"""

RETAINED = {"rule": topics.RULES, "profile": topics.PROFILE}
"""section -> what is retained while there is one"""


class Turns:
    """What turns a running agent to another config."""

    def __init__(self, work: Lines, state: State, requests: Requests, outbox: Outbox, link: Link | None) -> None:
        self._work, self._state, self._requests, self._outbox, self._link = work, state, requests, outbox, link
        self.of: dict[str, Turn] = {
            "limits": self._limits,
            "privacy": lambda new: lambda: work.hide(new.privacy),
            "understand": self._understand,
            "store": self._store,
        }
        """section -> its turn"""

    def anew(self, config: Config) -> Config:
        """That part of a config to which a running agent cannot turn: the same in two configs, or all opens anew."""
        plain = Config()
        own = {name: getattr(plain, name) for name in self.of}
        own["store"] = Store(path=config.store.path)
        if not config.samples.record:  # what is recorded is replayed by the rules of its beginning
            own |= {name: getattr(plain, name) for name in OF_LINES}
        return msgspec.structs.replace(config, pipeline=[], zone=[], **own)

    def __call__(self, old: Config, new: Config) -> list[str]:
        """Go on with `new`, whose `anew` is that of `old`. Returns what was done, a line each.

        Raises an EdgeAgentError, and nothing has changed, where it is wrong.
        """
        changed = [name for name in (*self.of, *OF_LINES) if getattr(old, name) != getattr(new, name)]
        ready = [self.of[name](new) for name in changed if name in self.of]
        told = self._work.turn_to(new, lambda: [act() for act in ready])
        self._forget(old, new)
        if self._state.show is not None:
            self._state.show.turn_to(new)
        return [*(f"[{name}] holds from now on" for name in changed), *told]

    def _forget(self, old: Config, new: Config) -> None:
        """What is retained of pipelines, rules and profiles that are no more is cleared."""
        for name in {pipe.name for pipe in old.pipeline} - {pipe.name for pipe in new.pipeline}:
            self._state.forget(name)
        self._state.clear(tail for key, tail in RETAINED.items() if getattr(old, key) and not getattr(new, key))

    def _limits(self, new: Config) -> Callable[[], object]:
        def act() -> None:
            if self._state.governor is not None:
                self._state.governor.turn_to(new.limits)
            log.info("config: [limits] of memory and processor reach the service manager by `edge-agent install`")

        return act

    def _understand(self, new: Config) -> Callable[[], object]:
        return self._requests.turn_to(new.understand)

    def _store(self, new: Config) -> Callable[[], object]:
        kept = new.store

        def act() -> None:
            self._outbox.bound(kept.max_bytes, kept.expire_hours, kept.max_events)
            if self._link is not None:
                self._link.budget.per_day = kept.bytes_per_day

        return act


def try_anew(new: Config, models: Models) -> None:
    """Raise an EdgeAgentError for a config that another agent would not be made of."""
    checked_store(new)
    if new.mqtt.url is not None:
        from edge_agent.link.broker import Broker

        Broker(new.mqtt)
    check_told(new)
    ear = (lambda topics, receive: None) if new.mqtt.url else None
    check_rules(new, [make_line(pipe, models, ear, zones=new.zone) for pipe in new.pipeline])
