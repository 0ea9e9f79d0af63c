"""The verbs of the service: install, uninstall, enroll, backup, restore."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import paths
from edge_agent.cli.say import note, print_json
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from edge_agent.agent.backup import Places
    from edge_agent.device.laid import Done
    from edge_agent.device.place import Place

WORD = "delete"
"""what is to be typed before config and data are deleted"""
NEXT = (
    ("systemctl status edge-agent", "is it running?"),
    ("journalctl -u edge-agent -f", "what does it say?"),
    ("sudoedit {config} && sudo edge-agent check && sudo systemctl reload edge-agent", "cameras, a broker, tasks"),
    ("sudo edge-agent models add FILE", "a model of yours"),
    ("sudo edge-agent listen", "what it reports, once its config names a broker"),
)


def install(args: argparse.Namespace) -> int:
    """Lay and start the service; say what to type next."""
    from edge_agent.device import install

    place = _place(args, "install")
    done = install.install(place, Path(args.config) if args.config else None)
    _show(done, args.json)
    if args.json:
        return 0
    if done.state == "laid":
        print("laid; systemd does not run there: it starts with the system")
        return 0
    print("next:")
    for command, what in NEXT:
        print(f"  {command.format(config=paths.SERVICE_CONFIG)}   # {what}")
    return 0


def uninstall(args: argparse.Namespace) -> int:
    """Stop the service and take it away; with --purge its config and data, too."""
    from edge_agent.device import install

    place = _place(args, "uninstall")
    if args.purge:
        note(f"this deletes the config, the models and the events that wait; type {WORD} to do so")
        if sys.stdin is None or sys.stdin.readline().strip() != WORD:
            raise UsageError(f"--purge: nothing is deleted without the word {WORD} on stdin")
    _show(install.uninstall(place, args.purge), args.json)
    return 0


def enroll(args: argparse.Namespace) -> int:
    """Make or take what the device logs in with."""
    from edge_agent.cli.enroll import enroll

    return enroll(args)


def enroll_options(of: argparse.ArgumentParser) -> None:
    """Those of `enroll`, which only that verb loads."""
    from edge_agent.cli.enroll import add_arguments

    add_arguments(of)


def backup(args: argparse.Namespace) -> int:
    """Write config, home and the events that wait into one file."""
    from edge_agent.agent.backup import backup

    count = backup(_places(args, there=True), Path(args.out).absolute())
    print(f"{args.out}: {count} files; it holds passwords and keys, so keep it as you keep those")
    return 0


def restore(args: argparse.Namespace) -> int:
    """Put back what a backup holds."""
    from edge_agent.agent.backup import restore

    for line in restore(Path(args.file), _places(args, there=False), args.other_device):
        print(line)
    return 0


def _places(args: argparse.Namespace, there: bool) -> Places:
    """Where config, home and store are, or are to be. UsageError, ConfigError."""
    from edge_agent import config
    from edge_agent.agent.backup import Places
    from edge_agent.cli.given import as_service, config_of

    place = Path(config_of(args) if there else args.config or paths.SERVICE_CONFIG).absolute()
    as_service(place)
    if there:
        return Places(place, paths.home(), config.store_path(config.load(place, pipelines=False)))
    return Places(place, paths.home(), Path(args.store or os.environ.get("STATE_DIRECTORY") or paths.home()) / "outbox")


def _place(args: argparse.Namespace, verb: str) -> Place:
    """Where to. UsageError, which says what to type, where this user may not."""
    from edge_agent.device.place import place

    given = place(Path(args.root).absolute(), args.user)
    if given.root == Path("/") and os.geteuid() != 0:
        program = shlex.join([sys.executable, "-m", "edge_agent", *sys.argv[1:]])
        raise UsageError(f"only root may {verb} a service; type: sudo {program}")
    return given


def _show(done: Done, as_json: bool) -> None:
    if as_json:
        print_json({"state": done.state, "did": done.did, "kept": done.kept})
        return
    for line in done.did:
        print(line)
    for line in done.kept:
        print(f"kept {line}")
