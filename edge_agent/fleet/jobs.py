"""A rollout's jobs as a device does them, with names and states of AWS IoT Jobs (its developer guide, "Jobs MQTT API").

Below a prefix (`…/jobs`, or AWS's `$aws/things/NAME/jobs`) `notify-next` comes in: an execution and its document.
`JOB/update` goes out, with the version of the execution that it is based on; `/accepted` or `/rejected` is the answer.
One job at a time; the next one is asked for once it is over. What is known lies in a file, so that a kill goes on where
it was. Nothing here knows of a connection or a clock of its own: its user calls `connected`, `heard`, `work`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.errors import RefusedError, UsageError, tenfold
from edge_agent.events import KNOWN_TIME, UNREADABLE
from edge_agent.files import exchange, read_regular
from edge_agent.fleet.bundle import wanted
from edge_agent.fleet.messages import JOB, MOST, OVER, Answer, Document, Doing, Execution, Known, Next, details, update
from edge_agent.fleet.outcome import Outcome, Take

log = logging.getLogger("edge_agent")

NAME, MOST_FILE = "jobs.json", 1_000_000
"""of the file, and its bytes"""
ANSWER_S, AGAIN_S = 10.0, 300.0
"""seconds after which no answer is waited for any more; until a job that has to wait is tried again"""
KEPT = 100
"""jobs that are over and known"""

Publish = Callable[[str, bytes, bool], object]
"""(what stands behind the prefix, payload, whether it is to be retained); called from any thread"""
Open = Callable[[str, bytes], bytes]
"""(what a document has to be signed for, the document) -> what was signed; RefusedError where that was not signed"""


class Jobs:
    """Of one device. `connected` and `heard` return at once; `work` is for one thread, and takes as long as a job."""

    def __init__(
        self, device: str, file: Path, publish: Publish, take: Take, clock: Callable[[], float], *,
        open_: Open = lambda topic, raw: raw, claim: bool = False,
    ) -> None:  # fmt: skip
        """`clock`: seconds since 1970. `open_`: see Open. `claim`: nothing is begun before IN_PROGRESS is accepted, as
        AWS's own service answers always; a broker alone does not.
        """
        self._device, self._file, self._publish, self._take, self._clock = device, file, publish, take, clock
        self._open, self._claim = open_, claim
        self._lock = threading.RLock()
        self._known = _read(file)
        self._again_at = 0.0
        self._token = ""
        """of the update that is not answered yet"""
        self._sent_at, self._tokens = 0.0, 0
        self._due = self._known.now is not None
        """what is known of the job was not told yet"""
        self._refused: set[tuple[str, int]] = set()

    @property
    def refused(self) -> int:
        """Jobs that were refused so far."""
        return self._known.refused

    @property
    def now(self) -> Doing | None:
        """The job that is being done, or waits."""
        return self._known.now

    def status_of(self, job: str) -> str:
        """Of a job that was given; empty for an unknown one."""
        found = self._known_as(job)
        return found.status if found is not None else ""

    def _known_as(self, job: str) -> Doing | None:
        """The newest of that id."""
        every = [*self._known.over, *([self._known.now] if self._known.now is not None else [])]
        return next((one for one in reversed(every) if one.job == job), None)

    # ── from the connection ──────────────────────────────────────────────────────────────────────────────

    def connected(self) -> None:
        """There is a connection again: ask what is next, and tell what nobody knows yet."""
        with self._lock:
            self._token, self._refused = "", set()
            self._due = self._known.now is not None
            for one in self._known.over:
                if not one.told:
                    self._say(one)
        self._publish("$next/get", b"{}", False)

    def heard(self, tail: str, payload: bytes) -> None:
        """A message; `tail`: what stands behind the prefix. What makes no sense is passed over, and said in the log."""
        if len(payload) > MOST or not payload:
            return
        job, _, what = tail.partition("/")
        try:
            if tail in ("notify-next", "$next/get/accepted", "start-next/accepted"):
                self._offered(msgspec.json.decode(payload, type=Next).execution)
            elif what in ("update/accepted", "update/rejected"):
                self._answered(job, what == "update/accepted", msgspec.json.decode(payload, type=Answer))
        except UNREADABLE as error:
            self._count(f"a message on {tail[:80]} is none of a job's: {str(error)[:200]}")

    def _offered(self, given: object) -> None:
        """An execution, or that there is none."""
        with self._lock:
            now = self._known.now
            if not isinstance(given, Execution) or not given.jobId:
                if now is not None and now.status == "QUEUED":  # it was taken back before it was begun
                    self._end(now, "CANCELED", "taken back before it was begun", told=True)
                return
            if now is not None and now.job == given.jobId:
                now.version = max(now.version, given.versionNumber)
                return
            if now is not None and now.status != "QUEUED":
                return  # one at a time: it is asked for once this one is over
            try:
                document = self._read(given)
            except (RefusedError, UsageError) as error:
                self._refuse(given, str(error))
                return
            self._known.now = Doing(given.jobId, document.target, given.versionNumber, given.executionNumber)
            self._again_at, self._token = 0.0, ""
            self._save()

    def _read(self, given: Execution) -> Document:
        """What a job asks for. RefusedError, UsageError where it is not to be done here."""
        if not JOB.fullmatch(given.jobId):
            raise RefusedError("a job's id has 1 to 64 letters, digits, - and _")
        if (before := self._before(given)) is not None:
            raise RefusedError(f"was done already: {before.status}")
        if given.status not in ("QUEUED", "IN_PROGRESS"):
            raise RefusedError(f"is {given.status[:20]} already")
        signed = self._open(f"jobs/{given.jobId}", bytes(given.jobDocument))
        try:
            document = msgspec.json.decode(signed, type=Document)
        except UNREADABLE as error:
            raise RefusedError(f"its document cannot be read: {str(error)[:200]}") from None
        if document.devices and self._device not in document.devices:
            raise RefusedError(f"is for {document.devices[0][:64]}, not for {self._device}")
        now = self._clock()
        if now >= KNOWN_TIME and document.expires and now > document.expires:
            raise RefusedError("has expired")
        wanted(document.target)
        return document

    def _refuse(self, given: Execution, why: str) -> None:
        """Say that a job is not done here, once a connection; nothing changes."""
        key = (given.jobId[:64], given.executionNumber)
        if key in self._refused:
            return
        self._refused.add(key)
        before = self._before(given)
        if before is not None and not before.told:
            self._say(before)  # its sender has not heard yet how it went: nobody's fault
            return
        self._count(f"job {key[0]}: refused: {why}")
        if JOB.fullmatch(given.jobId):
            body = update("REJECTED", {"reason": why[:1000]}, given.versionNumber, given.executionNumber, "")
            self._publish(f"{given.jobId}/update", body, False)

    def _before(self, given: Execution) -> Doing | None:
        """The same one, where it is over; a later execution of a job is another one."""
        same = (one for one in self._known.over if (one.job, one.number) == (given.jobId, given.executionNumber))
        return next(same, None)

    def _count(self, why: str) -> None:
        self._known.refused += 1
        self._save()
        if tenfold(self._known.refused) or self._known.refused < 10:
            log.warning("%s", why)

    def _answered(self, job: str, taken: bool, answer: Answer) -> None:
        with self._lock:
            one = self._known_as(job)
            if one is None:
                return
            if self._token and answer.clientToken == self._token:
                self._token = ""
                one.version = answer.executionState.versionNumber or one.version
                self._taken(one) if taken else self._not_taken(one, answer)
            elif taken and answer.executionState.status == one.status:  # that of one which was sent before
                self._is_known(one)
            self._save()

    def _taken(self, one: Doing) -> None:
        """What was told of a job counts now."""
        self._is_known(one)
        if one.status == "QUEUED" and self._claim:
            one.status = "IN_PROGRESS"

    def _not_taken(self, one: Doing, answer: Answer) -> None:
        """What was told does not count: of another version, or its sender says that it is over."""
        if answer.code == "VersionMismatch":
            self._due = True
            return
        why = answer.executionState.status
        if one is self._known.now:
            self._end(one, why if why in OVER else "REMOVED", "its sender says that it is over", told=True)
        one.told = True

    def _is_known(self, one: Doing) -> None:
        """Whoever gave it knows how it is: what is over need not be retained any more."""
        if one.status in OVER and not one.told:
            one.told = True
            self._publish(f"{one.job}/update", b"", True)

    # ── work ─────────────────────────────────────────────────────────────────────────────────────────────

    def work(self) -> bool:
        """Do what is to be done now, and tell what is to be told; whether a job was taken a step further."""
        self._tell()
        with self._lock:
            now = self._known.now
            if now is None or self._clock() < self._again_at:
                return False
            if self._claim and now.status == "QUEUED":
                self._due = True
                self._tell()
                return False
            now.status = "IN_PROGRESS"
            self._save()
        outcome = self._take(now.target, self._on_step)
        with self._lock:
            if self._known.now is not now:
                return True
            if outcome.state == "IN_PROGRESS":
                self._again_at = self._clock() + AGAIN_S
                self._on_step(outcome)
            else:
                self._end(now, outcome.state, outcome.reason, outcome)
        self._tell()
        return True

    def _on_step(self, outcome: Outcome) -> None:
        """A step was begun."""
        with self._lock:
            if (now := self._known.now) is not None:
                now.details, self._due = details(outcome), True
        self._tell()

    def _end(self, now: Doing, status: str, why: str, outcome: Outcome | None = None, told: bool = False) -> None:
        """It is over: noted before it is told."""
        now.status, now.told = status, told
        now.details = details(outcome) if outcome is not None else {"reason": why}
        self._known.now, self._known.over = None, [*self._known.over, now][-KEPT:]
        self._save()
        log.log(logging.INFO if status == "SUCCEEDED" else logging.WARNING, "job %s: %s: %s", now.job, status, why)
        if not told:
            self._say(now)
        self._publish("$next/get", b"{}", False)

    def _tell(self) -> None:
        """Send how far the job is, where that is new and the one before was answered or is not answered any more."""
        with self._lock:
            now, waited = self._known.now, self._clock() - self._sent_at
            if now is None or not self._due or (self._token and 0 <= waited < ANSWER_S):
                return
            self._due = False
            self._say(now)

    def _say(self, one: Doing) -> None:
        """Send how a job is. What is over is retained, as its sender may be away."""
        self._tokens += 1
        self._token, self._sent_at = f"{self._device}-{self._tokens}", self._clock()
        status = one.status if one.status in OVER else "IN_PROGRESS"
        body = update(status, one.details, one.version, one.number, self._token)
        self._publish(f"{one.job}/update", body, one.status in OVER)

    def _save(self) -> None:
        try:
            exchange(self._file, msgspec.json.encode(self._known))
        except OSError as error:
            log.error("%s: %s; a restart does not know how far a job is", self._file, error.strerror)


def _read(file: Path) -> Known:
    try:
        return msgspec.json.decode(read_regular(file, MOST_FILE), type=Known)
    except FileNotFoundError:
        return Known()
    except (OSError, *UNREADABLE) as error:
        log.warning("%s: %s; jobs begin anew", file, error)
        return Known()
