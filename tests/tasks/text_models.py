"""A real, tiny text encoder made here: an ONNX file whose token vectors are random, so a sentence is a bag of words."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_agent.backends import open_net
from edge_agent.manifest import File, Manifest, Served, TextInput
from edge_agent.registry import catalogue, files
from edge_agent.types import ModelRef

WIDTH = 48
SPELLED = """
[PAD] [UNK] [CLS] [SEP] [MASK] the a is it in on to of and what will switch turn make play set lamp light bright dark
song music loud band rain snow storm sunny cold warm timer minute hour wake film book prime minister goal river cheese
. , ! ? - ' é ü 東 京 un ##able ##ed ##ing ##s ##er hello world cafe naive straße
"""
WORDS = SPELLED.split() + [f"{p}{c}" for p in ("", "##") for c in "abcdefghijklmnopqrstuvwxyz0123456789"]
EXAMPLES = {
    "light": ["switch the lamp on", "turn the light on", "make it bright", "it is dark", "lamp light", "bright lamp"],
    "music": ["play a song", "play the band", "music loud", "make the music loud", "what song is it", "band music"],
    "weather": ["will it rain", "is it cold", "snow and storm", "rain or snow", "is it warm", "storm and rain"],
}


def vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    return path


def bert(
    folder: Path,
    *,
    batch: int | None = None,
    length: int | None = None,
    types: bool = True,
    dtype: int = TensorProto.INT64,
    poison: bool = False,
    half: bool = False,
    names: list[str] | None = None,
    **text: Any,
) -> Served:
    """Build and serve it. Outputs: hidden [B, L, H] (token vectors, times 3), first [B, H] (that of [CLS]).

    `half`: float16 throughout; `names`: of ids, mask and types, as many as it is to have.
    """
    table = np.random.default_rng(7).standard_normal((len(WORDS), WIDTH)).astype(np.float32)
    # what stands in every sentence says nothing
    table[: WORDS.index("and") + 1] *= 0.05
    if poison:
        table[WORDS.index("rain")] = np.nan
    dims = [batch or "B", length or "L"]
    names = names or ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    width = np.float16 if half else np.float32
    element = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    parts = {"table": table.astype(width), "three": width(3), "zero": np.array(0, np.int64)}
    nodes = [
        helper.make_node("Gather", ["table", names[0]], ["tokens"]),
        helper.make_node("Mul", ["tokens", "three"], ["hidden"]),
        helper.make_node("Gather", ["hidden", "zero"], ["first"], axis=1),
    ]
    nodes += [helper.make_node("Cast", [name], [f"unused {name}"], to=TensorProto.FLOAT) for name in names[1:]]
    graph = helper.make_graph(
        nodes,
        "toy-bert",
        [helper.make_tensor_value_info(name, dtype, dims) for name in names],
        [
            helper.make_tensor_value_info("hidden", element, [*dims, WIDTH]),
            helper.make_tensor_value_info("first", element, [dims[0], WIDTH]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in parts.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "bert.onnx"
    onnx.save(model, str(path))
    words = vocabulary(folder)
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest = Manifest(
        name="toy-bert",
        version="1",
        task="encode",
        family="bert",
        licence="CC0-1.0",
        trained_by="nobody",
        file=[File("bert.onnx", "onnx", sha, path.stat().st_size)],
        text=TextInput(vocab="vocab.txt", **{"max_length": 32, **text}),
    )
    return Served(
        manifest, ModelRef("toy-bert", "1", sha), open_net(path, "onnx", 1), {"vocab": words}, None, "made here"
    )


def registered(name: str) -> Served:
    """A model of the registry, ready to serve."""
    located = catalogue.locate(name)
    row = located.manifest.networks()[0]
    parts = {r.role: files.file_path(located, r) for r in located.manifest.file if r.format == "text"}
    ref = ModelRef(located.manifest.name, located.manifest.version, row.sha256)
    net = open_net(files.file_path(located, row), row.format)
    return Served(located.manifest, ref, net, parts, None, located.why)


def labels_file(path: Path, table: dict[str, list[str]]) -> Path:
    lines = [f"{name} = [{', '.join(repr(s) for s in sentences)}]" for name, sentences in table.items()]
    path.write_text("[labels]\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path
