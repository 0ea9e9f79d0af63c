"""Events: what leaves the device, as types. Their JSON is described by deploy/event.schema.json.

That file is made from here: ``python -m edge_agent.events > deploy/event.schema.json``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias, get_args

import msgspec

from edge_agent.events.envelope import KNOWN_TIME, UNREADABLE, Box, Event, Pictured, is_captured, rfc3339
from edge_agent.events.objects import CrossingEvent, ObjectEvent
from edge_agent.events.opinion import OpinionEvent
from edge_agent.events.rules import RuleEvent
from edge_agent.events.understood import AnswerEvent, FillEvent, SimilarEvent, SummaryEvent, TopicEvent
from edge_agent.got import CAPTURED, Read, Words

__all__ = [
    "KNOWN_TIME",
    "UNREADABLE",
    "AnswerEvent",
    "Box",
    "CrossingEvent",
    "Event",
    "FillEvent",
    "ObjectEvent",
    "OpinionEvent",
    "Pictured",
    "RuleEvent",
    "SimilarEvent",
    "SummaryEvent",
    "TopicEvent",
    "is_captured",
    "rfc3339",
]


class Detection(msgspec.Struct, frozen=True):
    """One box of an event."""

    label: str
    class_id: int
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    box: Box
    object: Annotated[
        str | int | msgspec.UnsetType,
        msgspec.Meta(description="of a pipeline that tracks: the same while it is the same"),
    ] = msgspec.UNSET


class DetectionsEvent(Pictured, frozen=True, kw_only=True, tag="detections"):
    """What a detector saw in one frame."""

    width: Annotated[int, msgspec.Meta(description="of the frame, pixels")]
    height: int
    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    detections: list[Detection]

    def says(self) -> object:
        """The labels of its boxes."""
        return sorted(box.label for box in self.detections)

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """What is in view, by which model, how old."""
        seen = ", ".join(f"{d['label']} {d['score']:.2f}" for d in body["detections"]) or "nothing any more"
        return f"{seen}   ({body['model']['name']}, {body['age_ms']:.0f} ms old)"


class TextEvent(Event, frozen=True, kw_only=True, tag="text"):
    """A line of text as it was read, with its vector where the pipeline embeds."""

    text: Annotated[Words, msgspec.Meta(description="empty where the pipeline keeps it")]
    embedding: Annotated[list[float] | None, CAPTURED] = None

    def says(self) -> object:
        """The text, and whether it is gone."""
        return self.text, isinstance(self.read, Read) and self.read.gone

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """Its beginning, and what became of it where it was read in a picture."""
        read = body.get("read") or {}
        became = " is gone" if read.get("gone") else f', was "{read["was"][:80]}"' if read.get("was") else ""
        return f'"{body["text"][:80]}"{became}'


class ScoresEvent(Event, frozen=True, kw_only=True, tag="scores"):
    """The label of one line of text, or of one frame."""

    text: Annotated[Words, msgspec.Meta(description="empty for a frame, and where the pipeline keeps it")] = ""
    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    label: Annotated[str, msgspec.Meta(description='"unknown" for what fits no label')]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    scores: dict[str, float]

    def says(self) -> object:
        """The label, of which text."""
        return self.text, self.label

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """The label, of what."""
        of = f'"{body["text"][:60]}"' if body["text"] else body["name"]
        return f"{body['label']} {body['score']:.2f}   {of}"


class Span(msgspec.Struct, frozen=True):
    """One marked piece of an event's text."""

    label: str
    text: Annotated[Words, msgspec.Meta(description="empty where the pipeline keeps it")]
    start: Annotated[int, msgspec.Meta(ge=0, description="characters from the beginning of the text")]
    end: Annotated[int, msgspec.Meta(ge=0, description="exclusive")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]


class SpansEvent(Event, frozen=True, kw_only=True, tag="spans"):
    """What is named in one line of text."""

    text: Annotated[Words, msgspec.Meta(description="empty where the pipeline keeps it")]
    spans: list[Span]

    def says(self) -> object:
        """What is named, in which text."""
        return self.text, self.spans

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """What is named, in what."""
        named = ", ".join(f'{s["label"]} "{s["text"][:30]}"' for s in body["spans"]) or "nothing named"
        return f'{named}   "{body["text"][:60]}"'


class AnomalyEvent(Pictured, frozen=True, kw_only=True, tag="anomaly"):
    """How unlike what is usual one sample is."""

    name: Annotated[str, msgspec.Meta(description="the file the frame came from, if any")] = ""
    error: Annotated[
        float,
        msgspec.Meta(
            ge=0,
            description="the larger, the less usual: mean squared error of a reconstruction; of a series once in how "
            "many points",
        ),
    ]
    limit: Annotated[float | None, msgspec.Meta(description="error above which a sample is unusual")] = None
    unusual: Annotated[bool | None, msgspec.Meta(description="null where there is no limit")] = None
    parts: Annotated[Mapping[str, float], msgspec.Meta(description="what the error is made of, by name")] = (
        msgspec.field(default_factory=dict)
    )
    value: Annotated[float | None, msgspec.Meta(description="of a series, the number itself"), CAPTURED] = None
    where: Annotated[Box | None, msgspec.Meta(description="of a frame, where it is most unusual")] = None

    def says(self) -> object:
        """Whether it is unusual; where nobody said what is, all of it."""
        return self if self.unusual is None else self.unusual

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """The error, or the number of a series, and what that means."""
        verdict = {True: "unusual", False: "usual", None: ""}[body["unusual"]]
        if body.get("value") is not None:
            most = max(body["parts"], key=body["parts"].__getitem__)
            return f"{body['value']:.6g} {verdict}   {most} is so once in {body['error']:.0f} points"
        return f"error {body['error']:.4g}  {verdict}"


class GapEvent(Event, frozen=True, kw_only=True, tag="gap"):
    """Numbers that will never come: `count` of those from `first` to `last`, and why."""

    first: int
    last: int
    count: int
    why: str

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """How many, and why."""
        return f"{body['count']} events lost: {body['why']}"


AnyEvent: TypeAlias = (
    DetectionsEvent
    | TextEvent
    | ScoresEvent
    | SpansEvent
    | FillEvent
    | AnswerEvent
    | SimilarEvent
    | TopicEvent
    | SummaryEvent
    | AnomalyEvent
    | ObjectEvent
    | CrossingEvent
    | RuleEvent
    | OpinionEvent
    | GapEvent
)


def kind_of(event: Event | type[Event]) -> str:
    """detections, text, scores, ...: what its JSON says."""
    return str(event.__struct_config__.tag)


EVENTS: dict[str, type[Event]] = {kind_of(event): event for event in get_args(AnyEvent)}
"""kind -> its type"""


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
