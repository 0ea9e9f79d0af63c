"""What others would do, to compare with: a publisher on paho's own queue, and an outbox on SQLite.

`python -m tests.faults.rivals FILE PORT` follows a file from its end and publishes each line as paho alone does it.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

import msgspec
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion


def client(port: int, name: str) -> Client:
    """As careful as paho's documentation: QoS 1, a persistent session, no bound on the queue, fast reconnects."""
    made = Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    made.max_queued_messages_set(0)
    made.reconnect_delay_set(0.5, 5)  # type: ignore[arg-type]
    made.connect_async("127.0.0.1", port)
    made.loop_start()
    return made


def follow(path: Path, port: int) -> None:
    """Publish what is appended to a file from now on, until killed."""
    made = client(port, "paho")
    epoch, seq = time.time_ns(), 0
    with path.open() as file:
        file.seek(0, 2)
        kept = ""
        while True:
            kept += file.readline()
            if not kept.endswith("\n"):
                time.sleep(0.01)
                continue
            seq += 1
            event = {"device": "paho", "epoch": epoch, "seq": seq, "id": "", "kind": "text", "text": kept.strip()}
            made.publish("edge/v1/paho/words/events", msgspec.json.encode(event), qos=1)
            kept = ""


class SqliteOutbox:
    """WAL, synchronous=FULL, a commit for each event and for each acknowledgement."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, payload BLOB)")

    def put(self, payload: bytes) -> int:
        return int(self._db.execute("INSERT INTO outbox (payload) VALUES (?)", (payload,)).lastrowid or 0)

    def done(self, seq: int) -> None:
        self._db.execute("DELETE FROM outbox WHERE seq = ?", (seq,))


if __name__ == "__main__":
    follow(Path(sys.argv[1]), int(sys.argv[2]))
