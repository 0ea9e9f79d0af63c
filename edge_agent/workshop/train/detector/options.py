"""What a training of edge-yolo is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.errors import UsageError

CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "bird", "cat", "dog"),
    *("bottle", "cup", "bowl", "chair", "couch", "potted plant", "dining table", "tv", "laptop", "book"),
)
"""what edge-yolo tells apart, unless --classes says otherwise; COCO's names"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train detector`."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data", type=Path, help="pictures, a video, or labels (COCO .json, YOLO folder, Pascal VOC, .csv)"
    )
    data.add_argument(
        "--from-samples", action="store_true", help="what this device kept and a person corrected (`samples take`)"
    )
    parser.add_argument("--labels", type=Path, help="COCO .json for some of the pictures of a folder")
    parser.add_argument("--part", default="0:1", help="share of the video or of the files to use, as 0:0.5 (0:1)")
    parser.add_argument("--teacher", help="model that labels the pictures (yolox-nano); none needed with labels")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the finished model")
    parser.add_argument(
        "--start", help="edge-yolo to go on from (our own), `teacher`: made from its weights, `none`: anew"
    )
    parser.add_argument("--width", type=float, default=1.0, help="share of edge-yolo's channels for those two (1)")
    parser.add_argument("--classes", help="names, with commas between them (those of --start)")
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, time before a --resume included (60)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--size", default="288x224", help="width x height or one side, multiples of 32 (288x224)")
    parser.add_argument("--batch", type=int, default=8, help="pictures a step (8)")
    parser.add_argument("--rate", type=float, help="peak learning rate (0.0001; 0.0003 from a teacher, 0.002 anew)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu or cuda (cuda where there is one)")
    parser.set_defaults(steps=None)


def check(args: argparse.Namespace) -> None:
    """Refuse options that cannot be, before anything is read. `part`, `size` and `classes` are read by now."""
    first, last = args.part
    for good, words in (
        (0 <= first < last <= 1, f"--part {first:g}:{last:g} is no share; give two numbers from 0 to 1, as 0:0.5"),
        (args.steps is not None if args.minutes is None else 0 < args.minutes < 1e5, "--minutes must be above 0"),
        (
            not any(side % 32 or not 64 <= side <= 1280 for side in args.size),
            f"--size {args.size[0]}x{args.size[1]}: each side must be a multiple of 32 from 64 to 1280",
        ),
        (
            1 <= args.batch <= 4096 and (args.rate is None or 0 < args.rate < 1),
            "--batch must be 1 or more, --rate above 0 and below 1",
        ),
        (args.data.exists(), f"--data {args.data}: no such file or folder"),
    ):
        if not good:
            raise UsageError(words)
