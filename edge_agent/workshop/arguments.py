"""The workshop's options, in a file that loads nothing; --json, --pull and --threads are those of every verb."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Callable
from pathlib import Path


def _number(least: float, most: float, what: str) -> Callable[[str], float]:
    """An option's type: a number between these; argparse.ArgumentTypeError for anything else."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(f'"{text}" is no number {what}')

    return read


share, _above_0 = _number(0, 1, "from 0 to 1"), _number(1e-9, 1e9, "above 0")


def count(text: str) -> int:
    """A number from 1 to a million; argparse.ArgumentTypeError for anything else."""
    if not text.isdigit() or not 0 < int(text) <= 10**6:
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 to 1000000')
    return int(text)


def _sizes(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and 32 <= int(part) <= 4096 for part in parts):
        raise argparse.ArgumentTypeError(f'"{text}" is no list of sides from 32 to 4096, as 256,320,416')
    return tuple(int(part) for part in parts)


METHODS = ("percentile", "full")
TARGETS = ("here", "x86-vnni", "x86", "arm", "any")


def quantize(parser: argparse.ArgumentParser) -> None:
    """Of `quantize`."""
    parser.add_argument("model", help="name, folder, float .onnx or .tflite")
    parser.add_argument(
        "--data", type=Path, required=True, help="pictures, video, lines of text; `recorded`: HOME/samples; `none`"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model and its report")
    parser.add_argument("--target", choices=("onnx", "tflite"), help="format (that of the float file; onnx)")
    parser.add_argument(
        "--for", choices=TARGETS, default="here", dest="cpu", help="processor that it is to serve on (here)"
    )
    parser.add_argument("--method", choices=METHODS, help="how activations get their ranges (percentile)")
    parser.add_argument("--bits", choices=("8", "7w"), default="8", help="7w: weights of 7 bits")
    parser.add_argument(
        "--form",
        choices=("static", "dynamic", "weights", "float16"),
        help="ranges from data, from each run, only weights, half floats (static; text: dynamic)",
    )
    parser.add_argument("--auto", action="store_true", help="find what must stay float, within --max-drop")
    parser.add_argument("--max-drop", type=share, default=0.01, help="accuracy that --auto may lose (0.01)")
    parser.add_argument(
        "--keep", nargs="+", default=[], metavar="NODE", help="nodes that stay float, layers as a whole"
    )
    parser.add_argument("--most", type=count, default=96, help="samples of --data at most, spread evenly (96)")
    parser.add_argument("--evaluate", type=Path, metavar="DATA", help="report on this (labelled) data instead")
    parser.add_argument("--workers", type=workers, default="1", metavar="N", help=f"of --auto: {WORKERS}")


def prune(parser: argparse.ArgumentParser) -> None:
    """Of `prune`."""
    parser.add_argument("model", help="name, folder or float .onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the pruned model and its report")
    parser.add_argument(
        "--data", type=Path, required=True, help="pictures or lines of text to fit and to measure on; `recorded`"
    )
    parser.add_argument("--sparsity", type=share, default=0.3, help="share of the weights that goes, 0..1 (0.3)")
    parser.add_argument("--steps", type=count, default=3, help="in which it is done (3)")
    parser.add_argument("--max-drop", type=share, help="accuracy that may be lost; the last step within it is kept")
    parser.add_argument("--most", type=count, default=64, help="samples of --data at most (64)")


def graph(parser: argparse.ArgumentParser) -> None:
    """Of `graph`."""
    parser.add_argument("model", help="name, folder or .onnx")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model and its report")
    parser.add_argument("--data", type=Path, help="pictures or text to compare on (default: what the agent carries)")
    parser.add_argument("--tflite", action="store_true", help="add TFLite files, made by onnx2tf")
    parser.add_argument("--onnx2tf", metavar="PROGRAM", help="where it is (default: on the PATH)")


def tune(parser: argparse.ArgumentParser) -> None:
    """Of `tune`."""
    parser.add_argument("model", help="name, folder, .onnx or .tflite")
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON, pictures, lines of text; `recorded`")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tuned model and its report")
    parser.add_argument("--max-ms", type=_above_0, help="milliseconds a sample may take (default: what it takes now)")
    parser.add_argument("--sizes", type=_sizes, help="sides of the input to try, e.g. 256,320,416 (default: 8 sizes)")
    parser.add_argument("--most", type=count, default=96, help="samples of --data at most, spread evenly (96)")
    parser.add_argument("--workers", type=workers, default="1", metavar="N", help=WORKERS)


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Of `evaluate`."""
    parser.add_argument("model", help="name, folder, .onnx or .tflite")
    parser.add_argument(
        "data",
        help="detectors: COCO JSON, or a folder (with instances.json in or above it); classifiers and autoencoders: a "
        "folder for each label (normal/ and others), or a table of file and label; text: .tsv, .csv, .iob",
    )
    parser.add_argument("--against", metavar="PARENT", help="the model whose answers are the truth (too)")
    parser.add_argument("--save", metavar="FOLDER", help="write the worst cases there")
    parser.add_argument("--limit", type=count, default=0, help="so many samples at most, spread evenly over DATA")
    parser.add_argument("--workers", type=workers, metavar="N", help=f"detectors: {WORKERS}")
    parser.add_argument("--score", type=share, help="pictures: lowest score that counts (detectors: default 0.001)")
    parser.add_argument("--iou", type=share, help="pictures: overlap above which NMS drops a box (default 0.65)")
    parser.add_argument("--labels", metavar="FILE", help="text: TOML, [labels], name = [example sentences]")
    parser.add_argument("--train", metavar="FILE", help="text: fit the labels on this table instead")
    parser.add_argument("--unknown", metavar="FILE", help="text: lines that fit no label")


WORKERS = "processes, or ray://HOST:10001, a Ray cluster whose machines have the same files at the same paths (1)"


def workers(text: str) -> str:
    """How many processes, or a Ray cluster."""
    if not re.fullmatch(r"[1-9]\d{0,2}|ray://[^\s/@]+:\d{1,5}", text):
        raise argparse.ArgumentTypeError(f'"{text}" is no number from 1 to 999, and no ray://HOST:PORT')
    return text
