"""``python -m tests.consumer.storm --kills 200``: workers and the database are killed while events come.

Each event goes into the stream once or twice. At the end the table has each exactly once. A kill is a SIGKILL, of
one of the workers or of the whole database, at a moment that is drawn.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.consumer.postgres import Server, server
from tests.consumer.stream import Stream, stream

AT = "2026-03-01T12:00:00Z"


def event(device: int, seq: int) -> bytes:
    told = {
        "device": f"d{device}",
        "epoch": 1,
        "seq": seq,
        "pipeline": "p",
        "kind": "text",
        "at": AT,
        "text": "x" * 200,
    }
    return json.dumps(told).encode()


def worker(number: int, feed: str, sink: str, batch: int) -> subprocess.Popen[bytes]:
    told = ["--from", feed, "--to", sink, "--batch", str(batch), "--name", str(number)]
    return subprocess.Popen(
        [sys.executable, "-m", "edge_agent", "archive", *told], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def storm(source: Stream, database: Server, kills: int, workers: int, events: int, seed: int = 0) -> dict[str, Any]:
    """Put `events` in, kill so often, wait until all is there; what came of it."""
    dice = random.Random(seed)
    numbers = [(n % 20, n // 20 + 1) for n in range(events)]
    team = [worker(n, source.url, database.url, 100) for n in range(workers)]
    done, of_database, at, twice = 0, 0, 0, 0
    try:
        while done < kills or at < events:
            some = numbers[at : at + max(20, events // max(1, kills))]
            at += len(some)
            again = [one for one in some if dice.random() < 0.2]
            twice += len(again)
            source.publish(event(*one) for one in [*some, *again])
            if done < kills:
                time.sleep(dice.uniform(0.0, 0.4))
                done += 1
                if dice.random() < 0.3:
                    of_database += 1
                    database.kill()
                    database.start()
                else:
                    victim = dice.randrange(workers)
                    team[victim].kill()
                    team[victim].wait()
                    team[victim] = worker(victim, source.url, database.url, 100)
        deadline = time.monotonic() + 300
        while count(database) < events and time.monotonic() < deadline:
            time.sleep(0.2)
        time.sleep(2)  # what comes again is to come while we look
    finally:
        for one in team:
            one.kill()
            one.wait()
    ((rows, keys),) = database.ask("SELECT count(*), count(DISTINCT (device, epoch, seq)) FROM event")
    told = {"events": events, "sent twice": twice, "kills": done, "of the database": of_database}
    return {**told, "lost": events - keys, "twice": rows - keys, "arrivals": count(database)}


def count(database: Server) -> int:
    try:
        return int(database.ask("SELECT count(*) FROM arrival")[0][0])
    except Exception:
        return -1  # it is not there yet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--events", type=int, default=20_000)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, server() as database, stream(Path(folder)) as source:
        told = storm(source, database, args.kills, args.workers, args.events)
    print(json.dumps({**told, "seconds": round(time.monotonic() - began)}))
    return int(bool(told["lost"] or told["twice"]))


if __name__ == "__main__":
    sys.exit(main())
