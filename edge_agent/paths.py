"""Where things lie: the home of this program, and what came with it."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.errors import UsageError

PACKAGE = Path(__file__).resolve().parent
SERVICE_CONFIG, SERVICE_HOME = Path("/etc/edge-agent/agent.toml"), Path("/var/lib/edge-agent")
"""of the service that `edge-agent install` lays"""


def home() -> Path:
    """Folder for what this program keeps: $EDGE_AGENT_HOME (--home), that of the service ($STATE_DIRECTORY of systemd,
    or /var/lib/edge-agent for a user who may write there), or a person's ($XDG_DATA_HOME/edge-agent,
    ~/.local/share/edge-agent).
    """
    given = os.environ.get("EDGE_AGENT_HOME") or os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if not given and os.access(SERVICE_HOME, os.W_OK | os.X_OK):
        return SERVICE_HOME
    data = os.environ.get("XDG_DATA_HOME", "")
    base = data if data.startswith("/") else "~/.local/share"  # a relative one is to be ignored, says the standard
    try:
        return Path(given or f"{base}/edge-agent").expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"EDGE_AGENT_HOME: {given}: {error}") from None


def service_config() -> Path | None:
    """The config of the service: $EDGE_AGENT_CONFIG, else where `edge-agent install` puts it; None without one."""
    place = Path(os.environ.get("EDGE_AGENT_CONFIG") or SERVICE_CONFIG)
    try:
        return place if place.is_file() else None
    except OSError:
        return place  # its folder is not for this user, but there it is


def carried(*parts: str) -> Path:
    """A path below models/, deploy/ or systemd/ as the checkout or the installed wheel carries it."""
    inside = PACKAGE / "carried"
    return (inside if inside.is_dir() else PACKAGE.parent).joinpath(*parts)
