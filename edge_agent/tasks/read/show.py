"""What was read in a picture, as JSON and in words."""

from __future__ import annotations

from typing import Any

from edge_agent.types import Read, Text


def show(line: Text) -> tuple[dict[str, Any], str]:
    """One line of text: how it was read, and with its score in front."""
    assert isinstance(line.got, Read)
    words = f"{line.got.score:.2f}{' unsure' if line.got.unsure else ''}  {line.text}"
    return {"text": line.text}, words
