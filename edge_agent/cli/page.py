"""The page of `run` and `demo`: there where the config has [page] and its extra is installed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.say import note, one_line
from edge_agent.errors import EdgeAgentError, UsageError

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.ui.server import Page

FOLDER = "page"
"""of the store"""


def page_of(
    loaded: Config,
    store: Path,
    config_file: Path | None = None,
    before: Page | None = None,
    say: Callable[[str], None] = note,
) -> Page | None:
    """The page that a config asks for, listening, which is said; None where it asks for none.

    `before`: the one there was. It goes on where nothing of it changed, or where another cannot be had, which is said.
    Raises UsageError where the extra is missing, ConfigError.
    """
    if before is not None and loaded.page == before.settings and store / FOLDER == before.place:
        return before
    try:
        page = _made(loaded, store, config_file)
    except EdgeAgentError as error:
        if before is None:
            raise
        note(f"page: refused, the one before goes on: {one_line(error)}")
        return before
    if before is not None:
        before.stop()
    if page is not None:
        page.start()
        if page.port:  # else it has said why not, and tries again
            say(f"page: {page.about}")
    return page


def _made(loaded: Config, store: Path, config_file: Path | None) -> Page | None:
    """The page, which does not listen yet."""
    if loaded.page is None:
        return None
    try:
        from edge_agent.ui.server import Page
    except ImportError as error:
        raise UsageError(f'[page] needs {error.name}: pip install "edge-agent-runtime[page]"') from None
    return Page(loaded.page, store / FOLDER, config_file)


def about(loaded: Config) -> str:
    """What the page of a config that has one will be, for `check`, one line. Raises as `page_of`."""
    with tempfile.TemporaryDirectory() as folder:
        page = _made(loaded, Path(folder), None)
    assert page is not None
    return f"page: {page.about}"
