"""How unusual a sample is, as JSON and in words."""

from __future__ import annotations

from typing import Any

from edge_agent.types import Anomaly, Finding, Text

MOST = 60
"""characters of a line of numbers that are shown"""


def show(found: Finding) -> tuple[dict[str, Any], str]:
    """The reconstruction error of one sample, with the text where it is one."""
    assert isinstance(found.what, Anomaly)
    text = found.of.text if isinstance(found.of, Text) else ""
    row = {"text": text, "error": round(found.what.error, 6)}
    return row, f"error {found.what.error:.4g}  {text[:MOST]}"
