"""The events' JSON Schema, made from the types: ``python -m edge_agent.schema > deploy/event.schema.json``."""

from __future__ import annotations

import json

import msgspec

from edge_agent.types import AnyEvent

TITLE = "edge-agent event, version 1"


def text() -> str:
    """The schema (2020-12) as the file has it."""
    schema = msgspec.json.schema(AnyEvent)
    return (
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": TITLE, **schema}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    print(text(), end="")
