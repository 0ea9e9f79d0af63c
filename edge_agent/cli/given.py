"""The config that a verb works with."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edge_agent import paths
from edge_agent.cli.say import note
from edge_agent.errors import UsageError


def config_of(args: argparse.Namespace) -> str:
    """The config that was given, else the service's, said; then home, store and credentials are the service's, too.

    UsageError where there is none, or not for this user.
    """
    if args.config:
        return str(args.config)
    place = paths.service_config()
    if place is None:
        raise UsageError("give a config: -c agent.toml; there is no service's here, as `edge-agent install` lays it")
    if not os.access(place, os.R_OK):
        raise UsageError(f"{place} may not be read by this user; type: sudo edge-agent {args.verb}, or give -c")
    note(f"config: {place}")
    as_service(place)
    return str(place)


def as_service(place: Path) -> None:
    """Where the config is the service's: its home, store and credentials, too."""
    if place == paths.SERVICE_CONFIG:
        os.environ.setdefault("STATE_DIRECTORY", str(paths.SERVICE_HOME))
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(place.parent / "credentials"))
