"""The options of `edge-agent train tagger`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train tagger`."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="marked sentences: .tsv with [slot : words], .conll, .iob"
    )
    parser.add_argument("--start", default="edge-bert", help="an edge-bert, by name or folder (edge-bert)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument("--epochs", type=int, default=40, help="rounds over the sentences (40)")
    parser.add_argument("--rows", type=int, default=32, help="sentences a step (32)")
    parser.add_argument("--rate", type=float, default=4e-4, help="peak learning rate (0.0004)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--seed", type=int, default=1)
