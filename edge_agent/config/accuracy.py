"""``[accuracy]``: how accurate what serves still is, watched after it was put to work."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Accuracy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[accuracy]``: the contract, and how it is watched."""

    agreement: Annotated[float, msgspec.Meta(ge=0.5, le=1)] = 0.95
    """with the parent, and with people, that is asked for"""
    hours: Annotated[float, msgspec.Meta(gt=0, le=720)] = 24
    """over which it is counted"""
    every: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 200
    """one in so many samples is answered again by the parent, when the device is idle"""
    auditor: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """model that answers again; when absent, the most precise file of the model that serves"""
    fall_back: bool = True
    """below the contract it goes back to that file, or to the version before"""
    learn_hours: Annotated[float, msgspec.Meta(ge=48, le=720)] = 72
    """first hours of a model, which say what is usual"""
