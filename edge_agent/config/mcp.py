"""``[mcp]``: what assistants may see of the archive through `edge-agent mcp`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec

from edge_agent.errors import ConfigError, nearest
from edge_agent.toml import Name


class Mcp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[mcp]``: without it an assistant sees nothing."""

    pipelines: Annotated[list[Name], msgspec.Meta(min_length=1, examples=[["gate"]])]
    """whose events may be seen; "agent": the device's own, such as gaps and rules over several pipelines"""
    snapshots: bool = False
    """true: the pictures that these events name, too"""


def check_mcp(shown: Mcp | None, archived: bool, pipelines: Collection[str]) -> None:
    """ConfigError for a pipeline that there is not, or where nothing is archived."""
    if shown is None:
        return
    if not archived:
        raise ConfigError("mcp: there is no archive to look into; write [archive]")
    for name in shown.pipelines:
        if name not in (*pipelines, "agent"):
            raise ConfigError(f'mcp.pipelines: "{name}" is none{nearest(name, pipelines)}')
