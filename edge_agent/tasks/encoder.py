"""A BERT encoder as a function from texts to vectors: word pieces, exact lengths, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, ManifestError, ModelError
from edge_agent.manifest import Served, TextInput
from edge_agent.tasks import wordpiece
from edge_agent.tasks.wordpiece import Pieces, WordPiece
from edge_agent.types import Floats, Net, TensorSpec

BATCH = 8
"""texts of like length that go through the network together"""

ROLES = (("types", ("type", "segment")), ("mask", ("mask",)), ("ids", ("ids", "word", "token")))
"""role of an input <- what its name contains, the first row that fits"""


@dataclass(frozen=True, slots=True)
class Encoder:
    """A text model, ready to read."""

    model: Served
    text: TextInput
    words: WordPiece
    inputs: dict[str, TensorSpec]
    """ids, mask, types -> the network's input; those that it has"""
    output: TensorSpec
    length: int
    """most pieces of one text"""
    fixed: int | None
    """pieces that every input must have; None where the network takes any number"""
    batch: int
    """texts that go in together"""

    def read(self, text: str) -> Pieces:
        """Word pieces of one text. InputError when there is nothing in it to read."""
        pieces = self.words.encode(text, self.length)
        if len(pieces) <= 2:
            raise InputError(f"{'empty text' if not text.strip() else 'no letter in the text'}; nothing to understand")
        return pieces

    def embed(self, pieces: Pieces) -> Floats:
        """One text's vector, (d,) float32. ModelError where the network gives no finite number."""
        vector: Floats = self._run([pieces])[0]
        return vector

    def embed_many(self, texts: Sequence[str]) -> Floats:
        """Vectors of many texts, (n, d) float32, in their order; like lengths go together, so little is padded."""
        read = [self.read(text) for text in texts]
        order = sorted(range(len(read)), key=lambda i: len(read[i]))
        chunks = [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        vectors = np.concatenate([self._run([read[i] for i in chunk]) for chunk in chunks])
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    def _run(self, batch: list[Pieces]) -> Floats:
        """(n, d) for n <= self.batch texts."""
        size = self.fixed or max(map(len, batch))
        ids = np.full((len(batch), size), self.words.pad, np.int64)
        mask = np.zeros((len(batch), size), np.int64)
        for row, pieces in enumerate(batch):
            ids[row, : len(pieces)] = pieces.ids
            mask[row, : len(pieces)] = 1
        tensors = {"ids": ids, "mask": mask, "types": np.zeros_like(ids)}
        feed = {spec.name: tensors[role].astype(spec.dtype, copy=False) for role, spec in self.inputs.items()}
        found = self.model.net.run(feed)[self.output.name]
        vectors = self._pool(found.astype(np.float32, copy=False), mask)
        if vectors.shape[0] != len(batch) or not np.isfinite(vectors).all():
            raise ModelError(f"{self.model.ref.name}: no finite vector came out; `edge-agent models verify` it")
        return vectors

    def _pool(self, found: Floats, mask: npt.NDArray[np.int64]) -> Floats:
        """[B, L, H] (or [B, H], from a pooling output) -> [B, H], of length 1 if the manifest says so."""
        if found.ndim == 3 and self.text.pooling == "cls":
            found = found[:, 0]
        elif found.ndim == 3:
            weight = mask[:, : found.shape[1], None].astype(np.float32)
            found = (found * weight).sum(1) / weight.sum(1)
        if self.text.normalize:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(found, np.float32)


def encoder(model: Served) -> Encoder:
    """Make an encoder of a text model, and run it once. ManifestError when file and manifest do not fit together."""
    name, text, net = model.manifest.name, model.manifest.text, model.net
    if model.manifest.task != "encode" or text is None:
        raise ManifestError(f"{name}: no text encoder (its task is {model.manifest.task}); name one, e.g. encoder")
    if "tokenizer" in model.parts:
        words = wordpiece.from_json(model.parts["tokenizer"])
    elif "vocab" in model.parts:
        words = wordpiece.from_vocab(model.parts["vocab"], text.lowercase)
    else:
        raise ManifestError(f'{name}: no [[file]] of role "vocab" or "tokenizer"; an encoder needs one')
    inputs = _inputs(name, net)
    shape = inputs["ids"].shape
    made = Encoder(
        model=model,
        text=text,
        words=words,
        inputs=inputs,
        output=_output(name, net, text.pooling),
        length=min(text.max_length, shape[1] or text.max_length),
        fixed=shape[1],
        batch=min(shape[0] or BATCH, BATCH),
    )
    made.embed(Pieces([words.cls, words.sep], [0, 0], [0, 0]))
    return made


def _inputs(name: str, net: Net) -> dict[str, TensorSpec]:
    """The network's inputs by their roles, told from their names."""
    found: dict[str, TensorSpec] = {}
    for spec in net.inputs:
        roles = [role for role, parts in ROLES if any(part in spec.name.lower() for part in parts)]
        if not roles or roles[0] in found or len(spec.shape) != 2:
            raise ManifestError(f"{name}: what is input {spec.name} {list(spec.shape)}? expected ids, mask, types")
        found[roles[0]] = spec
    if "ids" not in found:
        raise ManifestError(f"{name}: no input takes token ids among {', '.join(s.name for s in net.inputs)}")
    return found


def _output(name: str, net: Net, pooling: str) -> TensorSpec:
    """The output that `pooling` names, else the one with a vector a token."""
    _, named, wanted = pooling.partition(":")
    for spec in net.outputs:
        if (spec.name.split(":")[0] == wanted) if named else (len(spec.shape) == 3):
            return spec
    seen = ", ".join(f"{s.name} {list(s.shape)}" for s in net.outputs)
    raise ManifestError(f'{name}: pooling = "{pooling}" finds no output among {seen}')
