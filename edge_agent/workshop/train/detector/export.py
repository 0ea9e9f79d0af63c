"""A trained edge-yolo as a model folder: ONNX and TFLite, float and int8, labels and manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from edge_agent.backends.onnx import multiply_exactly
from edge_agent.errors import ModelError
from edge_agent.inspect.names import coco80
from edge_agent.manifest import Input, Manifest
from edge_agent.workshop.train.detector.augment import Picture, plain
from edge_agent.workshop.train.detector.graph import NAME, Size, Tensors, to_onnx
from edge_agent.workshop.train.detector.int8 import equalized, ranges, to_int8
from edge_agent.workshop.train.detector.tflite import to_tflite
from edge_agent.workshop.train.finish import row

Say = Callable[[str], None]
AGREES = 1e-3
"""the most by which the float files may differ from each other, in strides and in logits"""


def write_model(
    tensors: Tensors,
    classes: tuple[str, ...],
    size: Size,
    pictures: Sequence[Picture],
    out: Path,
    say: Say,
) -> Manifest:
    """Write model.onnx, model.int8.onnx, model.fp16.tflite, model.int8.tflite and labels.txt to `out`; the manifest.

    `tensors` as of `net.folded_copy`, `pictures`: for the int8 ranges.

    Raises ModelError where the float files do not agree with each other.
    """
    shown = [_tensor(picture, size) for picture in pictures]
    tensors = equalized(tensors, size, shown)
    model = to_onnx(tensors, size)
    files: dict[str, tuple[bytes, str]] = {
        "model.onnx": (model.SerializeToString(), "fp32"),
        "model.int8.onnx": (to_int8(model, shown).SerializeToString(), "int8"),
        "model.fp16.tflite": (to_tflite(tensors, size, "fp16"), "fp16"),
        "model.int8.tflite": (to_tflite(tensors, size, "int8", ranges(model, shown)), "int8"),
    }
    apart = difference(
        run_onnx(files["model.onnx"][0], shown[0]), run_tflite(to_tflite(tensors, size, "fp32"), shown[0])
    )
    if not apart < AGREES:
        raise ModelError(f"the TFLite file answers otherwise than the ONNX file (by {apart:.2g}); nothing was written")
    for file, (data, _) in files.items():
        (out / file).write_bytes(data)
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in classes), encoding="utf-8")
    say(f"TFLite differs from ONNX by {apart:.1g}")
    return _manifest(classes, size, {file: precision for file, (_, precision) in files.items()})


def _manifest(classes: tuple[str, ...], size: Size, files: Mapping[str, str]) -> Manifest:
    """`files`: name -> precision."""
    known = coco80()
    rows = []
    for file, precision in files.items():
        of_tflite = file.endswith(".tflite")
        one = row(file, "tflite" if of_tflite else "onnx", precision)
        rows.append(msgspec.structs.replace(one, layout="NHWC") if of_tflite else one)
    return Manifest(
        name="edge-yolo",
        version="1",
        task="detect",
        family="edge-yolo",
        licence="Apache-2.0",
        trained_by="edge-agent",
        description=f"a detector of {len(classes)} classes for small boards, {size[0]} x {size[1]} pixels",
        labels="labels.txt",
        class_ids=[known.index(c) for c in classes] if set(classes) <= set(known) else None,
        score=0.3,
        iou=0.5,
        input=Input(*size, layout="NCHW", channels="BGR", letterbox="top-left", pad=114),
        file=rows,
    )


def _tensor(picture: Picture, size: Size) -> npt.NDArray[np.float32]:
    """(1, 3, height, width) as at inference."""
    return np.ascontiguousarray(plain(picture, size)[0].transpose(2, 0, 1)[None], np.float32)


Outputs = dict[str, npt.NDArray[np.float32]]


def run_onnx(model: bytes, picture: npt.NDArray[np.float32]) -> Outputs:
    """boxes and logits of an ONNX file for `picture` (1, 3, height, width)."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    multiply_exactly(options)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip(["boxes", "logits"], session.run(["boxes", "logits"], {"images": picture}), strict=True))


def run_tflite(model: bytes, picture: npt.NDArray[np.float32]) -> Outputs:
    """boxes and logits of a TFLite file for `picture` (1, 3, height, width)."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    interpreter.set_tensor(source, np.ascontiguousarray(picture.transpose(0, 2, 3, 1)))
    interpreter.invoke()
    return {detail["name"]: interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()}


def difference(a: Outputs, b: Outputs) -> float:
    """The greatest difference of two sets of outputs."""
    return max(float(np.abs(a[name] - b[name]).max()) for name in ("boxes", "logits"))


def tensors_of(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The network's tensors out of a model.onnx that `write_model` wrote. Raises ModelError for any other file."""
    from edge_agent.workshop.train.detector.graph import tensors_of as read
    from edge_agent.workshop.train.detector.teacher import load_onnx

    model: onnx.ModelProto = load_onnx(path)
    if model.graph.name != NAME:
        raise ModelError(f"{path} is no float edge-yolo of version 2, so a training cannot start from it")
    return read(model)
