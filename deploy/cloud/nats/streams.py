#!/usr/bin/env python3
"""Make the stream EVENTS, of all events of all devices: streams.py URL [--ca PEM --cert PEM --key PEM].

    pip install nats-py
    streams.py tls://a.example:4222 --ca ca.pem --cert admin.pem --key admin.key

To be run before the first device connects, and again to change what is kept (events.json). A device's PUBACK means
that its event is in the server's own stream $MQTT_msgs, on most of the nodes; a stream that only listens on
edge.v1.*.*.events may miss it while a node dies (489 of 15,900 were, with each of three nodes killed once). So EVENTS
takes from $MQTT_msgs, by a consumer that lets go of each event once EVENTS has it (nats-server 2.14 and later).
"""

import argparse
import asyncio
import json
import ssl
from pathlib import Path

import nats

OWN = {
    "name": "$MQTT_msgs", "subjects": ["$MQTT.msgs.>"], "storage": "file", "retention": "interest", "num_replicas": 3,
}  # fmt: skip
"""as the server makes it for itself when the first client of MQTT comes"""
TAKEN = "$MQTT.msgs.edge.v1.*.*.events"
AT = "edge.source.events"
NANO = 10**9


async def made(server: "nats.NATS", what: str, body: dict[str, object]) -> str:
    """What JetStream answers; "" where it is done. TimeoutError where it does not."""
    answer = await server.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=30)
    return str(json.loads(answer.data).get("error", {}).get("description", ""))


async def make(server: "nats.NATS", kept: dict[str, object], replicas: int = 3) -> list[str]:
    """Make what is not there and change what is; lines of what went wrong. `kept`: as in events.json."""
    ages = {name: round(float(kept[name]) * NANO) for name in ("max_age", "duplicate_window")}  # type: ignore[arg-type]
    consumer = {
        "durable_name": "events", "deliver_subject": AT, "filter_subject": TAKEN, "ack_policy": "flow_control",
        "deliver_policy": "all", "flow_control": True, "idle_heartbeat": 2 * NANO, "max_ack_pending": 2000,
    }  # fmt: skip
    source = {
        "name": OWN["name"],
        "consumer": {"name": "events", "deliver_subject": AT},
        "subject_transforms": [{"src": TAKEN, "dest": "edge.v1.{{wildcard(1)}}.{{wildcard(2)}}.events"}],
    }
    stream = {**kept, **ages, "num_replicas": replicas, "sources": [source]}
    there = await made(server, f"STREAM.INFO.{OWN['name']}", {})
    said = [await made(server, f"STREAM.CREATE.{OWN['name']}", {**OWN, "num_replicas": replicas})] if there else []
    asked = {"stream_name": OWN["name"], "config": consumer}
    said.append(await made(server, f"CONSUMER.DURABLE.CREATE.{OWN['name']}.events", asked))
    verb = "CREATE" if await made(server, "STREAM.INFO.EVENTS", {}) else "UPDATE"
    said.append(await made(server, f"STREAM.{verb}.EVENTS", stream))
    return [line for line in said if line]


async def run() -> int:
    """As the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    for name in ("ca", "cert", "key"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--replicas", type=int, default=3, help="1 where there is one node")
    asked, options = parser.parse_args(), {}
    if asked.ca:
        options["tls"] = ssl.create_default_context(cafile=asked.ca)
        options["tls"].load_cert_chain(asked.cert, asked.key)
    server = await nats.connect(asked.url, **options)
    kept = json.loads((Path(__file__).parent / "events.json").read_text())
    wrong = await make(server, kept, asked.replicas)
    await server.close()
    print("\n".join(wrong) or "EVENTS is there")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(run()))
