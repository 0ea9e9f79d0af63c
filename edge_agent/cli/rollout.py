"""The verb rollout: a signed bundle to a group of devices, in waves; and what a group is to be."""

from __future__ import annotations

import argparse
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent import paths
from edge_agent.cli import arguments
from edge_agent.cli.listen import broker_of, broker_options
from edge_agent.cli.say import note, print_json, table
from edge_agent.cli.signals import stop_on_signals
from edge_agent.errors import EdgeAgentError, UsageError

if TYPE_CHECKING:
    from edge_agent.config import Mqtt
    from edge_agent.fleet.plan import Rollout
    from edge_agent.link.signing import Signer

SHOWN = 20
"""devices that status prints of those that are not as they are to be"""


def options(of: argparse.ArgumentParser) -> None:
    """Of the verb and those below it."""
    each = of.add_subparsers(dest="rollout_verb", required=True, metavar="VERB")
    start = each.add_parser("start", help="begin, and drive it until it is over; Ctrl-C leaves it, resume goes on")
    start.add_argument("target", help="KIND/NAME/NUMBER of a published bundle, e.g. model/people/3")
    start.add_argument("--group", required=True, help="devices whose [update] has this group")
    start.add_argument("--devices", metavar="A,B", help="these devices, beside those that make themselves known")
    start.add_argument("--canary", type=arguments.count, default=1, metavar="N", help="devices of the first wave")
    start.add_argument("--factor", type=float, default=2.0, help="times of the devices before that a wave has")
    start.add_argument("--abort", type=float, default=10, metavar="PERCENT", help="stop where more go wrong (10)")
    start.add_argument("--timeout", type=arguments.duration, default=7200, metavar="TIME", help="for a device (2h)")
    start.add_argument("--soak", type=arguments.duration, default=60, metavar="TIME", help="between two waves (1m)")
    start.add_argument(
        "--patience",
        type=arguments.duration,
        default=600,
        metavar="TIME",
        help="how long to wait for devices that are offline",
    )
    start.add_argument("--agreement", type=float, metavar="SHARE", help="least agreement with the model before")
    resume = each.add_parser("resume", help="go on with one that was left or halted")
    halt = each.add_parser(
        "halt", help="offer it to no further device, and take it back from those that have not begun"
    )
    status = each.add_parser("status", help="how it stands, and why a device is not as it is to be")
    status.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    desire = each.add_parser("desire", help="retain what a group or a device is to be")
    where = desire.add_mutually_exclusive_group(required=True)
    where.add_argument("--group", help="for all devices of a group")
    where.add_argument("--to", metavar="DEVICE", help="for one device, before what its group has")
    desire.add_argument("--bundle", action="append", default=[], metavar="KIND/NAME[/NUMBER]", help="may be repeated")
    desire.add_argument("--profile", default="", help="the profile that is to be active")
    for verb in (start, resume, halt, desire):
        broker_options(verb)
        verb.add_argument("--sign", metavar="PEM", help="sign jobs with this Ed25519 private key ([mqtt] signers)")
    for verb in (start, resume, halt, status):
        verb.add_argument("--state", type=Path, metavar="FILE", help="what is known of it (default: HOME/rollout.json)")
    for verb in each.choices.values():
        arguments.common_options(verb)


def rollout(args: argparse.Namespace) -> int:
    """The verbs below `rollout`."""

    verbs = {"start": _start, "resume": _resume, "halt": _halt, "status": _status, "desire": _desire}
    return verbs[args.rollout_verb](args)


def _file(args: argparse.Namespace) -> Path:
    return args.state or paths.home() / "rollout.json"


def _signer(args: argparse.Namespace) -> Signer | None:
    from edge_agent.link.signing import Signer

    return Signer(args.sign) if args.sign else None


def _start(args: argparse.Namespace) -> int:
    import msgspec

    from edge_agent.consumer import rollout as driven
    from edge_agent.fleet.bundle import wanted
    from edge_agent.fleet.plan import Device, Plan, Rollout

    target, file, mqtt = wanted(args.target), _file(args), broker_of(args)
    if not target.number:
        raise UsageError(f"{args.target}: give its number, e.g. {target}/3: which is the newest changes")
    if file.exists() and (before := driven.read(file)).status != "DONE":
        mend = f"resume or halt it, or give another --state; delete {file} to forget it"
        raise UsageError(f"{file}: rollout {before.job} of {before.plan.target} is {before.status.lower()}; {mend}")
    keys = {"timeout_s": args.timeout, "soak_s": args.soak, "patience_s": args.patience, "agreement": args.agreement}
    plan = {"target": str(target), "group": args.group, "canary": args.canary, "factor": args.factor, **keys}
    try:
        made = msgspec.convert({**plan, "abort_share": args.abort / 100}, Plan)
    except msgspec.ValidationError as error:
        raise UsageError(f"rollout start: {error}") from None
    job = f"{target.kind}-{target.name.replace('.', '_')}-{target.number}-{secrets.token_hex(3)}"
    devices = {name: Device() for name in (args.devices or "").split(",") if name}
    driven.write(file, Rollout(job, made, time.time(), devices=devices))
    note(f"rollout {job} of {target} to {args.group}: its state is {file}")
    return _drive(args, file, mqtt)


def _resume(args: argparse.Namespace) -> int:
    return _drive(args, _file(args), broker_of(args), again=True)


def _drive(args: argparse.Namespace, file: Path, mqtt: Mqtt, again: bool = False) -> int:
    """Until it is over; 1 where it was halted."""
    from edge_agent.consumer import rollout as driven

    stop = stop_on_signals()
    driven.read(file)
    with driven.alone(file) as free:
        if not free:
            raise UsageError(f"{file}: another process drives this rollout")
        driven.halt_file(file).unlink(missing_ok=True)
        last = ""

        def say(it: Rollout) -> None:
            nonlocal last
            if (line := _line(it)) != last:
                last = line
                note(f"{time.strftime('%H:%M:%S')} {line}")

        made = driven.Driven(mqtt, file, stop, _signer(args), say)
        if again:
            made.driver.resume()
        it = made.run()
    if it.status == "RUNNING":
        note(f"left as it is: edge-agent rollout resume --state {file}")
    return 1 if it.status == "HALTED" else 0


def _halt(args: argparse.Namespace) -> int:
    from edge_agent.consumer import rollout as driven

    file = _file(args)
    driven.read(file)
    with driven.alone(file) as free:
        if free:
            stop, mqtt = stop_on_signals(), broker_of(args)
            made = driven.Driven(mqtt, file, stop, _signer(args))
            made.driver.halt("somebody had it halted")
            made.run()
    if not free:
        driven.halt_file(file).touch()
        note("the process that drives it halts it now")
    note(_line(driven.read(file)))
    return 0


def _status(args: argparse.Namespace) -> int:
    """1 where it was halted."""
    from edge_agent.consumer import rollout as driven

    it = driven.read(_file(args))
    if args.json:
        print_json(it)
    else:
        print(_line(it))
        rows = [("device", "wave", "status", "why")]
        odd = [(name, one) for name, one in it.devices.items() if one.status and (one.wrong or not one.over)]
        rows += [(name, str(one.wave), one.status, _why(one.said, one.status)) for name, one in odd[:SHOWN]]
        if len(rows) > 1:
            print(*table(rows), sep="\n")
        if len(odd) > SHOWN:
            print(f"and {len(odd) - SHOWN} more; --json has all")
    return 1 if it.status == "HALTED" else 0


def _why(said: str, status: str) -> str:
    return said.removeprefix(status).lstrip(", ")


def _line(it: Rollout) -> str:
    """How it stands."""
    from edge_agent.fleet.plan import counted

    counts = ", ".join(f"{count} {status}" for status, count in sorted(counted(it).items())) or "no device yet"
    return f"{it.plan.target} to {it.plan.group}: {it.status.lower()}, wave {it.wave + 1}: {counts}" + (
        f"; {it.why}" if it.why else ""
    )


def _desire(args: argparse.Namespace) -> int:
    from edge_agent.consumer.rollout import tell
    from edge_agent.fleet.bundle import wanted
    from edge_agent.link import topics

    bundles = [str(wanted(one)) for one in args.bundle]
    mqtt = broker_of(args)
    own = topics.whole(topics.base_of(mqtt.prefix, args.to or "x"), topics.DESIRED)
    topic = own if args.to else topics.group_desired(mqtt.prefix, args.group)
    body = {"serial": int(time.time() * 1000), "bundles": bundles, "profile": args.profile}
    stop = stop_on_signals()
    tell(mqtt, topic, body, _signer(args), stop)
    if not stop.is_set():
        raise EdgeAgentError(f"{mqtt.url}: the broker did not take it")
    note(f"{topic}: {', '.join(bundles) or 'no bundles'}" + (f", profile {args.profile}" if args.profile else ""))
    return 0
