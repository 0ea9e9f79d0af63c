"""The verb archive: events of many devices out of a broker into a database."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import arguments
from edge_agent.cli.say import note, print_json
from edge_agent.cli.signals import stop_after, stop_on_signals
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from edge_agent.consumer.archive import Feed, Sink

FROM = "nats://host[:4222][/STREAM], or mqtt[s]://host[:port]"
TO = "postgresql://user@host/database, parquet:DIR, or duckdb:FILE"


def options(of: argparse.ArgumentParser) -> None:
    """The options of `edge-agent archive`."""
    of.add_argument("--from", dest="source", metavar="ADDRESS", help=FROM)
    of.add_argument("--to", required=True, metavar="ADDRESS", help=TO)
    of.add_argument("--compact", action="store_true", help="parquet: one file a day that is over, each event once")
    of.add_argument("--batch", type=arguments.count, default=1000, help="events a transaction or file (1000)")
    of.add_argument("--workers", default="1", metavar="N[-M]", help="processes: as many as the lag needs, N to M (1)")
    of.add_argument("--name", default="1", help="of this worker; one of MQTT keeps its session under it (1)")
    of.add_argument("--prefix", default="edge/v1", help="of MQTT (edge/v1)")
    of.add_argument("--username", help="who we are to an MQTT broker")
    of.add_argument("--broker-password-file", metavar="FILE", help="what holds that user's password")
    of.add_argument("--password-file", metavar="FILE", help="what holds the database's password, or credential:NAME")
    of.add_argument("--credentials", metavar="FILE", help="a .creds file of NATS")
    of.add_argument("--ca", metavar="PEM", help="the authority that signed the broker's certificate")
    of.add_argument("--cert", metavar="PEM", help="our certificate, where the broker wants one")
    of.add_argument("--key", metavar="PEM", help="and its private key")
    of.add_argument("--seconds", type=arguments.seconds, help="end by itself")
    of.add_argument("--json", action="store_true", help="print at the end what was kept, as one JSON object")


def archive(args: argparse.Namespace) -> int:
    """Keep events until a signal; 0. UsageError, LinkError where that cannot be."""
    import msgspec

    low, high = _span(args.workers)
    if args.compact:
        return _compacted(args)
    if not args.source:
        raise UsageError(f"give --from {FROM}")
    stop = stop_on_signals()
    stop_after(args.seconds, stop)
    if high > 1:
        return _led(args, low, high)
    from edge_agent.consumer.archive import keep

    feed, sink = _feed(args), _sink(args)
    note(f"{feed.where} -> {sink.where}")
    try:
        kept = keep(feed, sink, args.batch, stop, note)
    finally:
        feed.close()
        sink.close()
    told = msgspec.to_builtins(kept)
    if args.json:
        print_json(told)
    else:
        print(", ".join(f"{key} {value}" for key, value in told.items()))
    return 0


def _span(text: str) -> tuple[int, int]:
    """2 or 1-4. UsageError."""
    found = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < low <= high <= 64:
        raise UsageError(f"--workers {text}: give a number, or two as 1-4, up to 64")
    return low, high


def _compacted(args: argparse.Namespace) -> int:
    """Compact the days of a folder of Parquet files."""
    from edge_agent.consumer.duck import compact

    if args.source or not args.to.startswith("parquet:"):
        raise UsageError("--compact works on --to parquet:DIR, and reads from nowhere")
    told = compact(Path(args.to.removeprefix("parquet:")))
    if args.json:
        print_json([{"day": day, "before": before, "after": after} for day, before, after in told])
    else:
        print("\n".join(f"{day}: {before} rows, {after} events" for day, before, after in told) or "nothing to do")
    return 0


def _led(args: argparse.Namespace, low: int, high: int) -> int:
    """Run several workers, each this command with one."""
    from edge_agent.consumer.crew import Scale, lead

    if args.to.startswith("duckdb:"):
        raise UsageError("duckdb has one writer; --workers is for postgresql:// and parquet:")
    _sink(args).close()
    feed = _feed(args)

    def command(number: int) -> list[str]:
        return [sys.executable, "-m", "edge_agent", "archive", *_own(args), "--name", f"{args.name}-{number}"]

    stop = stop_on_signals()
    stop_after(args.seconds, stop)
    lead(command, Scale(low, high), feed.pending, stop, note)
    feed.close()
    return 0


def _own(args: argparse.Namespace) -> list[str]:
    """The options of one worker."""
    keys = ("to", "batch", "prefix", "username", "broker_password_file", "password_file", "credentials", "ca", "cert")
    given = {"from": args.source} | {key.replace("_", "-"): getattr(args, key) for key in (*keys, "key")}
    return [word for key, value in given.items() if value is not None for word in (f"--{key}", str(value))]


def _feed(args: argparse.Namespace) -> Feed:
    """Where events come from."""
    if args.source.startswith(("nats://", "tls://")):
        from edge_agent.consumer.nats import Login, Nats

        return Nats(args.source, Login(args.ca, args.cert, args.key, args.credentials))
    if args.source.startswith(("mqtt://", "mqtts://", "ws://", "wss://")):
        from edge_agent import config
        from edge_agent.consumer.shared import Shared

        keys = {"username": args.username, "password_file": args.broker_password_file, "prefix": args.prefix}
        given = {**keys, "ca": args.ca, "cert": args.cert, "key": args.key}
        mqtt = config.Mqtt(url=args.source, **{key: value for key, value in given.items() if value is not None})
        return Shared(config.checked_mqtt(mqtt, Path.cwd()), args.name)
    raise UsageError(f"--from {args.source}: give {FROM}")


def _sink(args: argparse.Namespace) -> Sink:
    """Where they go."""
    kind, _, rest = args.to.partition(":")
    if kind in ("postgresql", "postgres"):
        from edge_agent.consumer.postgres import Postgres

        return Postgres(args.to, args.password_file)
    if kind in ("parquet", "duckdb") and rest:
        from edge_agent.consumer.duck import DuckDb, Parquet

        return Parquet(Path(rest)) if kind == "parquet" else DuckDb(Path(rest))
    raise UsageError(f"--to {args.to}: give {TO}")
