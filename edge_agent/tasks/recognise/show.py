"""What a classifier of pictures found, as JSON and in words."""

from __future__ import annotations

from typing import Any

from edge_agent.types import Finding, Scores


def show(found: Finding) -> tuple[dict[str, Any], str]:
    """The label of one picture, and the likeliest others."""
    what = found.what
    assert isinstance(what, Scores)
    scores = {name: round(score, 4) for name, score in what.scores.items()}
    others = ", ".join(f"{name} {score:.2f}" for name, score in what.scores.items() if name != what.label)
    row = {"label": what.label, "score": round(what.score, 4), "scores": scores}
    return row, f"{what.label} {what.score:.2f} ({others})"
