"""What was heard, as JSON and in words."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.types import Heard, Text


def show(text: Text) -> tuple[dict[str, Any], str]:
    """The text of a segment, how sure it is, and how long the segment was."""
    assert isinstance(text.got, Heard)
    row = {"text": text.text, "heard": msgspec.to_builtins(text.got)}
    return row, f"{text.got.score:.2f} {text.got.seconds:5.1f} s  {text.text}"
