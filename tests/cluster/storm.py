"""Thousands of MQTT sessions at one broker, which is killed and comes back to a backlog on each of them.

    python -m tests.cluster.storm nats|nodes|mosquitto|rabbitmq [--sessions 10000] [--events 20] [--unpaced]

Each session is a connection of raw MQTT 3.1.1 with a kept session, a will, a subscription and a retained status. It
connects and drains by the agent's own rules (link.broker.Pauses, link.pace.Pace). With --unpaced it connects at once
and sends all that waits at once. One more session hears all events and counts them. `nodes` are three of nats-server,
of which one is killed: its sessions go to the two others, as the agent's link goes from one address to the next.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from edge_agent.link.broker import CONNACK_S, Pauses
from edge_agent.link.pace import MOST, Pace
from tests.broker import Mosquitto
from tests.cluster import raw
from tests.cluster.nodes import Process, nats_alone, nats_together, rabbitmq
from tests.faults.storm import PERSISTENT

AWAY_S = 3.0
"""seconds that the broker is away"""
RAMP = 500
"""first connects a second"""
LIMIT_S = 600.0
"""seconds after which a run is given up"""
KEEPALIVE_S = 60
SIZE = 300
"""bytes of an event"""


class Storm:
    """What all sessions share."""

    def __init__(self, ports: list[int], events: int, paced: bool) -> None:
        self.ports, self.events, self.paced = ports, events, paced
        self.count = Counter[str]()
        """closed: connections that the broker ended after it had let them in; refused: connects that came to nothing"""
        self.heard = set[bytes]()
        self.twice = 0
        self.measuring = False
        self.up = asyncio.Event()


class Session:
    """A device."""

    def __init__(self, storm: Storm, number: int) -> None:
        self.storm, self.number = storm, number
        self.base = f"edge/v1/d{number:05}"
        self.waiting: list[int] = []
        self.flying: dict[int, int] = {}
        self.pace, self.pauses = Pace(), Pauses(30.0)
        self.at = number
        """node that it is at, or tries"""
        self.last = 0
        """packet id"""
        self.connected = False
        self._gone = asyncio.Event()
        self._peer: raw.Peer | None = None

    @property
    def port(self) -> int:
        """Of the node that it is at."""
        return self.storm.ports[self.at % len(self.storm.ports)]

    async def run(self) -> None:
        hello = raw.connect(f"edge-agent-d{self.number:05}", (f"{self.base}/status", b"offline"))
        loop = asyncio.get_running_loop()
        while True:
            self._gone.clear()
            try:
                self._peer = peer = raw.Peer(hello, self._came, self._lost)
                made = loop.create_connection(lambda: peer, "127.0.0.1", self.port)  # noqa: B023
                await asyncio.wait_for(made, CONNACK_S)
                await self._served()
            except (OSError, asyncio.TimeoutError):
                self.storm.count["refused"] += self.storm.measuring and self.storm.up.is_set()
            if self._peer is not None:
                self._peer.close()
            if self.storm.measuring and self.connected and self.storm.up.is_set():
                self.storm.count["closed"] += 1
            self.connected, self.at = False, self.at + 1
            self.waiting = sorted([*self.waiting, *self.flying.values()], reverse=True)
            self.flying.clear()
            if not self.storm.paced:
                await self.storm.up.wait()
                await asyncio.sleep(0.05)
            else:
                await asyncio.sleep(self.pauses.next())

    async def _served(self) -> None:
        """Until the connection ends. TimeoutError where the broker does not answer the connect."""
        began = pinged = time.monotonic()
        while not self._gone.is_set():
            if not self.connected and time.monotonic() - began > CONNACK_S:
                raise asyncio.TimeoutError
            try:
                await asyncio.wait_for(
                    self._gone.wait(), 0.5 if self.waiting or not self.connected else KEEPALIVE_S / 2
                )
            except asyncio.TimeoutError:
                self._send()
                if time.monotonic() - pinged > KEEPALIVE_S / 2 and self._peer is not None:
                    self._peer.write(b"\xc0\0")
                    pinged = time.monotonic()

    def _lost(self) -> None:
        self._gone.set()

    def _number(self) -> int:
        self.last = self.last % 60000 + 1
        return self.last

    def _came(self, kind: int, flags: int, body: bytes) -> None:
        assert self._peer is not None or kind == raw.CONNACK
        if kind == raw.CONNACK:
            if body[1]:
                self.storm.count["denied"] += 1
                return
            self.connected = True
            self.pace.begin()
            self.storm.count["connected"] += 1
            asyncio.get_running_loop().call_soon(self._greet)
        elif kind == raw.PUBACK:
            packet = int.from_bytes(body[:2], "big")
            self.pace.answered(packet)
            if self.flying.pop(packet, None) is not None:
                self.pauses.restart()
                self.storm.count["acknowledged"] += 1
            self._send()

    def _greet(self) -> None:
        if self._peer is not None:
            said = raw.publish(f"{self.base}/status", b"online", self._number(), retain=True)
            self._peer.write(raw.subscribe(f"{self.base}/cmd/+", self._number()) + said)
            self._send()

    def _send(self) -> None:
        if self._peer is None or not self.connected:
            return
        room = min(self.pace.room(), MOST - len(self.flying)) if self.storm.paced else len(self.waiting)
        out = []
        for _ in range(min(room, len(self.waiting))):
            event, packet = self.waiting.pop(), self._number()
            self.flying[packet] = event
            self.pace.sent(packet)
            payload = self.number.to_bytes(4, "big") + event.to_bytes(4, "big")
            out.append(raw.publish(f"{self.base}/door/events", payload.ljust(SIZE, b"x"), packet))
        if out:
            self._peer.write(b"".join(out))


async def count_all(storm: Storm) -> None:
    """The consumer: hears and acknowledges each event, in a session that is kept."""
    peer: raw.Peer | None = None
    gone = asyncio.Event()

    def came(kind: int, flags: int, body: bytes) -> None:
        assert peer is not None
        if kind == raw.CONNACK and body[1]:
            gone.set()
        elif kind == raw.CONNACK:
            peer.write(raw.subscribe("edge/v1/+/+/events", 1))
        elif kind == raw.SUBACK:
            storm.count["consumer"] += 1
        elif kind == raw.PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            name = body[end + 2 : end + 10] if flags & 6 else body[end : end + 8]
            storm.twice += name in storm.heard
            storm.heard.add(name)
            if flags & 6:
                peer.write(raw.puback(int.from_bytes(body[end : end + 2], "big")))

    while True:
        gone.clear()
        try:
            peer = raw.Peer(raw.connect("consumer", None), came, gone.set)
            await asyncio.get_running_loop().create_connection(lambda: peer, "127.0.0.1", storm.ports[-1])  # noqa: B023
            while not gone.is_set():
                try:
                    await asyncio.wait_for(gone.wait(), 20)
                except asyncio.TimeoutError:
                    peer.write(b"\xc0\0")
            peer.close()
            storm.count["consumer lost"] += storm.measuring and storm.up.is_set()
        except OSError:
            pass
        await asyncio.sleep(0.3)


async def run(
    broker: Process | Mosquitto, sessions: int, events: int, paced: bool, others: Sequence[Process] = ()
) -> dict[str, float]:
    """The account of one storm. `others`: nodes that stay; then the one that is killed does not come back."""
    storm = Storm([broker.port, *(other.port for other in others)], events, paced)
    storm.up.set()
    fleet = [Session(storm, number) for number in range(sessions)]
    tasks = [asyncio.create_task(count_all(storm))]
    await _until(lambda: storm.count["consumer"], storm, fleet)
    began = time.monotonic()
    for at, session in enumerate(fleet):
        tasks.append(asyncio.create_task(session.run()))
        if at % (RAMP // 50) == 0:
            await asyncio.sleep(0.02)
    await _until(lambda: sum(session.connected for session in fleet) == sessions, storm, fleet)
    told: dict[str, float] = {"sessions": sessions, "events": events * sessions}
    told["first connects, s"] = time.monotonic() - began
    await asyncio.sleep(2)
    storm.count.clear()
    storm.up.clear()
    broker.stop(kill=True)
    storm.measuring = True
    await asyncio.sleep(AWAY_S)
    for session in fleet:
        session.waiting = list(range(events, 0, -1))
    if not others:
        await asyncio.get_running_loop().run_in_executor(None, broker.start)
    storm.up.set()
    began = time.monotonic()
    whole = events * sessions
    await _until(lambda: sum(session.connected for session in fleet) == sessions, storm, fleet)
    told["all back, s"] = time.monotonic() - began
    await _until(lambda: not any(session.waiting or session.flying for session in fleet), storm, fleet)
    told["drained, s"] = time.monotonic() - began
    await _until(lambda: len(storm.heard) >= whole, storm, fleet, 60)
    told["heard, s"] = time.monotonic() - began
    told |= {"lost": whole - len(storm.heard), "heard twice": storm.twice, "closed": storm.count["closed"]}
    told |= {"refused": storm.count["refused"], "consumer lost": storm.count["consumer lost"]}
    left: Sequence[Process | Mosquitto] = others or [broker]
    told["broker MB"] = max(map(_memory, left))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return told


async def _until(true: object, storm: Storm, fleet: list[Session], limit: float = LIMIT_S) -> None:
    deadline, said = time.monotonic() + limit, time.monotonic()
    while not true() and time.monotonic() < deadline:  # type: ignore[operator]
        await asyncio.sleep(0.1)
        if time.monotonic() - said > 10:
            said = time.monotonic()
            here = sum(session.connected for session in fleet)
            print(f"  {here} connected, {len(storm.heard)} heard, {dict(storm.count)}", flush=True)


def _memory(broker: Process | Mosquitto) -> float:
    """Megabytes of the broker and of what it has started."""
    assert broker.process is not None
    whole, ours = 0, {broker.process.pid}
    for stat in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[1]) in ours or int(stat.parent.name) in ours:
                ours.add(int(stat.parent.name))
                whole += int(words[21]) * resource.getpagesize()
    return round(whole / 1e6)


def main() -> None:
    """Print the account as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", choices=["nats", "nodes", "mosquitto", "rabbitmq"])
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--unpaced", action="store_true")
    asked = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker: Process | Mosquitto
        others: list[Process] = []
        if asked.broker == "nats":
            broker = stack.enter_context(nats_alone(folder))
        elif asked.broker == "nodes":
            broker, *others = stack.enter_context(nats_together(folder))
        elif asked.broker == "rabbitmq":
            broker = stack.enter_context(rabbitmq(folder))
        else:
            broker = Mosquitto(folder, config=PERSISTENT.format(folder))
            stack.callback(broker.stop, kill=True)
        random.seed(1)
        told = asyncio.run(run(broker, asked.sessions, asked.events, not asked.unpaced, others))
        print(json.dumps({"broker": asked.broker, "paced": not asked.unpaced, **told}))


if __name__ == "__main__":
    main()
