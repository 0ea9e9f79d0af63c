"""The recipes that made the models in `models/`, for your own pictures and text; PyTorch is imported late."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from edge_agent.errors import UsageError

MORE = {
    "anomaly": "what is usual, from your own pictures, sound or numbers",
    "generator": "a network that draws pictures like your camera's crops",
    "restorer": "a network that makes small print readable",
}
"""kinds whose options stand in `options.py` of their folder, what they do in `recipe.py`"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`edge-agent train KIND` with the options of each kind."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    detector = kinds.add_parser("detector", help="an edge-yolo from your own pictures")
    _detector_arguments(detector)
    bert = kinds.add_parser("bert", help="an edge-bert from your own text")
    from edge_agent.workshop.train.bert import recipe

    recipe.add_arguments(bert)
    tagger = kinds.add_parser("tagger", help="a tagger from your own marked sentences, on an edge-bert")
    from edge_agent.workshop.train.tagger import recipe as tagger_recipe

    tagger_recipe.add_arguments(tagger)
    for kind, says in MORE.items():
        options = importlib.import_module(f"{__name__}.{kind}.options")
        options.add_arguments(kinds.add_parser(kind, help=says))


def run(args: argparse.Namespace, say: Callable[[str], None]) -> int:
    """Train what `args.kind` says; 0 when the model folder is written. UsageError where PyTorch is missing."""
    # of what is usual, more than one candidate needs no PyTorch
    need("training", *(["torch"] if args.kind != "anomaly" else []), "onnx")
    if args.kind == "detector":
        from edge_agent.workshop.train.detector import recipe as detector_recipe

        return detector_recipe.run(args, say)
    if args.kind == "tagger":
        from edge_agent.workshop.train.tagger import recipe as tagger_recipe

        return tagger_recipe.run(args, say)
    if args.kind in MORE:
        code: int = importlib.import_module(f"{__name__}.{args.kind}.recipe").run(args, say)
        return code
    from edge_agent.workshop.train.bert import recipe as bert_recipe

    return bert_recipe.run(args, say)


def need(what: str, *modules: str) -> None:
    """UsageError that names the extra, where `what` needs a module that is not installed."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            extra = "workshop" if module in ("onnx", "pycocotools") else "train"
            raise UsageError(f'{what} needs {module}: pip install "edge-agent-runtime[{extra}]"')


def _detector_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-agent train detector`."""
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--data", type=Path, help="folder of pictures, video, or COCO .json by its images")
    data.add_argument(
        "--from-samples", action="store_true", help="what this device kept and a person corrected (`samples take`)"
    )
    parser.add_argument("--labels", type=Path, help="COCO .json for some of the pictures of a folder")
    parser.add_argument("--part", default="0:1", help="share of the video or of the files to use, as 0:0.5 (0:1)")
    parser.add_argument("--teacher", help="model that labels the pictures (yolox-nano); none needed with a COCO .json")
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
