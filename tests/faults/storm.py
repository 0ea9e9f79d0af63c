"""A storm of kill -9 on a real agent and a real broker, and what a consumer counted through it."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.broker import Mosquitto, broker, until
from tests.conftest import ROOT
from tests.faults.consumer import Consumer
from tests.faults.proxy import Proxy

PERSISTENT = (
    "allow_anonymous true\npersistence true\npersistence_location {}/\nautosave_interval 1\nmax_queued_messages 0"
)
SLOW = 300.0
"""seconds after which even a busy machine must have recovered"""
LINES_S = 50
"""lines a second that the followed file grows by"""


@dataclass
class Result:
    kills: Counter[str] = field(default_factory=Counter)
    """agent, broker -> how often"""
    lines: int = 0
    lost: int = 0
    """lines that the consumer never heard"""
    twice: int = 0
    """lines that came under two numbers"""
    undeclared: int = 0
    """numbers that neither came nor were declared by a gap event"""
    duplicates: int = 0
    """events that the agent sent again and the consumer heard again"""
    redelivered: int = 0
    """events that the broker alone repeated, from a state it had saved before they were delivered"""
    worst: Counter[str] = field(default_factory=Counter)
    """duplicates a kill, at most, by who was killed"""
    recovery: dict[str, list[float]] = field(default_factory=lambda: {"agent": [], "broker": []})
    """who was killed last -> seconds from its start to a line written after it that the consumer heard"""
    yardstick: list[float] = field(default_factory=list)
    """seconds that this machine took, at random moments in between, to start a Python that imports the agent"""

    def __add__(self, other: Result) -> Result:
        worst = {who: max(self.worst[who], other.worst[who]) for who in ("agent", "broker")}
        recovery = {who: self.recovery[who] + other.recovery[who] for who in self.recovery}
        sums = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("kills", "lines", "lost", "twice", "undeclared", "duplicates", "redelivered", "yardstick")
        }
        return Result(**sums, worst=Counter(worst), recovery=recovery)


def percentile(seconds: list[float], share: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("nan")


class Sent:
    """How often each event went up to the broker, counted on the wire."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        data, end = self._rest + data, 0
        for found in re.finditer(rb'"id":"([^"]+/\d+/\d+)"', data):
            self.times[found[1].decode()] += 1
            end = found.end()
        self._rest = data[max(end, len(data) - 200) :]  # an id may be cut in two


class Feeder(threading.Thread):
    """Appends numbered lines to a file until stopped."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path, self.count, self.stop = path, 0, threading.Event()

    def run(self) -> None:
        with self.path.open("w") as file:
            while not self.stop.wait(1 / LINES_S):
                file.write(f"{self.count} {'word ' * (self.count % 40)}\n")
                file.flush()
                self.count += 1


class Agent:
    """A program that is killed and started again: `python -m` with these arguments."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.arguments = arguments
        self.log = folder / "agent.log"
        self.environment = {**os.environ, "EDGE_AGENT_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", *self.arguments]
            self.process = subprocess.Popen(command, stderr=log, env=self.environment)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def configure(folder: Path, url: str, more: str = "") -> Path:
    """A followed file, each line an alert that a consumer is to acknowledge."""
    file = folder / "agent.toml"
    file.write_text(
        f'[device]\nid = "porch"\n[mqtt]\nurl = "{url}"\nack = true\n[store]\npath = "store"\n{more}'
        '[[pipeline]]\nname = "words"\nsource = "lines:said.txt"\nclass = "alert"\n'
    )
    return file


@dataclass
class Stage:
    """All that takes part."""

    agent: Agent
    server: Mosquitto
    proxy: Proxy
    feeder: Feeder
    consumer: Consumer
    unanswered: list[str] = field(default_factory=list)
    """who was killed since the last recovery"""
    before: int = 0
    """duplicates before them"""


def storm(folder: Path, kills: int, seed: int, paho_alone: bool = False) -> Result:
    """Kill agent and broker at random, `kills` times in all, while lines come in; then wait until all is heard.

    `paho_alone`: instead of the agent, the same lines through a publisher on paho's own queue.
    """
    rng = random.Random(seed)
    result = Result()
    feeder = Feeder(folder / "said.txt")
    feeder.start()
    with (
        broker(folder, config=PERSISTENT.format(folder)) as server,
        Proxy(server.port) as proxy,
        Consumer(server.port) as consumer,
    ):
        until(lambda: consumer.ready, "the consumer is subscribed")
        proxy.tap = sent = Sent()
        if paho_alone:
            agent = Agent(folder, "tests.faults.rivals", str(feeder.path), str(proxy.port))
        else:
            consumer.sent = sent.times.__getitem__
            agent = Agent(folder, "edge_agent", "run", "-c", str(configure(folder, f"mqtt://127.0.0.1:{proxy.port}")))
        agent.start()
        stage = Stage(agent, server, proxy, feeder, consumer)
        try:
            until(lambda: consumer.newest >= 0, "the first line arrives", SLOW)
            for _ in range(kills):
                _one(rng, stage, result)
            feeder.stop.set()
            feeder.join()
            if not paho_alone:
                until(lambda: _texts(consumer).keys() >= set(range(feeder.count)), "every line arrives", SLOW)
            time.sleep(1 if not paho_alone else 10)  # what is still on its way
        finally:
            feeder.stop.set()
            agent.kill()
        texts = _texts(consumer)
        result.lines = feeder.count
        result.lost = len(set(range(feeder.count)) - texts.keys())
        result.twice = sum(n > 1 for n in texts.values())
        result.undeclared = sum(len(count.missing - count.declared) for count in consumer.counts.values())
        result.duplicates, result.redelivered = consumer.duplicates, consumer.redelivered
    return result


def _one(rng: random.Random, stage: Stage, result: Result) -> None:
    """One kill, and mostly the recovery; sometimes the next kill comes into it."""
    time.sleep(rng.uniform(0.02, 0.3))
    consumer = stage.consumer
    if not stage.unanswered:
        stage.before = consumer.duplicates
    victim = rng.choice(("agent", "agent", "broker"))
    stage.unanswered.append(victim)
    result.kills[victim] += 1
    if victim == "agent":
        stage.agent.kill()
    else:
        stage.server.stop(kill=True)
        stage.proxy.mode = "gone"
    time.sleep(rng.uniform(0, 0.1))
    written, began = stage.feeder.count, time.monotonic()
    (stage.agent if victim == "agent" else stage.server).start()
    stage.proxy.mode = "pass"
    if rng.random() < 0.1:
        return
    until(lambda: consumer.newest >= written, f"a line written after the kill of the {victim} arrives", SLOW)
    result.recovery[victim].append(time.monotonic() - began)
    who = "broker" if "broker" in stage.unanswered else "agent"
    each = -(-(consumer.duplicates - stage.before) // len(stage.unanswered))
    result.worst[who] = max(result.worst[who], each)
    stage.unanswered = []
    if rng.random() < 0.1:
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import edge_agent.agent.agent"], env=stage.agent.environment, check=True)
        result.yardstick.append(time.monotonic() - began)


def _texts(consumer: Consumer) -> Counter[int]:
    """Line number -> under how many numbers it came."""
    return Counter(
        int(text.partition(" ")[0]) for count in list(consumer.counts.values()) for text in list(count.texts.values())
    )
