"""The verb of a device that takes what its fleet's repository offers: update."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from edge_agent.cli.say import note, print_json, table
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.fleet.outcome import Outcome

STATES = {"SUCCEEDED": 0, "IN_PROGRESS": 0, "FAILED": 1, "REJECTED": 1}
"""how one ended -> exit code"""


def take_first(path: str) -> None:
    """Take what a config follows and nothing serves of yet."""
    from edge_agent import config

    loaded = config.load(path, pipelines=False)
    if loaded.update is None:
        return
    from edge_agent.agent.update import first

    for outcome in first(loaded, lambda shared=None: config.load(path, shared=shared)):
        note(f"{outcome.target}: {outcome.state}: {outcome.reason}")


def update_options(of: argparse.ArgumentParser) -> None:
    """Of `update`."""
    of.add_argument(
        "target", nargs="*", metavar="KIND/NAME[/NUMBER]", help="e.g. model/people (default: all of [update])"
    )
    of.add_argument("-c", "--config", help="TOML file (default: that of the service)")
    of.add_argument("--list", action="store_true", help="say what serves, and how the last update ended; take nothing")
    of.add_argument("--again", action="store_true", help="also what failed here before")
    of.add_argument("--json", action="store_true", help="print one JSON list, and nothing else")


def update(args: argparse.Namespace) -> int:
    """Take what the repository offers, by the agent where one runs; 1 where something was refused or given up."""
    import msgspec

    from edge_agent import config, paths
    from edge_agent.cli.given import config_of
    from edge_agent.fleet import asked

    if args.list:
        return _list_served(args)
    args.config = config_of(args)
    loaded = config.load(args.config, pipelines=False)
    if loaded.update is None:
        raise UsageError(f'{args.config}: no [update]; add one with repository = "ADDRESS", and models = ["NAME"]')
    folder = paths.home() / "fleet"
    handle = asked.running(folder)
    if handle is None:
        note("the agent that runs here takes it; Ctrl-C leaves it at that")
        outcomes = asked.ask(folder, args.target, args.again, lambda: False) or []
    else:
        outcomes = _taken(args, loaded)
    if args.json:
        print_json(msgspec.to_builtins(outcomes))
    else:
        for outcome in outcomes:
            print(f"{outcome.target}: {outcome.state}: {outcome.reason}")
    return max((STATES[outcome.state] for outcome in outcomes), default=0)


def _taken(args: argparse.Namespace, loaded: Config) -> list[Outcome]:
    """Here and now, as no agent runs: proved, and with nothing live to be held against."""
    from edge_agent import config
    from edge_agent.agent.update import alone

    assert loaded.update is not None
    taking = alone(loaded, lambda shared=None: config.load(args.config, shared=shared))
    wanted = args.target or loaded.update.follows
    if args.again:
        for target in wanted:
            taking.again(target)
    taking.resume()
    return [taking.take(target) for target in wanted]


def _list_served(args: argparse.Namespace) -> int:
    import msgspec

    from edge_agent import paths
    from edge_agent.cli.given import config_of
    from edge_agent.fleet.served import Served

    if args.config or paths.service_config() is not None:
        config_of(args)
    bundles = Served(paths.home() / "fleet").kept.bundles
    if args.json:
        print_json(msgspec.to_builtins(bundles))
        return 0
    rows: list[tuple[str, ...]] = [("bundle", "serves", "before", "highest", "last")]
    for key, known in sorted(bundles.items()):
        said = f"{known.last.state}: {known.last.reason}" if known.last is not None else ""
        numbers = [
            f"{one.number} ({one.version})" if one is not None else "none" for one in (known.serves, known.before)
        ]
        rows.append((key, *numbers, str(known.highest), said))
    print(*table(rows), sep="\n")
    return 0
