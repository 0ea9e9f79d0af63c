"""A rollout as an operator's machine drives it: waves of devices, a canary first, which stops by itself.

It is the other side of jobs.py: it keeps each device's execution and its version, offers jobs retained (a device that
is offline catches up later), and answers each update. All it knows is one value, `Rollout`, that is written before
anything is said, so that it goes on where it was after its machine died. No connection and no clock of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from edge_agent.events import UNREADABLE
from edge_agent.fleet.messages import MOST, OVER, Update
from edge_agent.fleet.plan import Device, Rollout

AFTER = {"QUEUED": ("IN_PROGRESS", *OVER), "IN_PROGRESS": ("IN_PROGRESS", *OVER)}
"""status -> those that a device may say next"""

Publish = Callable[[str, str, bytes, bool], object]
"""(device, what stands behind its jobs' prefix, payload, whether it is retained)"""
Sign = Callable[[str, "dict[str, Any]"], bytes]
"""(what it is signed for, a document) -> what is published of it"""


class Driver:
    """Drives one. Of one thread."""

    def __init__(
        self, rollout: Rollout, publish: Publish, save: Callable[[Rollout], object], clock: Callable[[], float],
        sign: Sign = lambda topic, document: msgspec.json.encode(document),
    ) -> None:  # fmt: skip
        """`save` writes it to disk before it returns; `clock`: seconds since 1970."""
        self.it, self._publish, self._save, self._clock, self._sign = rollout, publish, save, clock, sign
        self.online: dict[str, bool] = {}
        """as the devices' status says, where it was heard"""

    def add(self, devices: list[str]) -> None:
        """These belong to the group; those that are new are offered it in a wave to come."""
        fresh = [name for name in devices if name not in self.it.devices]
        if fresh:
            self.it.devices |= {name: Device() for name in fresh}
            if self.it.status == "DONE":
                self.it.status = "RUNNING"
            self._save(self.it)

    def again(self) -> None:
        """Offer once more what is not over, as after a restart: a device that has it already goes on."""
        for name, one in self.it.devices.items():
            if one.status in ("QUEUED", "IN_PROGRESS") and self.it.status != "HALTED":
                self._offer(name, one)

    def resume(self) -> None:
        """Go on with one that was halted: what was taken back is offered anew, what went wrong was decided about."""
        if self.it.status != "HALTED":
            return
        self.it.status, self.it.why, self.it.wave_at = "RUNNING", "", self._clock()
        for one in self.it.devices.values():
            if one.status == "CANCELED":
                one.status, one.version, one.run = "", one.version + 1, one.run + 1
            one.forgiven = one.wrong
        self._save(self.it)

    def halt(self, why: str) -> None:
        """Offer it to no further device, and take it back from those that have not begun."""
        if self.it.status == "HALTED":
            return
        self.it.status, self.it.why = "HALTED", why
        back = [name for name, one in self.it.devices.items() if one.status == "QUEUED"]
        for name in back:
            self._now(self.it.devices[name], "CANCELED", {"reason": why})
        self._save(self.it)
        for name in back:
            self._publish(name, "notify-next", msgspec.json.encode({"timestamp": int(self._clock())}), False)
            self._publish(name, "notify-next", b"", True)

    # ── what devices say ─────────────────────────────────────────────────────────────────────────────────

    def heard(self, device: str, tail: str, payload: bytes) -> None:
        """What a device says under its jobs' prefix; that of others, and what makes no sense, is passed over."""
        one = self.it.devices.get(device)
        if one is None or not payload or len(payload) > MOST:
            return
        if tail == "$next/get":
            if one.status in ("QUEUED", "IN_PROGRESS") and self.it.status != "HALTED":
                self._offer(device, one)
        elif tail == f"{self.it.job}/update":
            try:
                self._update(device, one, msgspec.json.decode(payload, type=Update))
            except UNREADABLE:
                self._publish(device, f"{tail}/rejected", _answer("", "InvalidJson", one), False)

    def accuracy(self, device: str, state: str) -> None:
        """What a device says of its accuracy: its contract is kept, at risk, broken or unknown, and more behind it."""
        one = self.it.devices.get(device)
        if one is not None and one.status == "SUCCEEDED" and not one.lost and state.startswith("broken"):
            one.lost = "its accuracy is below the contract"
            self._save(self.it)
            self.tick()

    def _update(self, device: str, one: Device, said: Update) -> None:
        """What a device says of its execution, and the answer. The device alone writes it, so that a version ahead of
        ours is of a time when we were away.
        """
        code = ""
        if said.executionNumber != one.run or said.status not in (one.status, *AFTER.get(one.status, ())):
            code = "TerminalStateReached" if one.over else "InvalidStateTransition"
        elif said.expectedVersion < one.version and not one.over:
            code = "VersionMismatch"
        elif not one.over:
            one.version = said.expectedVersion + 1
            self._now(one, said.status, {key: value[:1000] for key, value in list(said.statusDetails.items())[:20]})
            self._judge(one)
            self._save(self.it)
        word = "rejected" if code else "accepted"
        self._publish(device, f"{self.it.job}/update/{word}", _answer(said.clientToken, code, one), False)
        self._clear(device, one)

    def _judge(self, one: Device) -> None:
        """Whether one that succeeded agrees enough with what was before."""
        agreed, least = _number(one.details.get("agreement")), self.it.plan.agreement
        if one.status == "SUCCEEDED" and agreed is not None and least is not None and agreed < least:
            one.lost = f"agreement {agreed:.3f}, below {least:.3f}"

    def _clear(self, device: str, one: Device) -> None:
        """What is over need not be retained any more."""
        if one.over:
            self._publish(device, "notify-next", b"", True)
            self._publish(device, f"{self.it.job}/update", b"", True)

    # ── time goes by ─────────────────────────────────────────────────────────────────────────────────────

    def tick(self) -> None:
        """See what is late, whether it has to stop, and whether the next wave may begin."""
        if self.it.status != "RUNNING":
            return
        now = self._clock()
        for device, one in self.it.devices.items():
            if one.status == "IN_PROGRESS" and now - one.at > self.it.plan.timeout_s:
                self._now(one, "TIMED_OUT", {**one.details, "reason": f"at work for {self.it.plan.timeout_s:.0f} s"})
                self._save(self.it)
                self._clear(device, one)
        if why := self._must_stop():
            self.halt(why)
        elif self._settled(now):
            self._next_wave(now)

    def _must_stop(self) -> str:
        """Why it stops; empty: it goes on."""
        plan, over = self.it.plan, self.it.judged()
        wrong = [one for one in over if one.wrong]
        if canaries := [one for one in wrong if one.wave == 0]:
            return f"the canary went wrong: {canaries[0].said}"
        if len(over) >= plan.abort_after and len(wrong) >= max(1, plan.abort_share * len(over)):
            return f"{len(wrong)} of {len(over)} devices went wrong, {plan.abort_share:.0%} are allowed"
        return ""

    def _settled(self, now: float) -> bool:
        """Whether the wave is over, and nothing happened for a while; a canary has to have succeeded."""
        if self.it.wave < 0:
            return True
        wave = self.it.of_wave(self.it.wave)
        if now - self.it.wave_at < self.it.plan.soak_s or not all(one.over or self._away(one, now) for one in wave):
            return False
        return self.it.wave > 0 or any(one.status == "SUCCEEDED" for one in wave) or self._more_canaries(now)

    def _away(self, one: Device, now: float) -> bool:
        return one.status == "QUEUED" and now - one.at > self.it.plan.patience_s

    def _more_canaries(self, now: float) -> bool:
        """All of the first wave are offline: others take their place."""
        self._begin([name for name, one in self._ready() if one.status == ""][: self.it.plan.canary], now)
        return False

    def _next_wave(self, now: float) -> None:
        left = self._ready()
        if not left:
            if self.it.devices and all(one.over or self._away(one, now) for one in self.it.devices.values()):
                self.it.status = "DONE"
                self._save(self.it)
            return
        self.it.wave += 1
        done = sum(one.wave >= 0 for one in self.it.devices.values())
        size = self.it.plan.canary if self.it.wave == 0 else math.ceil(done * self.it.plan.factor)
        self._begin([name for name, _ in left][: min(size, self.it.plan.most)], now)

    def _ready(self) -> list[tuple[str, Device]]:
        """Those that were not offered it yet; what is online comes first."""
        left = [(name, one) for name, one in self.it.devices.items() if not one.status]
        return sorted(left, key=lambda row: not self.online.get(row[0], True))

    def _begin(self, names: list[str], now: float) -> None:
        for name in names:
            self._now(self.it.devices[name], "QUEUED", {})
            self.it.devices[name].wave = self.it.wave
        self.it.wave_at = now
        self._save(self.it)
        for name in names:
            self._offer(name, self.it.devices[name])

    def _offer(self, device: str, one: Device) -> None:
        """The job, retained until it is over."""
        plan = self.it.plan
        document = {"target": plan.target, "devices": [device], "expires": self.it.began + plan.expires_s}
        execution = {
            "jobId": self.it.job,
            "status": one.status,
            "queuedAt": int(self.it.began),
            "versionNumber": one.version,
            "executionNumber": one.run,
            "jobDocument": msgspec.Raw(self._sign(f"jobs/{self.it.job}", document)),
        }
        body = {"timestamp": int(self._clock()), "execution": execution}
        self._publish(device, "notify-next", msgspec.json.encode(body), True)

    def _now(self, one: Device, status: str, details: dict[str, str]) -> None:
        one.status, one.at, one.details = status, self._clock(), details
        self.it.wave_at = max(self.it.wave_at, one.at)


def _answer(token: str, code: str, one: Device) -> bytes:
    state = {"status": one.status or "QUEUED", "versionNumber": one.version, "statusDetails": one.details}
    body: dict[str, Any] = {"clientToken": token, "executionState": state}
    return msgspec.json.encode(body | ({"code": code, "message": code} if code else {}))


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
