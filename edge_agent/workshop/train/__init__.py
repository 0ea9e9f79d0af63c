"""The recipes that made the models in `models/`, for your own pictures and text; PyTorch is imported late."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
from collections.abc import Callable

from edge_agent.errors import UsageError
from edge_agent.workshop.report.folder import WORK, work
from edge_agent.workshop.train import options

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "detector": ("an edge-yolo from your own pictures", ("torch", "onnx", "litert_quantizer")),
    "bert": ("an edge-bert from your own text", ("torch", "onnx", "tokenizers", "litert_quantizer")),
    "tagger": ("a tagger from your own marked sentences, on an edge-bert", ("torch", "onnx")),
    "anomaly": ("what is usual, from your own pictures, sound or numbers", ("onnx",)),
    "generator": ("a network that draws pictures like your camera's crops", ("torch", "onnx")),
    "restorer": ("a network that makes small print readable", ("torch", "onnx")),
}
"""kind -> what it makes, and the modules that it needs; options.py has its options, KIND/recipe.py does it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`edge-agent train KIND` with the options of each kind."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for kind, (makes, _) in KINDS.items():
        options.add_arguments(kinds.add_parser(kind, help=makes), kind)


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Train what `args.kind` says, alone in `args.out`; 0 when the model folder is written.

    UsageError where something that it needs is missing, RefusedError for a ruin and where the gate takes no file.
    """
    need("training", *KINDS[args.kind][1])
    try:
        with work(args.out):
            code: int = importlib.import_module(f"{__name__}.{args.kind}.recipe").run(args, say)
            return code
    finally:
        with contextlib.suppress(OSError):
            (args.out / WORK).rmdir()


def need(what: str, *modules: str) -> None:
    """UsageError that names the extra, where `what` needs a module that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            extra = "workshop" if module in ("onnx", "pycocotools") else "train"
            raise UsageError(f'{what} needs {module}: pip install "edge-agent-runtime[{extra}]"')
