"""The made set: 10,000 events of 30 days, 200 of which are asked for."""

from __future__ import annotations

import lzma
import random
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.events import AnyEvent, Event, rfc3339

NOW = datetime(2026, 3, 18, 20, 0, tzinfo=timezone.utc)
COUNT, DAYS = 10_000, 30
QUESTIONS = Path(__file__).with_name("questions.tsv")
THINGS = {"person": 60, "car": 20, "dog": 8, "cat": 6, "bicycle": 6}
"""label -> how often of a hundred"""
PLACES = {
    "porch": ("porch", "steps"),
    "yard": ("lawn", "shed", "bins"),
    "gate": ("drive",),
    "street": ("road", "pavement"),
}
"""pipeline -> its zones"""
RULES = ("night light", "parcel there", "dog alone", "too many people")
LOGS = (
    *("service restarted", "user {} logged in", "job {} finished", "link up on port {}", "link down on port {}"),
    *(
        "sensor {} calibrated",
        "configuration saved",
        "packet loss {} percent",
        "door controller polled",
        "queue {} flushed",
    ),
)


class Question(NamedTuple):
    """What is asked, and what should be found."""

    text: str
    id: str
    """of the event"""
    shares: bool
    """whether it has words of it"""


def questions() -> tuple[list[Question], list[Event]]:
    """The questions, and the events that they ask for."""
    rows = [line.split("\t") for line in QUESTIONS.read_text().splitlines() if not line.startswith("#")]
    asked, events = [], []
    for number, (at, pipeline, kind, says, question) in enumerate(rows, 1):
        when = datetime.fromisoformat(at).replace(tzinfo=timezone.utc).timestamp()
        events.append(_event(number, when, pipeline, kind, says))
        asked.append(Question(question, events[-1].id, number > len(rows) // 2))
    return asked, events


def others(data: Path, count: int) -> Iterator[Event]:
    """Events beside those: things that come and go, states, numbers, what was said and logged."""
    rng = random.Random(7)
    text = lzma.decompress((data / "train" / "text" / "commands.txt.xz").read_bytes()).decode()
    said = sorted({line.strip().lower() for line in text.splitlines() if 3 <= len(line.split()) <= 14})
    rng.shuffle(said)
    for number in range(1001, 1001 + count):
        when = NOW.timestamp() - rng.random() * DAYS * 86_400
        kind = rng.choices(("object", "heard", "log", "state", "anomaly", "rule"), (50, 36, 5, 5, 3, 1))[0]
        if kind == "object":
            pipeline = rng.choice(list(PLACES))
            label = rng.choices(list(THINGS), list(THINGS.values()))[0]
            yield _event(number, when, pipeline, kind, f"{label}@{rng.choice(PLACES[pipeline])}", rng)
        elif kind == "heard":
            yield _event(number, when, rng.choice(("kitchen", "office", "bedroom")), kind, said.pop())
        elif kind == "log":
            yield _event(number, when, "logs", "text", rng.choice(LOGS).format(rng.randrange(40)))
        elif kind == "rule":
            yield _event(number, when, "yard", kind, rng.choice(RULES))
        else:
            says = rng.choice(("open", "shut")) if kind == "state" else "usual"
            yield _event(number, when, "entrance" if kind == "state" else "pump", kind, says)


def _event(number: int, at: float, pipeline: str, kind: str, says: str, rng: random.Random | None = None) -> Event:
    label, _, zone = says.partition("@")
    bodies: dict[str, dict[str, Any]] = {
        "heard": {"kind": "text", "text": says, "heard": {"engine": "whisper", "score": 0.9, "seconds": 2.0}},
        "read": {"kind": "text", "text": says, "read": {"engine": "ocr", "score": 0.9, "box": [0, 0, 1, 1]}},
        "text": {"kind": "text", "text": says},
        "said": {"kind": "opinion", "about": "edge/1/1", "by": "model", "verdict": "", "answer": says},
        "object": {
            "kind": "object",
            "object": f"{number:x}-1",
            "label": label,
            "class_id": 0,
            "score": 0.8,
            "box": [0, 0, 9, 9],
            "width": 640,
            "height": 480,
            "since": rfc3339(at),
            "seconds": 1.0,
            **_life(zone, rng),
        },
        "state": {"kind": "scores", "label": says, "score": 0.9, "scores": {says: 0.9}},
        "anomaly": {"kind": "anomaly", "error": 1.0, "limit": 2.0, "unusual": says == "unusual"},
        "rule": {"kind": "rule", "rule": says, "phase": "on", "since": rfc3339(at)},
    }
    head = {"id": f"edge/1/{number}", "epoch": 1, "seq": number, "device": "edge", "pipeline": pipeline}
    made: Event = msgspec.convert({**head, "at": rfc3339(at), **bodies[kind]}, type=AnyEvent)
    return made


def _life(zone: str, rng: random.Random | None) -> dict[str, Any]:
    """What becomes of a thing: it comes, or what else may."""
    phase = rng.choices(("new", "update", "end"), (3, 2, 3))[0] if rng else "new"
    if phase == "new":
        return {"phase": phase, "zones": [zone], "entered": [zone]}
    return {"phase": phase, "left": [zone]} if phase == "end" else {"phase": phase, "zones": [zone], "loiters": [zone]}
