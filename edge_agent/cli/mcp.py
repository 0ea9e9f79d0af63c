"""The verb mcp: a Model Context Protocol server on stdin and stdout, which reads the archive."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.ask import opened
from edge_agent.cli.given import config_of
from edge_agent.cli.say import note
from edge_agent.errors import EdgeAgentError, UsageError

if TYPE_CHECKING:
    from edge_agent.archive.meaning import Meaning


def options(mcp: argparse.ArgumentParser) -> None:
    """The verb's options."""
    mcp.add_argument("-c", "--config", help="TOML file of the agent (default: that of the service)")
    mcp.add_argument("--encoder", default="encoder", metavar="NAME", help="what reads for meaning (default: the best)")


def mcp(args: argparse.Namespace) -> int:
    """Answer until stdin ends. Nothing but messages goes to stdout."""
    from edge_agent import config
    from edge_agent.agent.record import FOLDER
    from edge_agent.serving.mcp import MOST, Server

    args.config = config_of(args)
    loaded = config.load(args.config)
    if loaded.mcp is None:
        raise UsageError(f'{args.config}: nothing may be seen; write [mcp] with pipelines = ["…"] into it')
    folder = config.store_path(loaded) / FOLDER
    server = Server(opened(args), loaded.mcp, lambda name: _picture(folder, name), _Lazy(args.encoder))
    messages = sys.stdin.buffer
    while line := messages.readline(MOST + 1):
        if len(line) > MOST:
            raise UsageError(f"a message is longer than {MOST} bytes")
        if line.strip() and (reply := server.answer(line)) is not None:
            print(reply.decode(), flush=True)
    return 0


class _Lazy:
    """What reads for meaning, opened at the first question; None where it cannot be, which is said once."""

    def __init__(self, encoder: str) -> None:
        self._encoder, self._asked = encoder, False
        self._meaning: Meaning | None = None

    def __call__(self) -> Meaning | None:
        if not self._asked:
            self._asked = True
            try:
                from edge_agent.serving.meaning import meaning_of
                from edge_agent.serving.models import Models

                self._meaning = meaning_of(Models(once=True), self._encoder)
            except EdgeAgentError as error:
                note(f"by words alone: {error}")
        return self._meaning


def _picture(folder: Path, name: str) -> Path | None:
    """Where a snapshot lies; None for a name that is none, or leads elsewhere."""
    from edge_agent.recorder.pictures import NAME

    path = folder / name
    right = NAME.fullmatch(name) is not None and name.endswith(".jpg")
    return path if right and path.is_file() and not path.is_symlink() else None
