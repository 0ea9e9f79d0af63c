"""What a user says of a picture's input: --scale, --mean, --std and --channels."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from edge_agent.errors import UsageError
from edge_agent.families.family import Channels
from edge_agent.inspect.ranges import RANGES, scaled
from edge_agent.manifest import Input

TOLD = ("scale", "mean", "std", "channels")
"""what a user may say of the input; it is believed"""


def as_told(told: Mapping[str, str], start: Input, channels: Channels) -> tuple[Input, str] | None:
    """What the user said. UsageError for what is neither one of RANGES nor numbers."""
    if not set(TOLD[:3]) & set(told):
        return None
    said = " ".join(f"--{key} {told[key]}" for key in TOLD[:3] if key in told)
    scale = told.get("scale", "")
    if scale in RANGES:
        if told.keys() & {"mean", "std"}:
            raise UsageError(f"{said}: {scale} says mean and std itself; leave them out, or give --scale a number")
        return scaled(start, scale, channels), said
    return _given(told, start, channels, said), said


def _given(told: Mapping[str, str], start: Input, channels: Channels, said: str) -> Input:
    """What the user said in numbers. UsageError for what is none, and for a std that is not above 0."""
    scale = told.get("scale", "")
    mean, std = _three(told.get("mean", "0"), "mean"), _three(told.get("std", "1"), "std")
    # as PyTorch's are written, for pixels in 0..1, or for pixels as they are
    gain = _three(scale, "scale")[0] if scale else (1.0 if max(*map(abs, mean), *std) > 1 else 1 / 255)
    if min(std) <= 0:
        raise UsageError(f"{said}: std has to be above 0")
    return msgspec.structs.replace(start, channels=channels, scale=gain, mean=mean, std=std)


def check(told: Mapping[str, str]) -> None:
    """UsageError for what a user may not say of an input."""
    as_told(told, Input(1, 1), "RGB")


def _three(text: str, what: str) -> tuple[float, float, float]:
    """One number, or three with commas. UsageError."""
    try:
        found = [float(word) for word in text.split(",")]
    except ValueError:
        found = []
    if len(found) not in (1, 3) or not all(abs(v) <= 1e9 for v in found) or (what == "scale" and len(found) == 3):
        known = f"one of {', '.join(RANGES)}, or a number" if what == "scale" else "one number, or three as 1,2,3"
        raise UsageError(f"--{what} {text}: give {known}")
    first, second, third = found * 3 if len(found) == 1 else found
    return first, second, third
