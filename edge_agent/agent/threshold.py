"""A limit of a task that may be changed while it works."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Threshold:
    """A limit of one task."""

    option: str
    """what it is called in the config, and the attribute of the task that holds it"""
    at: int
    """which of the pipeline's tasks"""
    config: float
    """by the config, or by the model"""
    now: float
