"""The options of `edge-agent train anomaly`."""

from __future__ import annotations

import argparse
from pathlib import Path

METHODS = ("mean", "pca", "patches", "vae")
"""the simplest first: of equals it serves"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train anomaly`."""
    says = "what is normal: a film, a .csv of numbers, a folder of pictures, films or .wav, or of normal/ and others"
    parser.add_argument("--data", type=Path, required=True, help=says)
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    parser.add_argument("--method", choices=("auto", *METHODS), default="auto", help="auto: what tells best (default)")
    says = "share of normal samples that may be called unusual (0.01)"
    parser.add_argument("--rate", type=float, default=0.01, help=says)
    parser.add_argument("--minutes", type=float, default=5.0, help="to train the autoencoder for, at most (5)")
    parser.add_argument("--code", type=int, default=16, help="numbers that a sample is made of, at most (16)")
    parser.add_argument("--seed", type=int, default=0)
