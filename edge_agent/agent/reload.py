"""Another config while the agent runs, once it is asked for: read anew, tried, turned to, or refused and said."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent.state import State
from edge_agent.agent.turns import try_anew
from edge_agent.config import Config
from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")


class Reload:
    """Of one agent. `reload` is for a thread of its own; the others may be called from any."""

    def __init__(
        self, reread: Callable[..., Config], turn_to: Callable[[Config], None], state: State, told: Callable[[], None]
    ) -> None:
        """`reread`: the config that is there now (`shared`: with that folder's in place of the shared one that serves).
        `turn_to` goes on with it. Both raise an EdgeAgentError. `told` is called when it is asked for, and when it was
        done.
        """
        self._reread, self._turn_to, self._state, self._told = reread, turn_to, state, told
        self.asked, self._done = threading.Event(), threading.Event()
        self._over = False
        self.not_made = ""
        """why no agent could be made of a config that this one was to give way to, one line"""

    def ask(self) -> None:
        """Have it done soon."""
        self.asked.set()

    def end(self) -> None:
        """Nobody turns any more."""
        self._over = True
        self.asked.set()

    def reload(self, over: threading.Event) -> None:
        """Once it is asked for: do it. A config that is wrong is said, and the one before goes on."""
        self.asked.wait()
        self.asked.clear()
        if over.is_set():
            return
        self._told()
        try:
            self._turn_to(self._reread())
            self._state.refused = ""
        except EdgeAgentError as error:
            self._state.refused = str(error)
            log.error("the config that is there now is refused, the one before goes on: %s", error)
        self._done.set()
        self._state.say_health()
        self._told()

    def now(self) -> str:
        """Turn to the config that is there now; why that was refused, "" where it was not."""
        if self.not_made:
            return self.not_made
        self._done.clear()
        self.ask()
        while not self._done.wait(0.2) and not self._over:
            pass
        return self._state.refused

    def try_shared(self, folder: Path, models: Models) -> None:
        """Raise an EdgeAgentError where the shared config of a folder would not do."""
        try_anew(self._reread(shared=folder), models)
