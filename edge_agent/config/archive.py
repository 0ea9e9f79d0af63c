"""``[archive]``: events kept on the device, to look back at."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec

from edge_agent.errors import ConfigError, nearest
from edge_agent.toml import Name


class Archived(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[archive]``: which events are kept after they were sent, for how long; without the section none is."""

    days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] = 30
    """after which an event is deleted"""
    max_bytes: Annotated[int, msgspec.Meta(ge=1_000_000, le=10**12)] = 200_000_000
    """bytes on disk; when there are more, the oldest events are deleted"""
    pipelines: list[Name] = []
    """whose events are kept; none: all"""


def check_archive(archive: Archived | None, pipelines: Collection[str]) -> None:
    """ConfigError for a pipeline that there is not."""
    for name in archive.pipelines if archive is not None else ():
        if name not in pipelines:
            raise ConfigError(f'archive.pipelines: "{name}" is none{nearest(name, pipelines)}')
