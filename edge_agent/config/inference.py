"""``[inference]``: how requests over HTTP share the processor with pipelines."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Inference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[inference]``: requests to ``/v2`` of the page; they are answered without the section, too."""

    priority: Annotated[int, msgspec.Meta(ge=0, le=9)] = 0
    """as a pipeline's; pipelines have 5, so that they go before requests"""
    share: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 0.5
    """weight of their processor time against pipelines', where there is not enough of it"""
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=600_000)] = 10_000.0
    """milliseconds after which a request that still waits for its turn is refused"""
