"""The config that works, kept beside the store, and the one that worked before it: to go back to."""

from __future__ import annotations

import logging
from pathlib import Path

from edge_agent.files import read_regular, write_private

log = logging.getLogger("edge_agent")

NOW, BEFORE = "config.toml", "config.before.toml"
MOST = 1_000_000
"""bytes of a config file"""


def keep(path: Path, folder: Path) -> None:
    """Keep a copy of a config that works, for its owner alone; what it takes the place of becomes BEFORE."""
    try:
        text, now = read_regular(path, MOST), folder / NOW
        if now.is_file():
            if read_regular(now, MOST) == text:
                return
            now.replace(folder / BEFORE)
        write_private(now, text)
    except OSError as error:
        log.warning("a copy of %s could not be kept in %s: %s", path, folder, error.strerror)
