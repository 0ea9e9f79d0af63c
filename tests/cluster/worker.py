"""A worker as they come behind the stream: takes what is in EVENTS by a durable consumer, prints and acknowledges it.

python worker.py WHOLE URL,URL --ca PEM --cert PEM --key PEM: ends once WHOLE different events came, or none for 30 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl

import nats
from nats.errors import TimeoutError as NothingCame


async def run() -> None:
    parser = argparse.ArgumentParser()
    for name in ("whole", "url", "--ca", "--cert", "--key"):
        parser.add_argument(name)
    asked = parser.parse_args()
    tls = ssl.create_default_context(cafile=asked.ca)
    tls.load_cert_chain(asked.cert, asked.key)
    server = await nats.connect(asked.url.split(","), tls=tls)
    taken = await server.jetstream(timeout=20).pull_subscribe("", durable="audit", stream="EVENTS")
    seen: set[str] = set()
    quiet = 0
    while len(seen) < int(asked.whole) and quiet < 10:
        try:
            for message in await taken.fetch(500, timeout=3):
                print(message.data.decode())
                seen.add(json.loads(message.data)["id"])
                await message.ack()
            quiet = 0
        except NothingCame:
            quiet += 1
    await server.close()


asyncio.run(run())
