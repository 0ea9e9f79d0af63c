"""What a larger model, somewhere else, says about an event of ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from edge_agent.events.envelope import Event
from edge_agent.got import Words

Verdict = Literal["yes", "no", "unsure", ""]


class OpinionEvent(Event, frozen=True, kw_only=True, tag="opinion"):
    """A second opinion on an event, of a model that was shown its picture."""

    about: Annotated[str, msgspec.Meta(description="id of that event")]
    by: Annotated[str, msgspec.Meta(description="the model, as the config names it")]
    verdict: Annotated[Verdict, msgspec.Meta(description="the first word of the answer, where it is one of these")]
    answer: Annotated[Words, msgspec.Meta(description="its beginning; empty where the pipeline keeps its text")]

    @staticmethod
    def words(body: Mapping[str, Any]) -> str:
        """What it says, and who, on what."""
        said = f'"{body["answer"][:200]}"' if body["answer"] else body["verdict"]
        return f"{said}   ({body['by']} on {body['about']})"
