"""What a detector found, as JSON and in words."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from edge_agent.types import Detections, Finding
from edge_agent.walk.event import detections


def show(found: Finding) -> tuple[dict[str, Any], str]:
    """The boxes of one picture."""
    assert isinstance(found.what, Detections)
    rows = detections(found.what)
    of = [f" (object {d.object})" if d.object is not UNSET else "" for d in rows]
    words = "; ".join(
        f"{d.label} {d.score:.2f} at {' '.join(f'{x:.0f}' for x in d.box)}{which}"
        for d, which in zip(rows, of, strict=True)
    )
    return {"detections": msgspec.to_builtins(rows)}, words or "nothing"
