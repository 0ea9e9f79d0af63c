"""The verb listen: what devices report, as lines or JSON, acknowledged and counted."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent import paths
from edge_agent.cli.given import config_of
from edge_agent.cli.say import note, print_json
from edge_agent.cli.signals import stop_after, stop_on_signals
from edge_agent.errors import ConfigError, LinkError, UsageError

if TYPE_CHECKING:
    from edge_agent.config import Mqtt
    from edge_agent.consumer.presence import Presence

_streams: dict[str, str] = {}
"""What was last shown of each stream: a state is sent again and again, and shown when it changes."""


def _line(text: str) -> None:
    """What came from a broker, on one line: no character of it moves the cursor."""
    print("".join(c if c.isprintable() else " " for c in text), flush=True)


def show_message(tail: str, body: dict[str, Any]) -> None:
    """One message as a line for people."""
    from edge_agent.events import EVENTS

    clock = time.strftime("%H:%M:%S")
    if "status" in body and len(body) == 1:
        _line(f"{clock} {tail:8} {body['status']}")
    elif (kind := body.get("kind")) in EVENTS:
        _line(f"{clock} {body['pipeline']:8} {EVENTS[kind].words(body)}")
    elif "profiles" in body:
        _line(f"{clock} {tail:8} {body['profile']} ({body['by']})")
    elif "stream" in body and _streams.get(tail) != body["stream"]:
        _streams[tail] = body["stream"]
        why = f": {body['why']}" if body["why"] else ""
        _line(f"{clock} {tail.split('/')[0]:8} stream is {body['stream']}{why}")


def broker_options(of: argparse.ArgumentParser) -> None:
    """Which broker, and who we are to it; `broker_of` reads them."""
    of.add_argument("-c", "--config", help="take the broker from this TOML file (default: that of the service)")
    of.add_argument(
        "--url",
        help="mqtt[s]://host[:port] or ws[s]://host[:port]/path; of a cluster several, with , between",
    )
    of.add_argument("--username", help="who we are to the broker")
    of.add_argument("--password-file", metavar="FILE", help="what holds the password")
    of.add_argument("--ca", metavar="PEM", help="the authority that signed the broker's certificate")
    of.add_argument("--cert", metavar="PEM", help="our certificate, where the broker wants one")
    of.add_argument("--key", metavar="PEM", help="and its private key")
    of.add_argument("--prefix", default="edge/v1")


def listen(args: argparse.Namespace) -> int:
    """Print what devices report; with --audit 1 when something is missing, with --online when a device is not there."""
    from edge_agent import config
    from edge_agent.consumer.audit import Audit
    from edge_agent.consumer.listen import CONNECTED, listen
    from edge_agent.consumer.presence import Presence
    from edge_agent.link import topics
    from edge_agent.link.signing import Signer

    stop = stop_on_signals()
    stop_after(args.seconds, stop)
    mqtt = broker_of(args)
    _refuse_senseless(args)
    where = config.shown_url(mqtt.url)
    signer = Signer(args.sign) if args.sign else None
    audit, presence, connected = Audit(), Presence(mqtt.prefix), False
    for message in listen(mqtt, [topics.everything(mqtt.prefix, args.device)], stop, args.ack, signer):
        if isinstance(message, str):
            note(f"{where}: {message}")
            connected = connected or message == CONNECTED
            continue
        topic, payload, retained = message
        presence.add(topic, payload, retained)
        if topics.holds_events(topic):
            audit.add(payload)
        if not args.quiet:
            _show(topic, payload, mqtt.prefix, args.json)
    code = max(args.audit and _audited(audit, args.json), args.online and _present(presence, args.json))
    if not connected:
        raise LinkError(f"{where}: it was never connected; is the broker there?")
    return code


def broker_of(args: argparse.Namespace) -> Mqtt:
    """The broker that `broker_options` name. UsageError, ConfigError."""
    from edge_agent import config

    if not args.config and args.url is None and paths.service_config() is not None:
        args.config = config_of(args)
    keys = ("username", "password_file", "ca", "cert", "key")
    given = {key: getattr(args, key) for key in keys if getattr(args, key) is not None}
    _refuse_odd(args, given)
    if args.config:
        mqtt = config.load(args.config, pipelines=False).mqtt
        if mqtt.url is None:
            raise UsageError(f"{args.config}: has no mqtt.url; add it, or give --url mqtt://host")
        return mqtt
    try:
        url = args.url.split(",") if "," in args.url else args.url
        return config.checked_mqtt(config.Mqtt(url=url, prefix=args.prefix, **given), Path.cwd())
    except ConfigError as error:
        raise UsageError(_as_options(str(error))) from None


def _refuse_odd(args: argparse.Namespace, given: dict[str, str]) -> None:
    """UsageError for options that do not go together, or have no value that could be meant."""
    from edge_agent import toml

    problems = (
        (args.config and (args.url or given), "give either -c, which says it all, or --url and what belongs to it"),
        (
            not re.fullmatch(toml.PREFIX, args.prefix),
            f'--prefix "{args.prefix}": give 1 to 3 topic levels without + # or spaces',
        ),
        (not args.config and args.url is None, "give --url mqtt://host or a config with mqtt.url (-c agent.toml)"),
    )
    _refuse(problems)


def _refuse_senseless(args: argparse.Namespace) -> None:
    """UsageError for options of `listen` that make no sense."""
    from edge_agent import toml

    named = args.device == "+" or re.fullmatch(toml.NAME, args.device)
    problems = (
        (not named, f'--device "{args.device}": give a device\'s id, of letters, digits or _ . -'),
        (args.quiet and not (args.audit or args.online), "--quiet: leaves nothing to print; give --audit or --online"),
        (args.sign and not args.ack, "--sign: signs acknowledgements; give --ack too"),
    )
    _refuse(problems)


def _refuse(problems: Iterable[tuple[object, str]]) -> None:
    """UsageError for the first that is so."""
    for is_so, problem in problems:
        if is_so:
            raise UsageError(problem)


def _as_options(text: str) -> str:
    """What is said of a config's keys, said of the command line."""
    return re.sub(r"mqtt\.(\w+)", lambda key: "--" + key[1].replace("_", "-"), text).replace("mqtt: cert", "--cert")


def _show(topic: str, payload: bytes, prefix: str, as_json: bool) -> None:
    """One message, as it is or as a line for people."""
    import msgspec

    from edge_agent.events import UNREADABLE

    try:
        body = msgspec.json.decode(payload) if payload.startswith(b"{") else {"status": payload.decode()}
        if as_json:
            print_json(body if payload.startswith(b"{") else {"topic": topic, "payload": body["status"]})
        else:
            show_message(topic.removeprefix(f"{prefix}/").partition("/")[2], body)
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        if payload.startswith(b"\xff\xd8"):
            tail = topic.removeprefix(f"{prefix}/").partition("/")[2]
            what = {"topic": topic, "jpeg_bytes": len(payload)}
            print_json(what) if as_json else _line(f"{time.strftime('%H:%M:%S')} {tail}: {len(payload)} bytes of JPEG")
        elif as_json:
            print_json({"topic": topic, "payload": payload.decode("utf-8", "replace")})
        else:
            note(f"{topic}: {len(payload)} bytes that are no message of ours")


def _present(presence: Presence, as_json: bool) -> int:
    """Print which devices are there; 1 when one is not."""
    rows = presence.rows()
    if as_json:
        print_json(rows)
    for row in [] if as_json else rows:
        heard = "never" if row["heard_s"] is None else f"{row['heard_s']:.0f} s ago"
        print(f"{row['device']:20}  {row['is']:8}  heard of {heard}")
    return 1 if any(row["is"] != "online" for row in rows) else 0


def _audited(audit: Any, as_json: bool) -> int:
    """Print the account; 1 when something is missing."""
    from edge_agent.consumer.audit import as_json as plain

    rows = audit.rows()
    if as_json:
        print_json(plain(rows))
    else:
        heads = ("first", "last", "received", "twice", "declared", "missing")
        print(f"{'device':20}{'epoch':>12}" + "".join(f"{head:>10}" for head in heads))
        for row in rows:
            numbers = (row.first, row.last, row.received, row.duplicates, row.declared, row.missing)
            print(f"{row.device:20}{row.epoch:12}" + "".join(f"{number:10}" for number in numbers))
    return 1 if any(row.missing for row in rows) else 0
