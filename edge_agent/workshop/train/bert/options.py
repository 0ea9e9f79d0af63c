"""The options of `edge-agent train bert`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train bert`."""
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="text: .txt or .xz files, or folders of them"
    )
    parser.add_argument("--teacher", default="minilm-l6-int8", help="model that encodes sentences (minilm-l6-int8)")
    parser.add_argument("--most", type=int, default=0, help="characters read of one file, whole documents (0: all)")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument("--start", help="an edge-bert to go on from, by name or folder; its vocabulary is kept")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training (60)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--vocabulary", type=int, default=8192, help="most word pieces (8192)")
    parser.add_argument("--texts", type=int, default=1_000_000, help="most texts that the teacher is asked (1000000)")
    parser.add_argument("--rows", type=int, help="sequences of 128 tokens in a batch (512 on a GPU, 16 on a CPU)")
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate (0.0015)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
