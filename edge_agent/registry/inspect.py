"""What a bare .onnx or .tflite file is, read off the shapes of its tensors: family, layout, size, classes.

Each conclusion comes with its reason. What fits no known family is refused with what was seen. The numbers that no
shape can tell (channel order, scale, padding) are those that the family's own exporter uses.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_agent.errors import RefusedError
from edge_agent.manifest import Input, TextInput
from edge_agent.registry import carried
from edge_agent.types import Net, TensorSpec

MAX_METADATA = 1 << 20
COCO_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Of the ids 1..90 in COCO's annotations, those that no object has; models of the SSD family count with them."""
DYNAMIC_SIDE = 640
"""pixels taken for a detector whose input has no fixed size"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, in the manifest's terms."""

    task: Literal["detect", "encode"]
    family: str
    reasons: list[str]
    input: Input | None = None
    text: TextInput | None = None
    labels: list[str] = field(default_factory=list)
    class_ids: list[int] | None = None


def inspect(path: Path, net: Net) -> Seen:
    """Say what the network in this file is. Raises RefusedError, one line with the shapes, for no known family."""
    by_dims = [spec for spec in net.inputs if len(spec.shape) == 4]
    if len(net.inputs) == 1 and len(by_dims) == 1:
        return _detector(path, net)
    if any("ids" in spec.name for spec in net.inputs) and all(len(spec.shape) == 2 for spec in net.inputs):
        return _encoder(path, net)
    raise RefusedError(_unknown(path, net, "neither one picture nor token ids go in"))


# ── pictures ─────────────────────────────────────────────────────────────────────────────────────────────


def _detector(path: Path, net: Net) -> Seen:
    spec = net.inputs[0]
    reasons: list[str] = []
    _, a, b, c = spec.shape
    layout: Literal["NCHW", "NHWC"]
    if a == 3:
        layout, height, width = "NCHW", b, c
    elif c == 3:
        layout, height, width = "NHWC", a, b
    else:
        raise RefusedError(_unknown(path, net, "no axis of 3 colours in the input"))
    reasons.append(f"layout {layout}: input {spec.name} is {_shape(spec)}")
    if width is None or height is None:
        width = height = DYNAMIC_SIDE
        reasons.append(f"size {DYNAMIC_SIDE}x{DYNAMIC_SIDE}: the file leaves it open")
    family, classes, why = _head(net.outputs, width, height)
    if family is None:
        raise RefusedError(_unknown(path, net, why))
    reasons.append(f"family {family}: {why}")
    size = {"width": width, "height": height, "layout": layout}
    if family in ("yolox", "edge-yolo"):
        picture = Input(**size, channels="BGR", letterbox="top-left")  # type: ignore[arg-type]
        reasons.append("BGR 0..255, letterbox top-left on 114: as this family is trained")
    elif family == "ssd":
        plain = spec.dtype != "float32"
        centre = (0.0,) * 3 if plain else (127.5,) * 3
        spread = (1.0,) * 3 if plain else (127.5,) * 3
        picture = Input(**size, letterbox="stretch", mean=centre, std=spread)  # type: ignore[arg-type]
        reasons.append(f"RGB {'0..255' if plain else '-1..1'}, stretched: as this family is trained")
    else:
        picture = Input(**size, scale=1 / 255)  # type: ignore[arg-type]
        reasons.append("RGB 0..1, letterbox centred on 114: as this family is trained")
    labels, ids, why = _labels(path, family, classes)
    return Seen("detect", family, [*reasons, f"labels: {why}"], input=picture, labels=labels, class_ids=ids)


def cells(width: int, height: int, strides: tuple[int, ...] = (8, 16, 32)) -> int:
    """Grid cells of all levels of a detector's input."""
    return sum((width // s) * (height // s) for s in strides)


def _head(outputs: tuple[TensorSpec, ...], width: int, height: int) -> tuple[str | None, int, str]:
    """(family or None, classes (0: the shape does not say), why)."""
    named = {spec.name.split(":")[0]: spec for spec in outputs}
    if len(outputs) == 2 and {"boxes", "logits"} <= set(named):
        classes = named["logits"].shape[-1] or 0
        return "edge-yolo", classes, f"outputs boxes {_shape(named['boxes'])} and logits {_shape(named['logits'])}"
    if len(outputs) == 4:
        return "ssd", 0, "four outputs: boxes, classes, scores and count of the detection post-process"
    if len(outputs) != 1 or len(outputs[0].shape) != 3:
        return None, 0, "the outputs are of no head that is known"
    _, rows, columns = outputs[0].shape
    seen = f"output {_shape(outputs[0])}"
    plain = {cells(width, height), cells(width, height, (8, 16, 32, 64))}
    if columns == 6 and rows is not None and rows <= 1000 and rows not in plain:
        return "end2end", 0, f"{seen}: at most {rows} finished boxes with score and class"
    if columns is not None and columns > 5:
        if rows in plain:
            return "yolox", columns - 5, f"{seen}: one prediction a cell, box, objectness and {columns - 5} classes"
        if rows in {3 * n for n in plain}:
            return "yolov5", columns - 5, f"{seen}: three anchors a cell, box, objectness and {columns - 5} classes"
    if rows is not None and rows > 4 and (columns in plain or (columns is None and rows < 1000)):
        return "yolov8", rows - 4, f"{seen}: columns are cells, rows a box and {rows - 4} classes"
    return None, 0, f"{width}x{height} has {cells(width, height)} cells, which {seen} does not fit"


def _labels(path: Path, family: str, classes: int) -> tuple[list[str], list[int] | None, str]:
    """Names, reported ids (None: 0, 1, 2, ...) and where they come from."""
    names = onnx_names(path) if path.suffix == ".onnx" else {}
    if names and (not classes or set(names) == set(range(classes))):
        return [names[i] for i in sorted(names)], None, f"{len(names)} names in the file's metadata"
    if family == "ssd":
        used = iter(enumerate(coco80()))
        table = [(80 + i, f"unused {i}") if i in COCO_GAPS else next(used) for i in range(1, 91)]
        return [n for _, n in table], [i for i, _ in table], "the 90 of COCO, which this family's public models have"
    if classes == 80:
        return coco80(), None, "80 classes, taken for COCO's"
    if not classes:
        return coco80(), None, "the outputs do not say how many, taken for COCO's 80"
    return [f"class_{i}" for i in range(classes)], None, f"{classes} classes, no names in the file"


def coco80() -> list[str]:
    """COCO's 80 names in the order of the classes, from the catalogue."""
    return carried("models", "yolox-nano", "labels.txt").read_text().splitlines()


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────


def _encoder(path: Path, net: Net) -> Seen:
    reasons = [f"family bert: inputs {', '.join(spec.name for spec in net.inputs)}"]
    vectors = [spec.name for spec in net.outputs if len(spec.shape) == 2 and "embedding" in spec.name]
    hidden = [spec for spec in net.outputs if len(spec.shape) == 3]
    if vectors:
        pooling, why = f"output:{vectors[0]}", f"output {vectors[0]} is one vector a text"
    elif hidden:
        pooling, why = "mean", f"output {hidden[0].name} {_shape(hidden[0])} has one vector a token"
    else:
        raise RefusedError(_unknown(path, net, "token ids go in, but no output is a vector a token or a text"))
    reasons.append(f"pooling {pooling}: {why}")
    length = next((spec.shape[1] for spec in net.inputs if spec.shape[1] is not None), 512)
    reasons.append(f"max_length {length}: {'fixed by the input' if length != 512 else 'of BERT'}")
    for name, key in (("tokenizer.json", "tokenizer"), ("vocab.txt", "vocab")):
        if path.with_name(name).is_file():
            text = TextInput(pooling=pooling, max_length=length, **{key: name})  # type: ignore[arg-type]
            return Seen("encode", "bert", [*reasons, f"{key}: {name} beside the file"], text=text)
    raise RefusedError(f"{path}: a text encoder, but no tokenizer.json or vocab.txt beside it; put it there")


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _shape(spec: TensorSpec) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in spec.shape) + "]"


def _unknown(path: Path, net: Net, why: str) -> str:
    def side(specs: tuple[TensorSpec, ...]) -> str:
        return ", ".join(f"{s.name} {_shape(s)} {s.dtype}" for s in specs[:6]) + (" …" if len(specs) > 6 else "")

    return (
        f"{path}: no known family: {why} (in: {side(net.inputs)}; out: {side(net.outputs)});"
        " write a manifest.toml beside it"
    )


# ── the names that exporters leave in an ONNX file ───────────────────────────────────────────────────────


def onnx_names(path: Path) -> dict[int, str]:
    """Class index -> name from the ``names`` entry of a ModelProto's metadata_props; empty when there is none.

    Format: onnx.proto, ModelProto field 14 = StringStringEntryProto {1: key, 2: value}; only top-level fields are
    stepped over, so the weights are never read. The value is a Python or JSON dict, as Ultralytics writes it.
    """
    try:
        entries = dict(_metadata(path))
        table = ast.literal_eval(entries.get("names", "{}"))
    except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    if isinstance(table, list):
        table = dict(enumerate(table))
    if not isinstance(table, dict):
        return {}
    names = {int(k): str(v) for k, v in table.items() if re.fullmatch(r"\d{1,5}", str(k))}
    return names if set(names) == set(range(len(names))) else {}


def _metadata(path: Path) -> Iterator[tuple[str, str]]:
    """The metadata_props of an ONNX file. ValueError where it is no protobuf."""
    size = path.stat().st_size
    with path.open("rb") as file:

        def varint() -> int:
            value = 0
            for shift in range(0, 70, 7):
                byte = file.read(1)
                if not byte:
                    raise ValueError("cut short")
                value |= (byte[0] & 0x7F) << shift
                if byte[0] < 0x80:
                    return value
            raise ValueError("no varint")

        while file.tell() < size:
            tag = varint()
            if tag & 7 == 0:
                varint()
            elif tag & 7 == 2:
                length = varint()
                end = file.tell() + length
                if tag >> 3 == 14 and length <= MAX_METADATA:
                    parts = {}
                    while file.tell() < end:
                        key, n = varint() >> 3, varint()
                        parts[key] = file.read(min(n, MAX_METADATA)).decode(errors="replace")
                    yield parts.get(1, ""), parts.get(2, "")
                file.seek(end)
            else:
                file.seek(8 if tag & 7 == 1 else 4, 1)
