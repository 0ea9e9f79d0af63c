"""The verb `describe`: what a config will cost, before it runs."""

from __future__ import annotations

import argparse

from edge_agent.cli.given import config_of
from edge_agent.errors import UsageError


def options(describe: argparse.ArgumentParser) -> None:
    """Its options."""
    describe.add_argument("-c", "--config", help="the config (default: the service's)")
    describe.add_argument("--events", type=float, default=60.0, metavar="N", help="events an hour of a pipeline (60)")
    describe.add_argument("--fps", type=float, default=10.0, help="of a camera that does not say (10)")
    describe.add_argument("--json", action="store_true", help="print JSON only")


def describe(args: argparse.Namespace) -> int:
    """Print the figures."""
    import msgspec

    from edge_agent import config
    from edge_agent.agent.describe import describe
    from edge_agent.agent.line import make_line
    from edge_agent.serving.models import Models

    if args.events < 0 or not 0 < args.fps <= 1000:
        raise UsageError("--events is at least 0, --fps above 0")
    path = config_of(args)
    loaded = config.load(path)
    with config.of(path):
        models = Models(threads=loaded.device.threads)
        ear = (lambda topics, receive: None) if loaded.mqtt.url else None
        lines = [make_line(pipe, models, ear, zones=loaded.zone) for pipe in loaded.pipeline]
        found = describe(loaded, lines, models.lane.cores, events_an_hour=args.events, fps=args.fps)
    if args.json:
        print(msgspec.json.encode(found).decode())
        return 0
    for one in found.pipelines:
        rate = f"{one['per_second']:.3g}/s of {one['ms']} ms, {one['cores']} cores"
        print(f"{one['name']}: {rate}, {one['events_a_day']:.0f} events a day")
    print(f"processor: {found.cores:.2f} of {found.cores_here} cores; {found.heat}")
    print(f"memory: {found.memory_mb:.0f} MB")
    by = ", ".join(f"{what} {size / 1e6:.2f}" for what, size in found.bytes_by.items())
    print(f"sent: {found.bytes_a_day / 1e6:.2f} MB a day in {found.messages_a_day} messages ({by or 'no broker'})")
    print(f"written: {found.disk_bytes_a_day / 1e6:.2f} MB a day")
    for word in found.assumed:
        print(f"assumed: {word}")
    return 0
