"""Models that change while the agent runs: switched in the registry, or found to run faster another way."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from edge_agent.agent.line import Line, make_teams
from edge_agent.agent.lines import Lines
from edge_agent.device.health import give_back
from edge_agent.errors import EdgeAgentError
from edge_agent.manifest import Served

if TYPE_CHECKING:
    from edge_agent.serving.models import Models
    from edge_agent.serving.order import Pace

log = logging.getLogger("edge_agent")

SETTLED_S = 10.0
"""seconds of work before it is found out how the models run fastest, which takes processor time of its own"""
LOOK_S = 2.0
"""seconds between two looks for models that were switched"""


class Swap:
    """Puts new models in the place of old ones, between two samples. `switched` and `improve` are for a thread each."""

    def __init__(self, models: Models, work: Lines, look: threading.Event, changed: Callable[[], object]) -> None:
        """`look`: set it to have switched models noticed now; `changed` is called when a line's models did."""
        self.models, self.lines, self.look, self._changed = models, work.all, look, changed
        self._tune = work.controls.tune
        self._one_at_a_time = threading.Lock()

    def switched(self, stop: threading.Event) -> None:
        """Swap the models that were switched in the registry, while the old ones go on serving."""
        while not stop.is_set():
            self.look.wait(LOOK_S)
            self.look.clear()
            for name in self.models.changed():
                if not stop.is_set():
                    self._swap(name)

    def improve(self, stop: threading.Event) -> None:
        """Find out in the background how each model runs fastest here, and go on that way."""
        from edge_agent.registry.catalogue import fingerprint

        stop.wait(SETTLED_S)
        done: set[str] = set()
        while not stop.is_set():
            for name in {name for line in self.lines for uses in line.uses for name in uses}:
                known = f"{name} {fingerprint(name)}"
                if known not in done and not stop.is_set():
                    done.add(known)
                    try:
                        if self.models.improve(name):
                            self._swap(name)
                    except (EdgeAgentError, OSError) as error:
                        log.warning("%s: how it runs fastest could not be found out: %s", name, error)
            stop.wait(LOOK_S)

    def again(self, name: str) -> None:
        """Open this model anew, and go on with what serves then."""
        self._swap(name)

    def _swap(self, name: str) -> None:
        """Put tasks on the new model in the place of those on the old one.

        Should it be refused, nothing changes but `refused`, and it is not tried again until it changes once more.
        """
        lines = [line for line in self.lines if any(name in uses for uses in line.uses)]
        with self._one_at_a_time:
            try:
                self._swap_in(name, lines)
            except EdgeAgentError as error:
                log.error("%s: the new version does not serve, the old one goes on: %s", name, error)
                for line in lines:
                    line.refused, line.newest = str(error), {**line.newest, name: _version(name)}
            give_back()
            self._changed()

    def _swap_in(self, name: str, lines: list[Line]) -> None:
        """Make all that is new before anything is changed. Raises an EdgeAgentError."""
        served = {pace: self.models.open(name, pace) for pace in {line.pace for line in lines}}

        def serve(other: str, pace: Pace) -> Served:
            return served[pace] if other == name else self.models.serve(other, pace)

        made = [
            make_teams(line.config, line.opened.yields, partial(serve, pace=line.pace), line, name) for line in lines
        ]
        for pace, one in served.items():
            self.models.adopt(name, one, pace)
        for line, (teams, uses) in zip(lines, made, strict=True):
            self._tune(line, teams)
            for tasks, new in zip(line.teams, teams, strict=True):
                # one assignment: `run` takes all tasks of a sample at once
                tasks[:] = new
            line.uses, line.refused, line.newest = uses, "", {}
        new_one = next(iter(served.values()))
        log.info("%s: swapped to version %s: %s", name, new_one.ref.version, new_one.why)


def _version(name: str) -> str:
    """The version that lies in the registry under a name; empty where that cannot be read."""
    from edge_agent.registry import catalogue

    try:
        return catalogue.locate(name).manifest.version
    except EdgeAgentError:
        return ""
