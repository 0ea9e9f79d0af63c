"""The steps of one bundle, each noted on disk before it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.errors import EdgeAgentError, NotNowError, RefusedError
from edge_agent.fleet.bundle import Bundle
from edge_agent.fleet.outcome import Outcome, State, Step, Tell
from edge_agent.fleet.served import Known, Laid, Served, Trying

ORDER: tuple[Step, ...] = ("look", "download", "prove", "canary", "switch", "window", "back", "done")
Figures = dict[str, float]
Bring = Callable[[Bundle], int]
"""brings its files; bytes that came"""


class Way(Protocol):
    """How one kind of bundle is laid, tried, switched to, and taken back. Each step may be begun again after a kill.

    What may not serve raises RefusedError; what was tried and failed another EdgeAgentError; what cannot be known now
    NotNowError; the disk OSError.
    """

    def lay(self, bundle: Bundle) -> None:
        """Make it ready beside what serves."""

    def prove(self, bundle: Bundle) -> Figures:
        """Let it show on this device that it works."""

    def canary(self, bundle: Bundle) -> Figures:
        """Hold it against what serves, on what comes in now."""

    def switch(self, bundle: Bundle) -> None:
        """Let it serve: one step of the disk, whole or not at all."""

    def serves(self, bundle: Bundle) -> bool:
        """Whether it is what serves."""

    def window(self, bundle: Bundle) -> None:
        """Watch it serve for a while; raises where it is not healthy."""

    def back(self, bundle: Bundle, before: Laid | None) -> None:
        """Let serve what served before it, None: nothing."""


@dataclass(slots=True)
class Try:
    """One bundle on its way; call it with the step that it begins at."""

    served: Served
    way: Way
    bring: Bring
    bundle: Bundle
    sha256: str
    """of its index"""
    known: Known
    tell: Tell
    starts: int = 1
    figures: Figures = field(default_factory=dict)

    def __call__(self, step: Step) -> Outcome:
        """Go on to the end. Raises NotNowError where it is stopped while it is watched, OSError of the disk."""
        trying, why = self.known.trying, ""
        if trying is not None and trying.number == self.bundle.number:
            self.figures, why = dict(trying.figures), trying.why
            self.starts += trying.starts * (late(trying.step) == late(step))
        self.served.kept.bundles[self.bundle.wanted.key] = self.known
        begun = late(step)
        ended = None if begun else self._ready()
        if ended is None and step not in ("window", "back"):
            ended = self._switched(begun)
        if ended is not None:
            return ended
        if step != "back":
            why = self._watched()
        return self._back(why) if why else self._over("SUCCEEDED", "serves, and is healthy")

    def _note(self, at: Step, why: str = "") -> None:
        bundle = self.bundle
        self.known.trying = Trying(
            bundle.number, bundle.version, self.sha256, at, time.time(), self.starts, why, self.figures
        )
        self.served.save()
        self.tell(Outcome("IN_PROGRESS", str(bundle.wanted), at, why, bundle.version, dict(self.figures)))

    def _ready(self) -> Outcome | None:
        """All that changes nothing; how it ended there, None where it may be switched to."""
        try:
            self._note("download")
            self.figures["bytes"] = float(self.bring(self.bundle))
            self._note("prove")
            self.way.lay(self.bundle)
            self.figures |= self.way.prove(self.bundle)
            self._note("canary")
            self.figures |= self.way.canary(self.bundle)
        except (EdgeAgentError, OSError) as error:
            return self._left(error)
        return None

    def _switched(self, begun: bool) -> Outcome | None:
        """Let it serve; how it ended, None where it does."""
        self.starts = self.starts if begun else 1
        self._note("switch")
        try:
            self.way.switch(self.bundle)
        except (EdgeAgentError, OSError) as error:
            if not self.way.serves(self.bundle):
                return self._left(error)
        self._now_serves()
        return None

    def _now_serves(self) -> None:
        """On disk with the next note."""
        known, bundle = self.known, self.bundle
        if known.serves is None or known.serves.number != bundle.number:
            known.before = known.serves
            known.serves = Laid(bundle.number, bundle.version, self.sha256, time.time())
            known.highest = max(known.highest, bundle.number)

    def _watched(self) -> str:
        """Why it is not healthy; "" where it is."""
        self._note("window")
        try:
            if not self.way.serves(self.bundle):
                return "something else was switched to meanwhile"
            self.way.window(self.bundle)
        except NotNowError:  # a stop in order: no fault of it
            self.starts = 0
            self._note("window")
            raise
        except (EdgeAgentError, OSError) as error:
            return line(error)
        return ""

    def _back(self, why: str) -> Outcome:
        self._note("back", why)
        known = self.known
        if self.way.serves(self.bundle):
            self.way.back(self.bundle, known.before)
        if known.serves is not None and known.serves.number == self.bundle.number:
            known.serves, known.before = known.before, None
        self.served.give_up(known, self.bundle.number, why)
        return self._over("FAILED", f"{why}; what served before serves again")

    def _left(self, error: Exception) -> Outcome:
        """It did not come to the switch: nothing has changed."""
        known, at = self.known, self.known.trying.step if self.known.trying is not None else "download"
        if isinstance(error, (NotNowError, OSError)):
            known.trying = None
            self.served.save()
            target = str(self.bundle.wanted)
            return Outcome("IN_PROGRESS", target, at, line(error), self.bundle.version, self.figures, later=True)
        tried = at == "canary" and not isinstance(error, RefusedError)
        if at != "download":
            self.served.give_up(known, self.bundle.number, line(error))
        return self._over("FAILED" if tried else "REJECTED", line(error), at)

    def _over(self, state: State, why: str, at: Step = "done") -> Outcome:
        bundle, known = self.bundle, self.known
        outcome = Outcome(state, str(bundle.wanted), at, why, bundle.version, self.figures)
        known.trying, known.last = None, outcome
        self.served.save()
        self.served.index(bundle.wanted.key, bundle.number).unlink(missing_ok=True)
        return outcome


def line(error: Exception) -> str:
    """What went wrong, one line."""
    if isinstance(error, OSError):
        return f"{error.filename or 'the disk'}: {error.strerror or error}"
    return str(error)


def late(step: Step) -> bool:
    """Whether what serves may have changed by then."""
    return ORDER.index(step) >= ORDER.index("switch")
