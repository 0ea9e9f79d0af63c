"""The folder of the store, checked before anything is opened there."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.config import Config, store_path
from edge_agent.errors import ConfigError


def checked_store(config: Config) -> Path:
    """`store_path`, where a folder stands or can be made. ConfigError where none can: a file is in the way."""
    store = store_path(config)
    existing = next(place for place in (store, *store.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise ConfigError(f"store.path: {store}: {existing} is no folder, so no store can stand there; name another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"store.path: {store}: this user may not write to {existing}; name another, or change it")
    return store
