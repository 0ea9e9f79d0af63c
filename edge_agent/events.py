"""Events: what leaves the device, as types. Their JSON is described by deploy/event.schema.json.

That file is made from here: ``python -m edge_agent.events > deploy/event.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Annotated, Literal, NamedTuple, TypeAlias

import msgspec

from edge_agent.types import ModelRef

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""what decoding JSON from anybody raises: the last two for bytes that are not UTF-8, and for nesting without end"""


KNOWN_TIME = 1_735_689_600.0
"""2025-01-01, seconds since 1970: a clock that is before it has not been set yet"""


def rfc3339(at: float) -> str:
    """Seconds since 1970 as 2026-01-31T12:00:00.123Z."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Detection(msgspec.Struct, frozen=True):
    """One box of an event."""

    label: str
    class_id: int
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    box: Annotated[
        tuple[float, float, float, float],
        msgspec.Meta(description="left, top, right, bottom in pixels of the frame"),
    ]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What leaves the device. Its JSON is version 1 of the schema in deploy/event.schema.json."""

    v: Literal[1] = 1
    id: Annotated[str, msgspec.Meta(description="DEVICE/EPOCH/SEQ; a duplicate carries the same one")] = ""
    epoch: Annotated[int, msgspec.Meta(ge=0, description="grows only when the store began anew")] = 0
    seq: Annotated[int, msgspec.Meta(ge=0, description="1, 2, 3, ... within an epoch, never repeated")] = 0
    device: str = ""
    pipeline: str
    at: Annotated[str, msgspec.Meta(description="capture of the sample, RFC 3339 UTC")]
    age_ms: Annotated[
        float | None, msgspec.Meta(description="age of the sample when the result was ready; null for a gap")
    ] = None
    repeats: Annotated[
        int, msgspec.Meta(ge=1, description="results in a row that said the same; this is the last of them")
    ] = 1
    model: ModelRef | None = None
    spent_ms: Annotated[dict[str, float], msgspec.Meta(description="stage -> milliseconds")] = {}


class DetectionsEvent(Event, frozen=True, kw_only=True, tag="detections"):
    """What a detector saw in one frame."""

    width: Annotated[int, msgspec.Meta(description="of the frame, pixels")]
    height: int
    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    detections: list[Detection]


class TextEvent(Event, frozen=True, kw_only=True, tag="text"):
    """A line of text as it was read, with its vector where the pipeline embeds."""

    text: str
    embedding: list[float] | None = None


class ScoresEvent(Event, frozen=True, kw_only=True, tag="scores"):
    """The label of one line of text, or of one frame."""

    text: Annotated[str, msgspec.Meta(description="empty for a frame")] = ""
    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    label: Annotated[str, msgspec.Meta(description='"unknown" for what fits no label')]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    scores: dict[str, float]


class Span(msgspec.Struct, frozen=True):
    """One marked piece of an event's text."""

    label: str
    text: str
    start: Annotated[int, msgspec.Meta(ge=0, description="characters from the beginning of the text")]
    end: Annotated[int, msgspec.Meta(ge=0, description="exclusive")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]


class SpansEvent(Event, frozen=True, kw_only=True, tag="spans"):
    """What is named in one line of text."""

    text: str
    spans: list[Span]


class AnomalyEvent(Event, frozen=True, kw_only=True, tag="anomaly"):
    """How badly an autoencoder rebuilt one sample."""

    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    error: Annotated[float, msgspec.Meta(ge=0, description="mean squared error of the reconstruction")]
    limit: Annotated[float | None, msgspec.Meta(description="error above which a sample is unusual")] = None
    unusual: Annotated[bool | None, msgspec.Meta(description="null where there is no limit")] = None


class GapEvent(Event, frozen=True, kw_only=True, tag="gap"):
    """Numbers that will never come: `count` of those from `first` to `last`, and why."""

    first: int
    last: int
    count: int
    why: str


AnyEvent: TypeAlias = DetectionsEvent | TextEvent | ScoresEvent | SpansEvent | AnomalyEvent | GapEvent


def kind_of(event: Event | type[Event]) -> str:
    """detections, text, scores, ...: what its JSON says."""
    return str(event.__struct_config__.tag)


class Encoding(NamedTuple):
    """How an event becomes bytes, in the store and on its way, and again an event."""

    encode: Callable[[Event], bytes]
    decode: Callable[[bytes], Event]
    """raises one of UNREADABLE"""


JSON = Encoding(msgspec.json.encode, lambda payload: msgspec.json.decode(payload, type=AnyEvent))


TITLE = "edge-agent event, version 1"


def schema_text() -> str:
    """The schema (2020-12) as the file has it."""
    schema = msgspec.json.schema(AnyEvent)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE, **schema}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    print(schema_text(), end="")
