"""Who may have this device updated, heard and answered: a rollout's jobs, the desired state, a hawkBit server.

All of them ask for bundles by name; what is taken is verified and tried as [update] has it (agent/update.py).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent import __version__
from edge_agent.agent.lines import Lines
from edge_agent.agent.rules import Rules
from edge_agent.config import Config, secret
from edge_agent.errors import RefusedError
from edge_agent.fleet import desired, jobs
from edge_agent.fleet.outcome import Outcome, Tell, untold
from edge_agent.link import topics
from edge_agent.link.signing import Unsigned

if TYPE_CHECKING:
    from edge_agent.fleet.update import Update
    from edge_agent.link.link import Link

LOOK_S, SAY_S = 1.0, 60.0
"""seconds between two looks at what is to be done; until what is reported is said again, where nothing changed"""
OLD_S = 30 * 86_400.0
"""seconds for which a signature of a job or of what is wanted counts"""
WAITING = 200
"""messages that wait to be heard"""

log = logging.getLogger("edge_agent")


class Rollouts:
    """A part of an agent."""

    def __init__(
        self, config: Config, link: Link | None, update: Callable[[], Update | None], work: Lines, rules: Rules,
        store: Path, accuracy: Callable[[], str],
    ) -> None:  # fmt: skip
        """`update`: what takes bundles, None without [update]; `accuracy`: how its contract is, empty where none is."""
        section = config.rollout
        assert section is not None
        self._config, self._link, self._update, self._work = config, link, update, work
        self._rules, self._accuracy = rules, accuracy
        self._over, self._heard = threading.Event(), queue.Queue[Callable[[], object] | None](WAITING)
        self._connected, self._said, self._say_at = False, b"", 0.0
        base = topics.base_of(config.mqtt.prefix, config.device.id)
        self._jobs_at = section.jobs or topics.whole(base, topics.JOBS)
        self._tail = topics.tail_of(base, self._jobs_at)
        self.jobs = jobs.Jobs(
            config.device.id, store / jobs.NAME, self._publish, self._take, time.time, open_=self._opened,
            claim=section.is_aws,
        )  # fmt: skip
        serves = lambda key: self._serves(key)[0]  # noqa: E731
        turn = lambda name: rules.set_profile(name, "desired")  # noqa: E731
        self.desired = desired.Follow(store / desired.NAME, self._take, serves, lambda: rules.profile, turn)
        self._threads = [
            threading.Thread(target=self._guarded, args=(act,), name=f"rollout-{name}", daemon=True)
            for name, act in (("work", self._work_on), ("heard", self._hear))
        ]
        if section.hawkbit:
            from edge_agent.fleet.hawkbit import Hawkbit

            file = section.token_file
            token = lambda: secret(file, "rollout.token_file") if file else ""  # noqa: E731
            self.hawkbit = Hawkbit(section.hawkbit, config.device.id, token, self._take)
            self._threads.append(
                threading.Thread(target=self._guarded, args=(self._ask,), name="rollout-hawkbit", daemon=True)
            )
        if link is not None:
            for tail in topics.JOBS_HEARD:
                link.subscribe(f"{self._jobs_at}/{tail}", self._came)
            if section.desired:
                for topic in self._wanted_at():
                    link.subscribe(topic, self._wanted)

    # ── a part of the agent ──────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """Begin to end: an update that is under way goes on at the next start."""
        self._over.set()
        if self._heard.empty():
            self._heard.put(None)

    def close(self) -> None:
        """Wait for the end, but not for an update."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(0.5)

    def _guarded(self, act: Callable[[], object]) -> None:
        """A bug ends nothing else."""
        while not self._over.is_set():
            try:
                act()
            except Exception:
                log.exception("what is heard of a rollout failed; it goes on")
                self._over.wait(10 * LOOK_S)

    # ── what is done ─────────────────────────────────────────────────────────────────────────────────────

    def _take(self, target: str, tell: Tell = untold) -> Outcome:
        update = self._update()
        if update is None:
            return Outcome("REJECTED", target, "look", "this device takes no bundles: write [update] in its config")
        return update.take(target, tell)

    def _serves(self, key: str) -> tuple[int, str]:
        """Number and version of a bundle that serves; 0 for none."""
        update = self._update()
        laid = update.served.known(key).serves if update is not None else None
        return (laid.number, laid.version) if laid is not None else (0, "")

    def _work_on(self) -> None:
        connected = self._link is not None and self._link.connected
        if connected and not self._connected:
            self.jobs.connected()
        self._connected = connected
        self.jobs.work()
        self.desired.work(self.jobs.now is not None)
        self._report()
        self._over.wait(LOOK_S)

    def _ask(self) -> None:
        self._over.wait(self.hawkbit.poll())

    # ── what is heard ────────────────────────────────────────────────────────────────────────────────────

    def _came(self, topic: str, payload: bytes) -> bool:
        """A message for the jobs; the caller does not wait."""
        return self._later(lambda: self.jobs.heard(topic[len(self._jobs_at) + 1 :], payload))

    def _wanted(self, topic: str, payload: bytes) -> bool:
        return self._later(lambda: self._desire(topic, payload))

    def _later(self, act: Callable[[], object]) -> bool:
        try:
            self._heard.put_nowait(act)
        except queue.Full:
            return False
        return True

    def _hear(self) -> None:
        act = self._heard.get()
        if act is not None:
            act()

    def _opened(self, topic: str, raw: bytes) -> bytes:
        if self._link is None:
            return raw
        try:
            return self._link.signed(topic, raw, OLD_S)
        except Unsigned as error:
            raise RefusedError(str(error)) from None

    def _desire(self, topic: str, payload: bytes) -> None:
        if not payload or len(payload) > desired.MOST:
            return
        try:
            self.desired.heard(topic != self._wanted_at()[0], self._opened(topic, payload))
        except RefusedError as error:
            self.desired.refused += 1
            log.warning("%s: %s", topic, error)

    def _wanted_at(self) -> list[str]:
        """Where documents of what is wanted are: the device's, and its group's."""
        prefix, update = self._config.mqtt.prefix, self._config.update
        own = topics.whole(topics.base_of(prefix, self._config.device.id), topics.DESIRED)
        return [own, topics.group_desired(prefix, update.group)] if update is not None else [own]

    # ── what is said ─────────────────────────────────────────────────────────────────────────────────────

    def _publish(self, tail: str, payload: bytes, retain: bool) -> None:
        if self._link is None:
            return
        to, aws = f"{self._tail}/{tail}", self._config.rollout is not None and self._config.rollout.is_aws
        if retain and not aws:
            self._link.say(to, payload) if payload else self._link.unsay(to)
        elif payload:
            self._link.tell(to, payload)

    def state(self) -> dict[str, Any]:
        """What is reported."""
        update, config = self._config.update, self._config
        keys = set(self.desired.asks()[0])
        keys |= set(update.follows if update is not None else [])
        serves = {key: f"{number} ({version})" for key in keys for number, version in [self._serves(key)] if number}
        models = {name: one["serves"] for line in self._work.all for name, one in line.versions.items()}
        now = self.jobs.now
        more: dict[str, object] = {"agent": __version__, "profile": self._rules.profile, "accuracy": self._accuracy()}
        more["job"] = {"id": now.job, "status": now.status, **now.details} if now is not None else None
        more["refused"] = self.jobs.refused + self.desired.refused
        return desired.reported(
            self.desired, config.device.id, update.group if update is not None else "", serves, models, more
        )

    def _report(self) -> None:
        if self._link is None:
            return
        body, now = msgspec.json.encode(self.state()), time.monotonic()
        if body != self._said or now >= self._say_at:
            self._said, self._say_at = body, now + SAY_S
            self._link.say(topics.REPORTED, body)
