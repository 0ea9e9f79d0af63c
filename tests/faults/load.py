"""Load on one store, each measured in a process of its own that prints a line of JSON.

`python -m tests.faults.load fill STORE N` puts N events of telemetry; `drain STORE PORT` opens that store and sends it;
`trickle KIND STORE PORT SECONDS` sends 10 events a second, online (KIND: alert, telemetry, paho, sqlite).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from edge_agent.config import Mqtt
from edge_agent.device.health import rss_bytes
from edge_agent.events import TextEvent
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.faults.rivals import SqliteOutbox, client

QUOTA = 2_000_000_000
PAYLOAD = 300


def event(number: int) -> TextEvent:
    """An event whose JSON has about PAYLOAD bytes."""
    return TextEvent(pipeline="p", at="2026-01-01T00:00:00Z", text=f"{number} ".ljust(PAYLOAD - 160, "t"))


def fill(store: Path, count: int) -> dict[str, float]:
    box = Outbox(store, "d", max_bytes=QUOTA)
    began = time.monotonic()
    for number in range(count):
        box.put(event(number), "telemetry")
    box.close()
    return {"events": box.last, "bytes": box.size, "seconds": time.monotonic() - began}


def drain(store: Path, port: int) -> dict[str, float]:
    """Open, connect and send everything; memory beyond what an empty process with the same imports has."""
    before = rss_bytes()
    began = time.monotonic()
    box = Outbox(store, "d", max_bytes=QUOTA)
    opened = time.monotonic()
    link = Link(Mqtt(url=f"mqtt://127.0.0.1:{port}"), "d", box)
    link.start()
    while not link.delivery.sent:
        time.sleep(0.001)
    first = time.monotonic()
    while not box.empty:
        time.sleep(0.01)
    ended = time.monotonic()
    link.stop()
    box.close()
    return {
        "opened_s": opened - began,
        "first_s": first - began,
        "seconds": ended - first,
        "sent": link.delivery.sent,
        "memory": rss_bytes(peak=True) - before,
        "left": box.size,
    }


def written() -> int:
    """Bytes that this process had written to a device, so far."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"]) - int(lines["cancelled_write_bytes"])


def trickle(kind: str, store: Path, port: int, seconds: float) -> dict[str, float]:
    """Bytes written to the device for each event at 10 events a second."""
    store.mkdir()
    count = int(seconds * 10)
    box = Outbox(store / "outbox", "d") if kind in ("alert", "telemetry") else None
    link = Link(Mqtt(url=f"mqtt://127.0.0.1:{port}"), kind, box) if box else None
    paho = None if link else client(port, f"trickle-{kind}")
    sql = SqliteOutbox(store / "outbox.db") if kind == "sqlite" else None
    if link:
        link.start()
    time.sleep(1)
    before, began = written(), time.monotonic()
    for number in range(count):
        if box:
            box.put(event(number), kind)
        elif paho:
            payload = b"t" * PAYLOAD
            seq = sql.put(payload) if sql else 0
            paho.publish("p", payload, qos=1).wait_for_publish(5)
            if sql:
                sql.done(seq)
        time.sleep(max(0.0, began + (number + 1) / 10 - time.monotonic()))
    time.sleep(1)
    return {"bytes": (written() - before) / count, "events": count}


if __name__ == "__main__":
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "fill":
        told = fill(Path(arguments[0]), int(arguments[1]))
    elif what == "drain":
        told = drain(Path(arguments[0]), int(arguments[1]))
    else:
        told = trickle(arguments[0], Path(arguments[1]), int(arguments[2]), float(arguments[3]))
    print(json.dumps(told))
