#!/usr/bin/env python3
"""Who may say and hear what, for nats-server: users.py DEVICE... > users.conf (or the names on stdin, a line each).

NATS has no pattern for all devices, so each device has its rules, by the common name of its certificate: its device.id
with _ for dots. Beside them stand the users consumer, rollout, worker and admin.
"""

import re
import sys

SAYS = [
    "status", "health", "profile", "rules", "reported", "reply.*",
    "*.events", "*.state", "*.counts", "*.last", "*.snapshot", "jobs.*.update", "jobs.$next.get",
]  # fmt: skip
"""behind edge.v1.DEVICE. ; a snapshot is a picture"""
HEARS = [
    "ack", "cmd.*", "desired", "jobs.notify-next", "jobs.$next.get.accepted",
    "jobs.*.update.accepted", "jobs.*.update.rejected",
]  # fmt: skip
MQTT = ["$MQTT.sub.>", "$MQTT.deliver.>"]
"""of the server's own, for each client of MQTT"""
OTHERS = {
    # `edge-agent listen --ack`, and everything that commands
    "consumer": (["edge.v1.*.ack", "edge.v1.*.cmd.*"], ["edge.v1", "edge.v1.>", *MQTT]),
    # `edge-agent rollout`
    "rollout": (
        ["edge.v1.*.desired", "edge.v1._groups.*.desired", "edge.v1.*.jobs.>"],
        ["edge.v1", "edge.v1.>", *MQTT],
    ),
    # writes events into a database: takes from the stream, and tells devices that it has them
    "worker": (
        [
            "edge.v1.*.ack",
            "$JS.API.INFO",
            "$JS.API.STREAM.INFO.EVENTS",
            "$JS.API.CONSUMER.*.EVENTS.>",
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.>",
            "$JS.ACK.EVENTS.>",
        ],
        ["_INBOX.>"],
    ),
    # makes the stream: streams.py
    "admin": (["$JS.API.>", "$JS.ACK.>"], ["_INBOX.>"]),
}


def user(name: str, says: list[str], hears: list[str]) -> str:
    """One entry of the list."""
    allowed = [
        f"{what}: {{ allow: [{', '.join(map(quoted, which))}] }}"
        for what, which in (("publish", says), ("subscribe", hears))
    ]
    return f"{{ user: {quoted(f'CN={name}')}, permissions: {{ {', '.join(allowed)} }} }}"


def quoted(text: str) -> str:
    """In NATS' words."""
    return f'"{text}"'


def device(name: str) -> str:
    """The rules of a device."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name) or name in OTHERS:
        sys.exit(
            f"{name!r}: no device's name here: letters, digits, _ and - (for a dot _), none of {', '.join(OTHERS)}"
        )
    says = [f"edge.v1.{name}.{tail}" for tail in SAYS] + [f"homeassistant.device.{name}.config"]
    hears = [f"edge.v1.{name}.{tail}" for tail in HEARS] + ["edge.v1._groups.*.desired", "homeassistant.status"]
    return user(name, says, hears + MQTT)


def main() -> None:
    """Print users.conf."""
    names = sys.argv[1:] or sys.stdin.read().split()
    lines = [device(name) for name in dict.fromkeys(names)] + [user(name, *rights) for name, rights in OTHERS.items()]
    print("accounts {\n  EDGE: {\n    jetstream: enabled\n    users: [")
    print("\n".join(f"      {line}" for line in lines))
    print("    ]\n  }\n}")


if __name__ == "__main__":
    main()
