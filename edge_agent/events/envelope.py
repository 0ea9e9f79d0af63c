"""What all events have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from edge_agent.got import CAPTURED, Heard, Read
from edge_agent.types import ModelRef

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""what decoding JSON from anybody raises: the last two for bytes that are not UTF-8, and for nesting without end"""


KNOWN_TIME = 1_735_689_600.0
"""2025-01-01, seconds since 1970: a clock that is before it has not been set yet"""


def rfc3339(at: float) -> str:
    """Seconds since 1970 as 2026-01-31T12:00:00.123Z."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_captured(hint: object) -> bool:
    """Whether CAPTURED stands anywhere in a type."""
    if hint is CAPTURED or (get_origin(hint) is Annotated and CAPTURED in getattr(hint, "__metadata__", ())):
        return True
    return any(is_captured(part) for part in get_args(hint))


Box = Annotated[
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
    heard: Annotated[Heard | msgspec.UnsetType, msgspec.Meta(description="of a text that was spoken")] = msgspec.UNSET
    read: Annotated[Read | msgspec.UnsetType, msgspec.Meta(description="of a text in a picture")] = msgspec.UNSET

    def says(self) -> object:
        """What is the same of two events that are repeats of each other."""
        return self

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """One line for people on an event as its JSON says it; KeyError or TypeError for another one's."""
        return ""


class Pictured(Event, frozen=True, kw_only=True):
    """An event of something in view, of which the device may keep a picture."""

    snapshot: Annotated[str, msgspec.Meta(description="a JPEG that the device keeps for a while; empty for none")] = ""
    clip: Annotated[str, msgspec.Meta(description="a film, likewise; it is there once its last second is over")] = ""
