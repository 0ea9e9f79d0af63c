"""The verbs of a fleet's publisher: publish, repository."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.arguments import common_options
from edge_agent.cli.say import note, print_json, table
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from edge_agent.fleet.repository import Repository

MOST_WORDS = 4096
"""bytes of a passphrase"""


def _place_options(of: argparse.ArgumentParser) -> None:
    """Where the repository is, and by whose keys it is signed."""
    of.add_argument("--repository", required=True, type=Path, metavar="R", help="folder of the repository")
    of.add_argument("--keys", type=Path, metavar="DIR", help="folder of private keys (default: HOME/keys)")
    of.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="what holds the passphrase of the keys (default: asks)"
    )
    of.add_argument("--days", type=int, help="until what devices look at first has to be renewed (default: 30)")


def publish_options(of: argparse.ArgumentParser) -> None:
    """Of `publish`."""
    of.add_argument(
        "what", metavar="FILE|DIR|MODEL|CONFIG", help="a model's name, folder or file; a config; wheels; files"
    )
    of.add_argument("--name", required=True, help="under which devices ask for it")
    of.add_argument(
        "--group", action="append", default=[], help="whom it is offered to (may be repeated; default: all)"
    )
    of.add_argument("--kind", choices=("model", "config", "files", "agent"), help="where it is not plain what it is")
    of.add_argument("--team", default="", help="sign with the keys of this team, to which its paths are delegated")
    of.add_argument("--licence", default="", help="of a model that says none, e.g. Apache-2.0")
    agreement = "0..1, how far its answers have to agree with those before it (default: as each device's config says)"
    of.add_argument("--agreement", type=float, metavar="A", help=agreement)
    of.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    _place_options(of)


def publish(args: argparse.Namespace) -> int:
    """Sign a bundle; 1 where devices do not see it yet."""
    import msgspec

    from edge_agent.fleet.pack import pack
    from edge_agent.gate.read import seen

    if args.agreement is not None and not 0 <= args.agreement <= 1:
        raise UsageError(f"--agreement {args.agreement:g}: give a share from 0 to 1")
    repository = _repository(args)
    packed = pack(args.what, args.name, seen, args.kind, args.licence)
    with repository.alone():
        done = repository.publish(packed, args.name, args.group or ["all"], team=args.team, agreement=args.agreement)
    bundle = done.bundle
    if args.json:
        print_json({"bundle": msgspec.to_builtins(bundle), "lacks": done.lacks})
    else:
        origin, least = (
            bundle.origin,
            sum(min([part.bytes, *(form.bytes for form in part.forms)]) for part in bundle.files),
        )
        print(f"{bundle.wanted}: version {bundle.version}, {len(bundle.files)} files, {bundle.bytes / 1e6:.1f} MB")
        print(f"  sent to a device that has the number before: {least / 1e6:.2f} MB at most")
        for key in ("licence", "parent", "data", "steps"):
            print(f"  {key:8} {getattr(origin, key) or 'none'}")
        print(f"  offered to {', '.join(args.group or ['all'])}")
    return _said(done.lacks)


def _said(lacks: Iterable[str]) -> int:
    told = list(lacks)
    for line in told:
        note(line)
    return 1 if told else 0


def _repository(args: argparse.Namespace) -> Repository:
    from edge_agent import paths
    from edge_agent.fleet.keys import Keys
    from edge_agent.fleet.repository import Repository

    return Repository(args.repository, Keys(args.keys or paths.home() / "keys", _passphrase(args)), args.days)


def _passphrase(args: argparse.Namespace) -> Callable[[str], bytes]:
    """The passphrase of a file, or asked for on a terminal; never of an argument."""
    from edge_agent import files

    def asked(name: str) -> bytes:
        if args.passphrase_file is not None:
            try:
                return files.read_regular(args.passphrase_file, MOST_WORDS).strip()
            except OSError as error:
                raise UsageError(
                    f"--passphrase-file {args.passphrase_file}: cannot be read ({error.strerror})"
                ) from None
        if sys.stdin is not None and sys.stdin.isatty():
            import getpass

            return getpass.getpass(f"passphrase of the key {name} (empty: none): ").encode()
        return b""

    return asked


# ── repository ───────────────────────────────────────────────────────────────────────────────────────────


def repository_options(of: argparse.ArgumentParser) -> None:
    """Of the verbs below `repository`."""
    each = of.add_subparsers(dest="repository_verb", required=True, metavar="VERB")
    init = each.add_parser("init", help="make an empty one, with its keys")
    init.add_argument(
        "--sign-by", action="append", default=[], metavar="ROLE=N", help="N keys have to sign it, e.g. root=2"
    )
    listed = each.add_parser("list", help="what is published, and to whom it is offered")
    listed.add_argument("--json", action="store_true", help="print one JSON list, and nothing else")
    each.add_parser("renew", help="sign anew what devices look at first, before it expires: for a timer")
    each.add_parser("sign", help="add the signatures of these keys to what waits for some")
    offer = each.add_parser("offer", help="let more groups have a bundle, e.g. after a canary group did well")
    offer.add_argument("bundle", metavar="KIND/NAME/NUMBER")
    offer.add_argument("--group", action="append", default=[], required=True)
    withdraw = each.add_parser("withdraw", help="offer a bundle to nobody any more")
    withdraw.add_argument("bundle", metavar="KIND/NAME/NUMBER")
    for one in (offer, withdraw):
        one.add_argument("--team", default="")
    key = each.add_parser("key", help="make a key: NAME.pem, and NAME.pub for the person who signs the repository")
    key.add_argument("name")
    rotate = each.add_parser("rotate", help="let another key count for a role, in place of one that it had")
    rotate.add_argument("role", help="root, targets, snapshot, timestamp, or a team")
    rotate.add_argument("--new", type=Path, metavar="PUB", help="public key (default: one is made)")
    rotate.add_argument("--old", default="", metavar="ID", help="beginning of the id of the key that no longer counts")
    threshold = each.add_parser("threshold", help="how many of its keys have to sign a role")
    threshold.add_argument("role")
    threshold.add_argument("count", type=int)
    delegate = each.add_parser("delegate", help="let a team publish some names with a key of its own")
    delegate.add_argument("team")
    delegate.add_argument("--paths", action="append", required=True, metavar="P", help="e.g. 'model/shop-*/*'")
    delegate.add_argument("--key", type=Path, metavar="PUB", help="the team's public key (default: one is made)")
    for one in each.choices.values():
        common_options(one)
        _place_options(one)


def repository(args: argparse.Namespace) -> int:
    """The verbs below `repository`; 1 where devices do not see yet what was done."""
    if args.repository_verb == "list":
        return _list(args)
    made = _repository(args)
    if args.repository_verb == "key":
        made.roles.keys.make(args.name)
        path = made.roles.keys.path(args.name)
        print(f"{path}: for you alone; {path.with_suffix('.pub')} is for the person who signs the repository")
        return 0
    with made.alone():
        return _said(_VERBS[args.repository_verb](made, args))


def _init(made: Repository, args: argparse.Namespace) -> list[str]:
    from edge_agent.fleet.roles import TOP

    names = {}
    for given in args.sign_by:
        role, _, count = given.partition("=")
        if role not in TOP or not count.isdigit() or not 1 <= int(count) <= 20:
            raise UsageError(f"--sign-by {given}: write ROLE=N with one of {', '.join(TOP)} and a number from 1 to 20")
        names[role] = int(count)
    if (made.place / "metadata").exists():
        raise UsageError(f"{made.place}: a repository is there already")
    made.roles.begin(names)
    root = made.place / "metadata" / "1.root.json"
    print(f"{made.place}: a repository; its keys are in {made.roles.keys.place}: keep a copy of root.pem elsewhere")
    print(f"give each device {root}: edge-agent enroll --repository ADDRESS --root {root.name} --write")
    return []


def _rotate(made: Repository, args: argparse.Namespace) -> list[str]:
    import secrets

    from edge_agent.fleet.keys import public_key

    keys = made.roles.keys
    new = public_key(args.new) if args.new else keys.make(f"{args.role}-{secrets.token_hex(4)}")
    return made.roles.rotate(args.role, new, args.old)


def _delegate(made: Repository, args: argparse.Namespace) -> list[str]:
    from edge_agent.fleet.keys import public_key

    key = public_key(args.key) if args.key else made.roles.keys.make(args.team)
    return made.roles.delegate(args.team, args.paths, key)


def _offer(made: Repository, args: argparse.Namespace) -> list[str]:
    from edge_agent.fleet.bundle import wanted

    return made.offer(wanted(args.bundle), args.group, args.team)


def _withdraw(made: Repository, args: argparse.Namespace) -> list[str]:
    from edge_agent.fleet.bundle import wanted

    return made.withdraw(wanted(args.bundle), args.team)


_VERBS: dict[str, Callable[[Repository, argparse.Namespace], list[str]]] = {
    "init": _init,
    "renew": lambda made, args: made.roles.settle(),
    "sign": lambda made, args: made.roles.sign(),
    "offer": _offer,
    "withdraw": _withdraw,
    "rotate": _rotate,
    "threshold": lambda made, args: made.roles.threshold(args.role, args.count),
    "delegate": _delegate,
}


def _list(args: argparse.Namespace) -> int:
    import msgspec

    from edge_agent.events import rfc3339

    rows = _repository(args).listing()
    if args.json:
        print_json([{**msgspec.to_builtins(row.bundle), "groups": row.groups, "team": row.team} for row in rows])
        return 0
    head = ("bundle", "version", "published", "MB", "groups", "by")
    cells = [
        (
            str(row.bundle.wanted),
            row.bundle.version,
            rfc3339(row.bundle.at)[:16],
            f"{row.bundle.bytes / 1e6:.1f}",
            ", ".join(sorted(row.groups)) or "none",
            row.team,
        )
        for row in rows
    ]
    print(*table([head, *cells], frozenset({3})), sep="\n")
    return 0
