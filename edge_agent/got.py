"""How a text was captured."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

CAPTURED = msgspec.Meta(extra={"captured": True})
"""stands in the type of each field that says what was captured in words, or what they can be guessed from: such a field
is taken out where a pipeline keeps its text (walk/privacy.py)"""
Words: TypeAlias = Annotated[str, CAPTURED]


TIMES = (
    "where it is asked for: seconds from `at` at which each word of the text begins and ends, those parted by spaces"
)


class Heard(msgspec.Struct, frozen=True):
    """How a text was got from speech."""

    engine: Annotated[str, msgspec.Meta(description="model that transcribed it, and its version")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1, description="how sure the engine is of its words")]
    seconds: Annotated[float, msgspec.Meta(ge=0, description="length of the speech")]
    language: Annotated[str, msgspec.Meta(description="ISO 639-1, as given or found; empty where nobody knows")] = ""
    words: Annotated[tuple[tuple[float, float], ...] | msgspec.UnsetType, msgspec.Meta(description=TIMES)] = (
        msgspec.UNSET
    )
    name: Annotated[str | msgspec.UnsetType, msgspec.Meta(description="the recording, and its second, if any")] = (
        msgspec.UNSET
    )


class Read(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a text was got from a picture."""

    engine: Annotated[str, msgspec.Meta(description="model that read it, and its version")]
    score: Annotated[float, msgspec.Meta(ge=0, le=1, description="how sure the engine is of its characters")]
    box: Annotated[
        tuple[float, float, float, float],
        msgspec.Meta(description="left, top, right, bottom in pixels of the source's frame"),
    ]
    unsure: Annotated[bool, msgspec.Meta(description="the score is too low to rely on")] = False
    name: Annotated[str, msgspec.Meta(description="the file the picture came from, if any")] = ""
    was: Annotated[Words, msgspec.Meta(description="what stood in its place before, where that was reported")] = ""
    gone: Annotated[bool, msgspec.Meta(description="it is no longer in view; the box is where it was last")] = False
