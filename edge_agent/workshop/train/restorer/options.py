"""The options of `edge-agent train restorer`; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train restorer`."""
    parser.add_argument("--text", type=Path, required=True, help="sentences to draw, one a line")
    parser.add_argument("--fonts", type=Path, required=True, help="folder of .ttf and .otf files to draw them with")
    parser.add_argument("--reader", default="ocr", metavar="MODEL", help="the model that is to read it (ocr)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--lines", type=int, default=9000, help="lines to draw (9000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (60)")
    parser.add_argument("--batch", type=int, default=8, help="lines a step (8)")
    parser.add_argument("--pixels", type=float, default=0.5, help="weight of the difference from the clean line (0.5)")
    parser.add_argument("--adversarial", type=float, default=0.0, help="weight of what a critic says, as 0.02 (0)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
