"""Events for the tests of the archive."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.events import AnyEvent, Event, rfc3339

DAY = 86_400.0
START = 1_767_225_600.0
"""2026-01-01, seconds since 1970"""


def event(number: int, kind: str = "text", at: float | None = None, pipeline: str = "door", **fields: Any) -> Event:
    """An event of any kind, with what that kind cannot do without."""
    needs: dict[str, dict[str, Any]] = {
        "text": {"text": "hello"},
        "object": {
            "phase": "new",
            "object": f"{number:x}-1",
            "label": "person",
            "class_id": 0,
            "score": 0.8,
            "box": [0, 0, 9, 9],
            "width": 640,
            "height": 480,
            "since": rfc3339(START),
            "seconds": 1.0,
        },
        "scores": {"label": "open", "score": 0.9, "scores": {"open": 0.9}},
        "detections": {"width": 640, "height": 480, "detections": []},
        "anomaly": {"error": 1.0},
    }
    body = {
        "kind": kind,
        "id": f"edge/1/{number}",
        "epoch": 1,
        "seq": number,
        "device": "edge",
        "pipeline": pipeline,
        "at": rfc3339(START + number if at is None else at),
        **needs[kind],
        **fields,
    }
    made: Event = msgspec.json.decode(msgspec.json.encode(body), type=AnyEvent)
    return made
