"""The options of `edge-agent train generator`; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train generator`."""
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of crops, or pictures and films for --detector"
    )
    parser.add_argument("--detector", metavar="MODEL", help="cut what this detector finds out of --data, as edge-yolo")
    parser.add_argument("--every", type=int, default=1, help="look at every so-manieth frame (1)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (60)")
    parser.add_argument("--batch", type=int, default=32, help="pictures a step (32)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
