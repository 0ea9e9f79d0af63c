"""The verb imagine: what a generative model holds to be usual, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.cli import arguments
from edge_agent.cli.say import print_json


def options(to: argparse.ArgumentParser) -> None:
    """The verb's options."""
    to.add_argument(
        "model", help="name or folder of a model that draws: of `train anomaly --method vae`, `train generator`"
    )
    to.add_argument("--out", type=Path, metavar="FILE", help="the sheet, .jpg or .png (MODEL-imagined.jpg)")
    to.add_argument("--count", type=arguments.count, default=64, help="pictures on it (64)")
    to.add_argument("--seed", type=int, default=0, help="another one draws others")
    to.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")


def imagine(args: argparse.Namespace) -> int:
    """Draw the sheet."""
    from edge_agent.errors import UsageError
    from edge_agent.workshop.imagine import imagine as draw

    if args.count > MOST:
        raise UsageError(f"--count {args.count}: {MOST} at most")
    out = args.out or Path(f"{Path(args.model).name}-imagined.jpg")
    if out.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise UsageError(f"--out {out}: give a name that ends in .jpg or .png")
    width, height = draw(args.model, out, args.count, args.seed)
    if args.json:
        print_json({"model": args.model, "file": str(out), "pictures": args.count, "width": width, "height": height})
    else:
        print(f"{out}: {args.count} pictures that {args.model} draws, {width}x{height}")
    return 0


MOST = 400
"""pictures of a sheet"""
