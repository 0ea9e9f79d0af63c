"""What a broker does with what the agent relies on: python -m tests.cluster.compare nats|mosquitto|rabbitmq

By raw MQTT 3.1.1. Each row is one question to a real broker, which is killed with SIGKILL in some of them;
docs/cloud.md holds the answers.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.broker import Mosquitto
from tests.cluster import raw
from tests.cluster.nodes import Process, nats_alone, rabbitmq
from tests.faults.storm import PERSISTENT

COUNT = 200
"""messages of a question about order or sessions"""


class Client:
    """A connection that keeps what it hears."""

    def __init__(self, port: int, name: str, clean: bool = False, will: tuple[str, bytes] | None = None) -> None:
        self.port, self.acks, self.number = port, True, 0
        self.heard: list[tuple[str, bytes, bool]] = []
        self.answered: dict[int, list[int]] = {}
        """kind of packet -> ids, or the return code of the CONNACK"""
        self.peer = raw.Peer(raw.connect(name, will, clean), self._came, lambda: None)

    async def __aenter__(self) -> Client:
        await asyncio.get_running_loop().create_connection(lambda: self.peer, "127.0.0.1", self.port)
        await self.until(lambda: raw.CONNACK in self.answered)
        assert self.answered[raw.CONNACK] == [0]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.peer.write(b"\xe0\0")
        await asyncio.sleep(0.2)
        self.peer.close()

    def _came(self, kind: int, flags: int, body: bytes) -> None:
        if kind == raw.CONNACK:
            self.answered[kind] = [body[1]]
        elif kind == raw.PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            packet = body[end : end + 2] if flags & 6 else b""
            self.heard.append((body[2:end].decode(), body[end + len(packet) :], bool(flags & 1)))
            if packet and self.acks:
                self.peer.write(raw.puback(int.from_bytes(packet, "big")))
        else:
            self.answered.setdefault(kind, []).append(int.from_bytes(body[:2], "big"))

    async def until(self, true: Callable[[], object], seconds: float = 10.0) -> bool:
        for _ in range(int(seconds * 50)):
            if true():
                return True
            await asyncio.sleep(0.02)
        return False

    async def hear(self, topic: str) -> None:
        before = len(self.answered.get(raw.SUBACK, []))
        self.number += 1
        self.peer.write(raw.subscribe(topic, self.number))
        assert await self.until(lambda: len(self.answered.get(raw.SUBACK, [])) > before)

    async def say(self, topic: str, payloads: list[bytes], retain: bool = False) -> None:
        """Publish them, and see them acknowledged."""
        sent = []
        for payload in payloads:
            self.number += 1
            sent.append(self.number)
            self.peer.write(raw.publish(topic, payload, self.number, retain))
        assert await self.until(lambda: set(sent) <= set(self.answered.get(raw.PUBACK, [])))

    def numbers(self) -> list[int]:
        return [int(payload) for _, payload, _ in self.heard]


Node = Process | Mosquitto
SOME = [str(n).encode() for n in range(COUNT)]


async def retained(node: Node) -> str:
    """Comes what is retained for a filter with a wildcard, and after a kill?"""
    async with Client(node.port, "", True) as one:
        for name in ("a", "b", "c"):
            await one.say(f"edge/v1/{name}/status", [b"online"], True)
    found = []
    for kill in (False, True):
        if kill:
            await asyncio.sleep(2)
            await again(node)
        async with Client(node.port, "", True) as one:
            await one.hear("edge/v1/+/status")
            await one.until(lambda: len(one.heard) == 3, 3)
            found.append(len(one.heard))
    return f"{found[0]} of 3, and {found[1]} after a kill"


async def session(node: Node) -> str:
    """Is what a session missed there after the node was killed?"""
    async with Client(node.port, "kept") as one:
        await one.hear("q/s")
    async with Client(node.port, "", True) as other:
        await other.say("q/s", SOME)
    await again(node)
    async with Client(node.port, "kept") as one:
        await one.until(lambda: len(one.heard) >= COUNT)
        came = len(set(one.numbers()))
        return f"{came} of {COUNT} acknowledged messages, {len(one.heard) - came} twice"


async def will(node: Node) -> str:
    """Does a will come when a connection breaks, and when the node dies?"""
    said = []
    for kill in (False, True):
        gone = Client(node.port, f"gone{kill}", will=(f"w/{kill}", b"offline"))
        await gone.__aenter__()
        if kill:
            await again(node)
        async with Client(node.port, "", True) as one:
            await one.hear("w/#")
            gone.peer.close()
            await one.until(lambda: (f"w/{kill}", b"offline") in [h[:2] for h in one.heard], 5)  # noqa: B023
            said.append("comes" if any(h[0] == f"w/{kill}" for h in one.heard) else "does not come")
    return f"{said[0]} when a connection breaks, {said[1]} when the node dies"


async def order(node: Node) -> str:
    """Do messages of QoS 1 come in order, live and once more after a connection that acknowledged nothing?"""
    async with Client(node.port, "order") as one, Client(node.port, "", True) as other:
        await one.hear("o")
        await other.say("o", SOME)
        await one.until(lambda: len(one.heard) >= COUNT)
        live = one.numbers() == list(range(COUNT))
        one.acks, one.heard = False, []
        await other.say("o", SOME)
        await asyncio.sleep(1)
        one.peer.close()
        await asyncio.sleep(1)
        first = len(one.heard)
    began = time.monotonic()
    async with Client(node.port, "order") as one:
        await one.until(lambda: len(one.heard) >= COUNT, 90)
        took, same = time.monotonic() - began, one.numbers() == list(range(COUNT))
    again_ = f"{len(one.heard)} {'in order' if same else 'NOT in order'} after {took:.0f} s"
    return f"live {'in order' if live else 'NOT in order'}, {first} on their way at once; given again: {again_}"


async def five(node: Node) -> str:
    """Does it speak MQTT 5?"""
    body = raw.text("MQTT") + bytes([5, 2, 0, 60, 0]) + raw.text("five")
    answers: list[bytes] = []
    peer = raw.Peer(raw.packet(0x10, body), lambda kind, flags, told: answers.append(told), lambda: answers.append(b""))
    await asyncio.get_running_loop().create_connection(lambda: peer, "127.0.0.1", node.port)
    for _ in range(100):
        if answers:
            break
        await asyncio.sleep(0.05)
    peer.close()
    return "yes" if answers and answers[0][1:2] == b"\0" else "no"


async def again(node: Node) -> None:
    """Kill it and start it anew."""
    node.stop(kill=True)
    await asyncio.get_running_loop().run_in_executor(None, node.start)
    await asyncio.sleep(1)


def main() -> None:
    """Print a row for each question."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, which = Path(name), sys.argv[1]
        node: Node
        if which == "mosquitto":
            node = Mosquitto(folder, config=PERSISTENT.format(folder))
            stack.callback(node.stop, kill=True)
        else:
            node = stack.enter_context({"nats": nats_alone, "rabbitmq": rabbitmq}[which](folder))
        for ask in (five, retained, session, will, order):
            try:
                print(f"{which:10} {ask.__name__:9} {asyncio.run(ask(node))}", flush=True)
            except (AssertionError, OSError) as error:
                print(f"{which:10} {ask.__name__:9} failed: {error!r}", flush=True)


if __name__ == "__main__":
    main()
