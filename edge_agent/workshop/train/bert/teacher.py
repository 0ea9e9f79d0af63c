"""The teacher of the sentence vector: any sentence encoder of the registry's form, e.g. all-MiniLM-L6-v2.

Its weights are read from the ONNX file by their names and run by PyTorch, on a GPU or in bfloat16 several times as
fast, once this has been seen to give the same vectors; where it does not, onnxruntime runs the file.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError
from edge_agent.workshop.train.bert.data import Corpus
from edge_agent.workshop.train.bert.vocab import bulk_tokenizer

if TYPE_CHECKING:
    import onnx

Vectors = Callable[[list[str]], NDArray[np.float32]]
LONGEST = 128
TRIAL = ["turn on the lights in the kitchen", "A photon has no mass.", "Yes.", "He went home, and nobody asked why."]


@dataclass(frozen=True)
class TeacherParts:
    """The files of a teacher."""

    network: Path
    tokens: Path
    json: bool
    """whether `tokens` is a tokenizer.json; else a vocab.txt"""
    pooling: str
    """as in a manifest: mean, cls or output:NAME"""


def parts(model: str) -> TeacherParts:
    """The ONNX encoder of a model (name in the registry, or folder), fetched where it can be; raises ModelError."""
    from edge_agent.registry import catalogue
    from edge_agent.registry.files import file_path

    located = catalogue.locate(model, pull=True)
    text, rows = located.manifest.text, located.manifest.file
    networks = [f for f in located.manifest.networks() if f.format == "onnx"]
    words = [f for f in rows if f.role in ("tokenizer", "vocab")]
    if located.manifest.task != "encode" or text is None or not networks or not words:
        raise ModelError(
            f"{model}: a teacher for text is an encoder with an ONNX file and its vocabulary; this is none"
        )
    files = [file_path(located, row, pull=True) for row in (networks[0], words[0])]
    return TeacherParts(files[0], files[1], words[0].role == "tokenizer", text.pooling)


def by_file(p: TeacherParts, threads: int = 0) -> Vectors:
    """texts -> (n, E) float32 of length 1, by onnxruntime; `threads` 0 takes all."""
    tokenizer, run = _tokenizer(p), _session(p, threads)
    return lambda texts: _in_batches(tokenizer, texts, 32, run)


def teacher(p: TeacherParts, device: str) -> Vectors:
    """As `by_file`, or by PyTorch where that gives the same."""
    slow = by_file(p)
    by_torch = _on_device(p.network, device) if p.pooling == "mean" else None
    if by_torch is None:
        return slow
    tokenizer, size = _tokenizer(p), 1024 if device.startswith("cuda") else 32

    def fast(texts: list[str]) -> NDArray[np.float32]:
        return _in_batches(tokenizer, texts, size, by_torch)

    same = (fast(TRIAL) * slow(TRIAL)).sum(1).min() > 0.995
    return fast if same else slow


def _tokenizer(p: TeacherParts) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(p.tokens)) if p.json else bulk_tokenizer(p.tokens)
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer


def _in_batches(
    tokenizer: Any, texts: list[str], size: int, run: Callable[[NDArray[np.int64]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Runs texts of like length together; ids are (n, L) int64 with 0 as padding."""
    ids = [e.ids for e in tokenizer.encode_batch_fast(texts)]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    found: list[NDArray[np.float32]] = []
    for at in range(0, len(order), size):
        batch = [ids[i] for i in order[at : at + size]]
        table = np.zeros((len(batch), len(batch[-1])), np.int64)
        for row, words in zip(table, batch, strict=True):
            row[: len(words)] = words
        found.append(run(table))
    vectors = np.concatenate(found)
    back = np.empty_like(vectors)
    back[order] = vectors
    return back


def _session(p: TeacherParts, threads: int) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    import onnxruntime

    pooling, options = p.pooling, onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(p.network), options, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    output = pooling.removeprefix("output:") if pooling.startswith("output:") else session.get_outputs()[0].name

    def run(ids: NDArray[np.int64]) -> NDArray[np.float32]:
        seen = (ids != 0).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": seen, "token_type_ids": np.zeros_like(ids)}
        out = session.run([output], {k: v for k, v in feed.items() if k in wanted})[0]
        if out.ndim == 3:
            here = seen[:, :, None].astype(np.float32)
            out = out[:, 0] if pooling == "cls" else (out * here).sum(1) / here.sum(1)
        vectors: NDArray[np.float32] = out / np.linalg.norm(out, axis=1, keepdims=True).clip(1e-9)
        return vectors

    return run


def read_weights(network: Path) -> dict[str, NDArray[np.float32]] | None:
    """The weights of a BERT in an ONNX file under the names of its layers ("layer.0.attention.self.query.weight").

    Matrices, which exporters rename, are found through the bias that is added to their product; None when the graph
    does not name its biases as the original did.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(network)).graph
    constant: dict[str, NDArray[Any]] = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    weights: dict[str, NDArray[np.float32]] = {}
    for name, array in _named(graph, constant):
        short = _short(name)
        if array is not None and short is not None:
            weights[short] = array.astype(np.float32)
    needed = {f"embeddings.{name}.weight" for name in EMBEDDINGS} | {"layer.0.attention.self.query.weight"}
    return weights if needed <= set(weights) else None


EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def _named(graph: onnx.GraphProto, constant: dict[str, NDArray[Any]]) -> Iterator[tuple[str, NDArray[Any] | None]]:
    """Weights under the names that belong to those of the biases beside them; None for one that is not found."""
    maker = {out: node for node in graph.node for out in node.output}
    for node in graph.node:
        if node.op_type == "Add":
            yield from _dense(node, constant, maker)
        elif node.op_type == "LayerNormalization":
            yield node.input[2], constant.get(node.input[2])
            yield node.input[2].removesuffix("bias") + "weight", constant.get(node.input[1])
    for name in EMBEDDINGS:
        for full in [n for n in [*constant, *maker] if n.endswith(f"embeddings.{name}.weight")]:
            yield full, _value(full, constant, maker)


def _dense(
    node: onnx.NodeProto, constant: dict[str, NDArray[Any]], maker: dict[str, onnx.NodeProto]
) -> Iterator[tuple[str, NDArray[Any] | None]]:
    """The bias and the matrix of a layer, where this sum ends one."""
    for bias, other in (node.input, node.input[::-1]):
        product = maker.get(other)
        if bias in constant and product is not None and product.op_type == "MatMul":
            yield bias, constant[bias]
            yield bias.removesuffix("bias") + "weight", _value(product.input[1], constant, maker)


def _value(name: str, constant: dict[str, NDArray[Any]], maker: dict[str, onnx.NodeProto]) -> NDArray[Any] | None:
    """A constant, also behind a Cast, a Mul or a Transpose; None for any other tensor."""
    if name in constant:
        return constant[name]
    node = maker.get(name)
    if node is None or node.op_type not in ("Cast", "Mul", "Transpose"):
        return None
    inputs = [v for v in (_value(each, constant, maker) for each in node.input) if v is not None]
    if len(inputs) < len(node.input):
        return None
    if node.op_type == "Transpose":
        return np.transpose(inputs[0])
    product: NDArray[Any] = inputs[0].astype(np.float32) if node.op_type == "Cast" else inputs[0] * inputs[1]
    return product


def _short(name: str) -> str | None:
    """The name of a layer's weight within BERT; None for any other."""
    if "encoder." in name:
        return name.split("encoder.")[-1]
    return name[name.index("embeddings.") :] if "embeddings." in name else None


def token_vectors(p: TeacherParts, pieces: list[str], width: int) -> NDArray[np.float32] | None:
    """(pieces, width) the teacher's own vectors of our word pieces, reduced by PCA; None when it shows no weights.

    A piece that the teacher does not have gets the mean of the pieces that it would be cut into.
    """
    weights = read_weights(p.network)
    if weights is None:
        return None
    vectors = weights["embeddings.word_embeddings.weight"]
    tokenizer = _tokenizer(p)
    known = tokenizer.get_vocab()
    found = np.zeros((len(pieces), vectors.shape[1]), np.float32)
    for row, piece in zip(found, pieces, strict=True):
        plain = piece.removeprefix("##")
        ids = [known[piece]] if piece in known else tokenizer.encode(plain, add_special_tokens=False).ids
        row[:] = vectors[ids].mean(0) if ids else 0
    found -= found.mean(0)
    axes = np.linalg.svd(found, full_matrices=False)[2][:width]
    reduced: NDArray[np.float32] = found @ axes.T
    return reduced


def _on_device(network: Path, device: str) -> Callable[[NDArray[np.int64]], NDArray[np.float32]] | None:
    import torch
    from torch.nn import functional

    from edge_agent.workshop.train.bert.net import half_pays

    found = read_weights(network)
    if found is None:
        return None
    kind = torch.bfloat16 if half_pays(device) else torch.float32
    w = {k: torch.from_numpy(v).to(device, kind) for k, v in found.items()}
    layers = 1 + max(int(k.split(".")[1]) for k in w if k.startswith("layer."))
    width = w["embeddings.LayerNorm.weight"].shape[0]
    heads = 12

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    def dense(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def run(table: NDArray[np.int64]) -> NDArray[np.float32]:
        with torch.no_grad():
            vectors: NDArray[np.float32] = forward(torch.from_numpy(table).to(device)).cpu().numpy()
        return vectors

    def forward(ids: torch.Tensor) -> torch.Tensor:
        n, length = ids.shape
        seen = (ids != 0)[:, None, None]
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][:length]
        x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for at in range(layers):
            own = f"layer.{at}.attention"
            parts = (dense(x, f"{own}.self.{part}") for part in ("query", "key", "value"))
            q, k, v = (part.view(n, length, heads, -1).transpose(1, 2) for part in parts)
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            y = dense(y.transpose(1, 2).reshape(n, length, width), f"{own}.output.dense")
            x = norm(x + y, f"{own}.output.LayerNorm")
            y = dense(functional.gelu(dense(x, f"layer.{at}.intermediate.dense")), f"layer.{at}.output.dense")
            x = norm(x + y, f"layer.{at}.output.LayerNorm")
        here = (ids != 0)[:, :, None].float()
        return functional.normalize((x.float() * here).sum(1) / here.sum(1), dim=1)

    return run


def texts(corpus: Corpus, count: int, seed: int) -> list[str]:
    """What the teacher is asked: of each source as many, mostly whole sentences.

    One in five is a run of two to ten words of a sentence, one in ten two sentences that follow each other, one in ten
    a sentence in which a word was swapped for one of another sentence: so that short and odd commands are covered too.
    """
    dice = random.Random(seed)
    found = []
    for source in dice.choices(range(len(corpus.names)), k=count):
        low, high = int(corpus.source[source]), int(corpus.source[source + 1])
        at = dice.randrange(low, high)
        line, way = corpus.text[at], dice.random()
        if way < 0.2:
            words = line.split()
            start = dice.randrange(len(words))
            line = " ".join(words[start : start + dice.randint(2, 10)])
        elif way < 0.3 and at + 1 < high:
            line += " " + corpus.text[at + 1]
        elif way < 0.4:
            words = line.split()
            words[dice.randrange(len(words))] = dice.choice(corpus.text[dice.randrange(low, high)].split())
            line = " ".join(words)
        found.append(line)
    return found
