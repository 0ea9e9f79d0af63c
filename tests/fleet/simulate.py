"""A simulated fleet: the device's and the operator's real state machines, with a network and a time that are made up.

Simulated are the broker (with retained messages, restarts and lost messages), the way of messages, how long an update
takes and how it ends, and each device's clock. Real are edge_agent/fleet/jobs.py on each device, with its file, and
edge_agent/fleet/rollout.py, whose file is read anew whenever the operator's machine is said to have died.
"""

from __future__ import annotations

import heapq
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_agent.fleet.jobs import Jobs
from edge_agent.fleet.outcome import Outcome, Tell, untold
from edge_agent.fleet.plan import Plan, Rollout, counted
from edge_agent.fleet.rollout import Driver

START, STEP_S = 1_900_000_000.0, 20.0
"""seconds since 1970; seconds between two looks of a device at its work"""


class World:
    """Time, and what is to happen when."""

    def __init__(self, seed: int) -> None:
        self.now, self.dice = START, random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), act))

    def run(self, until: float, over: Callable[[], bool]) -> None:
        """Until there is nothing more to do, or so late."""
        while self._due and self._due[0][0] <= until and not over():
            self.now, _, act = heapq.heappop(self._due)
            act()


@dataclass
class Model:
    """How an update ends on a device, and how good it is there."""

    fails: float = 0.0
    """share of devices on which it fails"""
    agreement: float = 0.99


@dataclass
class Thing:
    """A device: its connection, its clock, and what `take` does there."""

    name: str
    world: World
    model: Model
    place: Path
    online: bool = True
    slow: float = 1.0
    clock_off: float = 0.0
    """seconds that its clock is ahead"""
    serves: str = "model/people/1"
    begun: int = 0
    """updates that were begun: one that was interrupted goes on and is no other"""
    at_work: int = 0
    most_at_work: int = 0
    ends_at: float | None = None
    bound: dict[str, bool] = field(default_factory=dict)
    """target -> whether it fails here"""

    def take(self, target: str, tell: Tell = untold) -> Outcome:
        """As edge_agent/fleet/outcome.py promises."""
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            return self._take(target, tell)
        finally:
            self.at_work -= 1

    def _take(self, target: str, tell: Tell) -> Outcome:
        if self.serves == target:
            return Outcome("SUCCEEDED", target, "done", "serves already")
        if self.ends_at is None:
            self.begun += 1
            self.ends_at = self.world.now + self.slow * self.world.dice.uniform(60, 600)
            tell(Outcome("IN_PROGRESS", target, "download"))
        if self.world.now < self.ends_at:
            return Outcome("IN_PROGRESS", target, "canary", "compared with what serves", later=True)
        self.ends_at = None
        figures = {"agreement": self.model.agreement}
        if self.bound.setdefault(target, self.world.dice.random() < self.model.fails):
            return Outcome("FAILED", target, "canary", "agrees too little with what serves", "2", figures)
        self.serves = target
        return Outcome("SUCCEEDED", target, "done", "", "2", figures)


class Net:
    """A broker, the devices that are connected to it, and the operator's machine."""

    def __init__(self, world: World, things: list[Thing], rollout: Rollout, lost: float = 0.0) -> None:
        """`lost`: share of messages that do not arrive."""
        self.world, self.lost, self.messages = world, lost, 0
        self.things = {thing.name: thing for thing in things}
        self.retained: dict[tuple[str, str], bytes] = {}
        self.up, self.operator_up = True, True
        self.kept = msgspec.json.encode(rollout)
        self.jobs = {thing.name: self._jobs(thing) for thing in things}
        self.driver = self._driver()
        for number, thing in enumerate(things):
            world.later(number % 10 * 0.1, lambda thing=thing: self.connect(thing))  # type: ignore[misc]
            world.later(world.dice.uniform(0, STEP_S), lambda thing=thing: self._work(thing))  # type: ignore[misc]
        world.later(1.0, self._tick)

    def _jobs(self, thing: Thing) -> Jobs:
        def publish(tail: str, payload: bytes, retain: bool) -> None:
            self._way(thing.name, tail, payload, retain, self._to_operator)

        return Jobs(thing.name, thing.place / f"{thing.name}.json", publish, thing.take,
                    lambda: self.world.now + thing.clock_off)  # fmt: skip

    def _driver(self) -> Driver:
        def publish(device: str, tail: str, payload: bytes, retain: bool) -> None:
            self._way(device, tail, payload, retain, self._to_device)

        def save(it: Rollout) -> None:
            self.kept = msgspec.json.encode(it)

        made = Driver(msgspec.json.decode(self.kept, type=Rollout), publish, save, lambda: self.world.now)
        made.online = {name: thing.online for name, thing in self.things.items()}
        return made

    def _way(self, device: str, tail: str, payload: bytes, retain: bool, to: Callable[[str, str, bytes], None]) -> None:
        """A message on its way: kept by the broker where it is to be, and there a moment later."""
        sender_up = self.operator_up if to == self._to_device else self.things[device].online
        if not (self.up and sender_up):
            return
        self.messages += 1
        if retain and payload:
            self.retained[device, tail] = payload
        elif retain:
            self.retained.pop((device, tail), None)
        if payload and self.world.dice.random() >= self.lost:
            self.world.later(self.world.dice.uniform(0.02, 1.0), lambda: to(device, tail, payload))

    def _to_device(self, device: str, tail: str, payload: bytes) -> None:
        if self.up and self.things[device].online:
            self.jobs[device].heard(tail, payload)

    def _to_operator(self, device: str, tail: str, payload: bytes) -> None:
        if self.up and self.operator_up:
            self.driver.heard(device, tail, payload)

    def connect(self, thing: Thing) -> None:
        """A device comes: the broker gives it what is retained for it."""
        if not (self.up and thing.online):
            return
        self.jobs[thing.name].connected()
        if (kept := self.retained.get((thing.name, "notify-next"))) is not None:
            self._to_device(thing.name, "notify-next", kept)

    def _work(self, thing: Thing) -> None:
        self.jobs[thing.name].work()
        self.world.later(STEP_S, lambda: self._work(thing))

    def _tick(self) -> None:
        if self.operator_up and self.up:
            self.driver.tick()
        self.world.later(5.0, self._tick)

    # ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────

    def restart_broker(self, seconds: float) -> None:
        """All connections are gone for a while; what is retained is on its disk."""
        self.up = False

        def back() -> None:
            self.up = True
            for thing in self.things.values():
                self.world.later(self.world.dice.uniform(0.1, 30), lambda thing=thing: self.connect(thing))  # type: ignore[misc]
            self._operator_connects()

        self.world.later(seconds, back)

    def kill_operator(self, seconds: float) -> None:
        """The operator's machine dies; it is there again later, with its file alone."""
        self.operator_up = False

        def back() -> None:
            self.operator_up = True
            self.driver = self._driver()
            self._operator_connects()
            self.driver.again()

        self.world.later(seconds, back)

    def _operator_connects(self) -> None:
        for (device, tail), payload in list(self.retained.items()):
            if tail.endswith("/update"):
                self.world.later(0.1, lambda row=(device, tail, payload): self._to_operator(*row))  # type: ignore[misc]

    def kill_agent(self, thing: Thing) -> None:
        """The agent is started anew, with its file alone."""
        self.jobs[thing.name] = self._jobs(thing)
        self.connect(thing)

    def come_online(self, thing: Thing) -> None:
        thing.online = True
        self.driver.online[thing.name] = True
        self.connect(thing)


@dataclass
class Result:
    """What came of a rollout."""

    name: str
    status: str
    why: str
    counts: dict[str, int]
    updated: int
    """devices that serve the new one"""
    begun: int
    """devices on which it was begun"""
    twice: int
    """devices on which two were at work at once, or one was begun again after it was over"""
    waves: int
    hours: float
    messages: int
    seconds: float


def simulate(
    name: str, devices: int, model: Model, *, offline: float = 0.3, slow: float = 0.05, clocks: float = 0.1,
    lost: float = 0.01, storms: bool = True, seed: int = 1, hours: float = 48.0,
) -> Result:  # fmt: skip
    """One rollout of `model` to so many devices. Shares: offline for 1 to 12 hours, ten times slower, a clock that is
    off by up to a day or was never set. `storms`: the broker is restarted twice, the operator's machine dies twice,
    and so does one agent in ten.
    """
    began, world = time.monotonic(), World(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        things = [Thing(f"dev-{n:04}", world, model, Path(place)) for n in range(devices)]
        for thing in things:
            _make(thing, world, offline, slow, clocks)
        plan = Plan("model/people/2", "all", canary=max(1, devices // 100), factor=1.0, agreement=0.95)
        net = Net(world, things, Rollout("people-2", plan, START, devices={}), lost)
        net.driver.add([thing.name for thing in things])
        for thing in things:
            if not thing.online:
                world.later(world.dice.uniform(3600, 12 * 3600), lambda thing=thing: net.come_online(thing))  # type: ignore[misc]
        if storms:
            _storms(world, net, things)
        world.run(START + hours * 3600, lambda: (net.driver.it.status == "HALTED" and _calm(net, things))
                  or all(one.over for one in net.driver.it.devices.values()))  # fmt: skip
        it = net.driver.it
        twice = sum(thing.most_at_work > 1 or thing.begun > 1 for thing in things)
        updated = sum(thing.serves == plan.target for thing in things)
        return Result(name, it.status, it.why, counted(it), updated, sum(thing.begun > 0 for thing in things), twice,
                      it.wave + 1, (world.now - START) / 3600, net.messages, time.monotonic() - began)  # fmt: skip


def _calm(net: Net, things: list[Thing]) -> bool:
    """Nobody is at it any more."""
    return all(thing.ends_at is None for thing in things) and net.operator_up and net.up


def _make(thing: Thing, world: World, offline: float, slow: float, clocks: float) -> None:
    dice = world.dice
    thing.online = dice.random() >= offline
    thing.slow = 10.0 if dice.random() < slow else 1.0
    if dice.random() < clocks:
        thing.clock_off = dice.choice([-START, dice.uniform(-86_400, 86_400)])


def _storms(world: World, net: Net, things: list[Thing]) -> None:
    for hour in (0.2, 1.5):
        world.later(hour * 3600, lambda: net.restart_broker(120))
    for hour in (0.4, 2.5):
        world.later(hour * 3600, lambda: net.kill_operator(1800))
    for thing in world.dice.sample(things, len(things) // 10):
        world.later(world.dice.uniform(0, 3 * 3600), lambda thing=thing: net.kill_agent(thing))  # type: ignore[misc]
