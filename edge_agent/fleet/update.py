"""Taking a bundle: step by step, each noted on disk before it is done, so that a kill leaves what served, or the new.

Asked for by a person, by the device's own look at its repository, or by a rollout's job: all of them call `take`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Mapping

import msgspec

from edge_agent import files
from edge_agent.errors import EdgeAgentError, NotNowError, RefusedError
from edge_agent.fleet.bundle import MOST_INDEX, Bundle, Wanted, read, wanted
from edge_agent.fleet.outcome import WRONG, State, Step, Tell
from edge_agent.fleet.outcome import Outcome as Outcome
from edge_agent.fleet.outcome import Take as Take
from edge_agent.fleet.outcome import untold as untold
from edge_agent.fleet.served import Known, Served
from edge_agent.fleet.steps import Bring, Try, Way, late, line

log = logging.getLogger("edge_agent")

MOST_STARTS = 3
"""times that one is begun, before the switch or behind it: what ends the program each time is given up"""
BEFORE = "failed here before: "
Look = Callable[[Wanted], tuple[Bundle, bytes]]
"""finds and verifies a bundle"""
Check = Callable[[Bundle], None]
"""raises RefusedError for what a policy does not allow"""


class Update:
    """Of one device. `take` may be called from any thread; one bundle at a time."""

    def __init__(self, served: Served, ways: Mapping[str, Way], look: Look, bring: Bring, check: Check) -> None:
        self.served, self._ways = served, ways
        self._look, self._bring, self._check = look, bring, check
        self._one = threading.Lock()
        self._wrong = WRONG["look"]
        """what is wrong with what is refused now, before it is begun"""
        self.now: Outcome | None = None
        """what is under way; None where nothing is"""

    def take(self, target: str, tell: Tell = untold) -> Outcome:
        """As `Take` says."""
        with self._one:
            return self._ended(target, lambda: self._take(wanted(target), self._teller(tell)), tell)

    def resume(self, tell: Tell = untold) -> list[Outcome]:
        """Go on with what a restart interrupted behind the switch; what it interrupted before had changed nothing, and
        is done when it is asked for again.
        """
        ended = []
        for key in list(self.served.kept.bundles):
            with self._one:
                trying = self.served.known(key).trying
                if trying is not None:
                    asked = f"{key}/{trying.number}"
                    outcome = self._ended(asked, lambda key=key: self._resumed(key, self._teller(tell)), tell)  # type: ignore[misc]
                    ended.append(outcome)
        return ended

    def again(self, target: str) -> None:
        """Forget that a bundle failed here. UsageError."""
        asked = wanted(target)
        known = self.served.known(asked.key)
        known.given_up = (
            {} if not asked.number else {n: why for n, why in known.given_up.items() if n != str(asked.number)}
        )
        self.served.save()

    # ── the steps ────────────────────────────────────────────────────────────────────────────────────────

    def _teller(self, tell: Tell) -> Tell:
        def told(outcome: Outcome) -> None:
            self.now = outcome
            log.info("%s: %s%s", outcome.target, outcome.step, f": {outcome.reason}" if outcome.reason else "")
            tell(outcome)

        return told

    def _ended(self, target: str, act: Callable[[], Outcome], tell: Tell) -> Outcome:
        """What becomes of it, whatever is raised."""
        step: Step = "look"
        try:
            outcome = act()
        except (EdgeAgentError, OSError) as error:
            step = self.now.step if self.now is not None else "look"
            named = self.now.target if self.now is not None else target
            later = isinstance(error, (NotNowError, OSError))
            state: State = "IN_PROGRESS" if later else "FAILED" if late(step) else "REJECTED"
            outcome = Outcome(state, named, step, line(error), later=later)
        finally:
            self.now = None
        if outcome.state in ("FAILED", "REJECTED") and not outcome.reason.startswith(BEFORE):
            log.error("%s: %s: %s", outcome.target, outcome.state, outcome.reason)
            self._count(outcome)
        self._remember(target, outcome)
        tell(outcome)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        """By what was wrong."""
        why = WRONG.get(outcome.step, "health")
        with contextlib.suppress(OSError):
            self.served.count(self._wrong if why == WRONG["look"] else why)

    def _remember(self, target: str, outcome: Outcome) -> None:
        try:
            key = wanted(target).key
        except EdgeAgentError:
            return
        known = self.served.kept.bundles.get(key)
        if known is not None and known.last != outcome:
            known.last = outcome
            try:
                self.served.save()
            except OSError as error:
                log.warning("%s: %s", self.served.file, error.strerror)

    def _take(self, asked: Wanted, tell: Tell) -> Outcome:
        known = self.served.known(asked.key)
        if known.trying is not None and late(known.trying.step):
            ended = self._resumed(asked.key, tell)
            if asked.number in (0, known.trying.number if known.trying else asked.number):
                return ended
        tell(Outcome("IN_PROGRESS", str(asked), "look"))
        self._wrong = WRONG["look"]
        bundle, raw = self._look(asked)
        self._wrong = "number"
        sha256 = hashlib.sha256(raw).hexdigest()
        if (ended_before := self._known_already(bundle, sha256, known)) is not None:
            return ended_before
        self._wrong = "policy"
        self._check(bundle)
        index = self.served.index(asked.key, bundle.number)
        files.folder(self.served.folder, files.PRIVATE)
        files.folder(index.parent, files.PRIVATE)
        files.write_private(index, raw, confirm=True)
        return self._try(bundle, sha256, known, tell)("download")

    def _known_already(self, bundle: Bundle, sha256: str, known: Known) -> Outcome | None:
        """What is to be said without a try. RefusedError for a downgrade."""
        target, serves = str(bundle.wanted), known.serves
        way = self._ways.get(bundle.kind)
        if way is None:
            mend = "is taken while the service runs: sudo systemctl start edge-agent" if bundle.kind == "agent" else ""
            raise RefusedError(f"{target}: {mend or 'this device takes no bundles of that kind'}")
        if serves is not None and serves.number == bundle.number:
            if serves.sha256 != sha256:
                raise RefusedError(
                    f"{target}: is another bundle than the one that serves under this number; publish it anew"
                )
            if way.serves(bundle):
                return Outcome("SUCCEEDED", target, "done", "serves already", bundle.version)
        elif why := known.given_up.get(str(bundle.number)):
            return Outcome("FAILED", target, "done", f"{BEFORE}{why}", bundle.version)
        elif bundle.number < known.highest:
            raise RefusedError(f"{target}: is older than number {known.highest}, which served here; publish it anew")
        return None

    def _resumed(self, key: str, tell: Tell) -> Outcome:
        """Go on with a bundle behind the switch, or drop it."""
        known = self.served.known(key)
        trying = known.trying
        assert trying is not None
        target = f"{key}/{trying.number}"
        over = trying.starts >= MOST_STARTS
        if not late(trying.step):
            if not over:
                return Outcome(
                    "IN_PROGRESS", target, trying.step, "was interrupted before anything changed", later=True
                )
            why, known.trying = f"the program ended {trying.starts} times at the step {trying.step}", None
            self.served.give_up(known, trying.number, why)
            self.served.save()
            return Outcome("FAILED", target, trying.step, why, trying.version)
        raw = files.read_regular(self.served.index(key, trying.number), MOST_INDEX)
        if hashlib.sha256(raw).hexdigest() != trying.sha256:
            raise RefusedError(f"{target}: its index on this device was changed; it is not gone on with")
        bundle = read(raw, wanted(target))
        step: Step = trying.step
        if over and step != "back":
            step, why = "back", f"the program ended {trying.starts} times in the first while with it"
            known.trying = msgspec.structs.replace(trying, why=why)
        return self._try(bundle, trying.sha256, known, tell)(step)

    def _try(self, bundle: Bundle, sha256: str, known: Known, tell: Tell) -> Try:
        return Try(self.served, self._ways[bundle.kind], self._bring, bundle, sha256, known, tell)
