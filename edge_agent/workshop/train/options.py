"""The options of each kind of training; nothing heavy is imported here."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

METHODS = ("mean", "pca", "patches", "vae")
"""of what is usual, the simplest first: of equals it serves"""
Option = tuple[str, dict[str, Any]]


def _option(name: str, says: str | None = None, default: Any = None, **more: Any) -> Option:
    """One that takes what its default is, or words."""
    kind = {} if default is None or "action" in more else {"type": type(default)}
    return name, {**kind, "default": default, "help": says, **more}


OUT = _option("--out", "folder for checkpoints and the finished model", type=Path, required=True)
MINUTES = _option("--minutes", "of training, time before a --resume included (60)", 60.0)
RESUME = _option("--resume", "go on from the checkpoint in --out", False, action="store_true")
DEVICE = _option("--device", "cpu or cuda (cuda where there is one)")
SEED = _option("--seed", default=0)
LONG = (OUT, MINUTES, RESUME, DEVICE)

OPTIONS: dict[str, tuple[Option, ...]] = {
    "detector": (
        _option("--data", "pictures, a video, or labels (COCO .json, YOLO folder, Pascal VOC, .csv)", type=Path),
        _option(
            "--from-samples",
            "in place of --data: what this device kept and a person corrected (`samples take`)",
            False,
            action="store_true",
        ),
        _option("--labels", "COCO .json for some of the pictures of a folder", type=Path),
        _option("--part", "share of the video or of the files to use, as 0:0.5 (0:1)", "0:1"),
        _option("--teacher", "model that labels the pictures (yolox-nano); none needed with labels"),
        _option(
            "--start", "edge-yolo to go on from (our own), `teacher`: made from its weights, `none`: anew", "edge-yolo"
        ),
        _option("--width", "share of edge-yolo's channels for `none` (1)", 1.0),
        _option("--classes", "names, with commas between them (those of --start)"),
        _option("--size", "width x height or one side, multiples of 32 (288x224)", "288x224"),
        _option("--batch", "pictures a step (8)", 8),
        _option("--rate", "peak learning rate (0.0001; 0.0003 from a teacher, 0.002 anew)", type=float),
        *LONG,
        SEED,
    ),
    "bert": (
        _option("--data", "text: .txt or .xz files, or folders of them", type=Path, nargs="+", required=True),
        _option("--teacher", "model that encodes sentences (minilm-l6-int8)", "minilm-l6-int8"),
        _option("--most", "characters read of one file, whole documents (0: all)", 0),
        _option("--start", "an edge-bert to go on from, by name or folder; its vocabulary is kept"),
        _option("--vocabulary", "most word pieces (8192)", 8192),
        _option("--texts", "most texts that the teacher is asked (1000000)", 1_000_000),
        _option("--rows", "sequences of 128 tokens in a batch (512 on a GPU, 16 on a CPU)", type=int),
        _option("--rate", "peak learning rate (0.0015)", 1.5e-3),
        *LONG,
        _option("--seed", default=1),
    ),
    "tagger": (
        _option(
            "--data", "marked sentences: .tsv with [slot : words], .conll, .iob", type=Path, nargs="+", required=True
        ),
        _option("--start", "an edge-bert, by name or folder (edge-bert)", "edge-bert"),
        _option("--epochs", "rounds over the sentences (40)", 40),
        _option("--rows", "sentences a step (32)", 32),
        _option("--rate", "peak learning rate (0.0004)", 4e-4),
        OUT,
        RESUME,
        _option("--seed", default=1),
    ),
    "anomaly": (
        _option(
            "--data",
            "what is normal: a film, a .csv of numbers, a folder of pictures, films or .wav, or of normal/ and others",
            type=Path,
            required=True,
        ),
        _option("--method", "auto: what tells best (default)", "auto", choices=("auto", *METHODS)),
        _option("--rate", "share of normal samples that may be called unusual (0.01)", 0.01),
        _option("--minutes", "to train the autoencoder for, at most (5)", 5.0),
        _option("--code", "numbers that a sample is made of, at most (16)", 16),
        OUT,
        SEED,
    ),
    "generator": (
        _option("--data", "folder of crops, or pictures and films for --detector", type=Path, required=True),
        _option("--detector", "cut what this detector finds out of --data, as edge-yolo", metavar="MODEL"),
        _option("--every", "look at every so-manieth frame (1)", 1),
        _option("--batch", "pictures a step (32)", 32),
        *LONG,
        SEED,
    ),
    "restorer": (
        _option("--text", "sentences to draw, one a line", type=Path, required=True),
        _option("--fonts", "folder of .ttf and .otf files to draw them with", type=Path, required=True),
        _option("--reader", "the model that is to read it (ocr)", "ocr", metavar="MODEL"),
        _option("--lines", "lines to draw (9000)", 9000),
        _option("--batch", "lines a step (8)", 8),
        *LONG,
        SEED,
    ),
}


def add_arguments(parser: argparse.ArgumentParser, kind: str) -> None:
    """The options of `edge-agent train KIND`."""
    parser.set_defaults(kind=kind)
    for name, how in OPTIONS[kind]:
        parser.add_argument(name, **how)
