"""How a file is refused: families that are known and not served, and networks of no known family."""

from __future__ import annotations

from edge_agent.errors import RefusedError
from edge_agent.families.guess import shape
from edge_agent.graphs.graph import clean
from edge_agent.inspect import names
from edge_agent.inspect.kinds import Kind
from edge_agent.inspect.model_file import ModelFile
from edge_agent.manifest import Seen
from edge_agent.types import TensorSpec

WHAT = {
    "detect": ("a detector", "export it again with its decoding in the graph"),
    "fill": ("guesses masked words", "export it together with its encoder"),
    "follows": ("says whether one sentence follows another", "export it together with its encoder"),
    "tag": ("tags words", "export it together with its encoder"),
    "segment": ("says something of every place in a picture", ""),
    "read": (
        "reads a line of text in a picture",
        "one of PP-OCR is added as a folder, with the network that finds lines and a manifest.toml like models/ocr",
    ),
    "hear": ("tells speech from silence", ""),
    "recognise": ("tells classes apart", ""),
}
"""task -> what such a network does, and what may be done about it"""
DECODED = {
    "-obb": "its boxes are turned; train a detector of upright ones",
    "-pose": "its points are not read; train a detector of boxes",
    "-seg": "its masks are not read; train a detector of boxes",
}
"""end of a family's name -> what may be done about one that has its decoding in the graph"""
SERVED = (
    "YOLOX, YOLOv5 to v12, YOLO26, DETR, RT-DETR, NanoDet, PicoDet, SSD, edge-yolo, BERT, a classifier or an "
    "autoencoder"
)


def not_served(file: ModelFile, kind: Kind, *also: str) -> Seen:
    """A family that is known and cannot be run. `also`: what else is to be said of the file."""
    found, where = names.stated(file.graph, file.path)
    fits = bool(found) and len(found) == kind.classes
    reasons = [f"family {kind.family}: {kind.why}", *also, *([f"labels: {where}"] if fits else [])]
    what, mend = WHAT.get(kind.task, ("", ""))
    mend = next((instead for ending, instead in DECODED.items() if kind.family.endswith(ending)), mend)
    mend = mend or "serve it with a task of your own (theirpkg.module:attr)"
    refusal = (
        f"{file.path}: {kind.family}{f' ({what})' if what else ''}, {kind.why}; edge-agent cannot run this family: "
        f"{mend}, or take one of {SERVED}"
    )
    return Seen(kind.task, kind.family, reasons, labels=found if fits else [], refusal=refusal)


def unknown(file: ModelFile, why: str) -> RefusedError:
    """The error for a network of no known family, with the shapes of what goes in and out."""
    return RefusedError(
        f"{file.path}: no known family: {why} (in: {_ends(file.net.inputs)}; out: {_ends(file.net.outputs)});"
        " write a manifest.toml beside it"
    )


def _ends(specs: tuple[TensorSpec, ...]) -> str:
    shown = ", ".join(f"{clean(s.name, 40)} {shape(s)} {s.dtype}" for s in specs[:6])
    return shown + (" …" if len(specs) > 6 else "")
