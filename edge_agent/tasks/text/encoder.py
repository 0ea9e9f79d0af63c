"""A BERT encoder as a function from texts to vectors: word pieces, exact lengths, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, ManifestError, ModelError
from edge_agent.manifest import Served, TextInput
from edge_agent.tasks.text import vocabulary
from edge_agent.tasks.text.wordpiece import WordPiece
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

    def read(self, text: str) -> list[int]:
        """Ids of the word pieces of one text. InputError when there is nothing in it to read."""
        ids = self.words.encode(text, self.length)
        if len(ids) <= 2:
            raise InputError(f"{'empty text' if not text.strip() else 'no letter in the text'}; nothing to understand")
        return ids

    def windows(self, text: str) -> list[tuple[list[int], str]]:
        """Ids and text of each window of a text (one, where it fits), without those that cannot be read.

        [] where none can: most letters lie in words that the vocabulary does not know. InputError as in `read`.
        """
        ids = self.read(text)
        if len(ids) < self.length and self.words.unknown not in ids:
            return [(ids, text)]
        found = []
        parts = self.words.windows(text, self.length)
        for _, pieces in parts:
            if not self.words.unread(text, pieces):
                part = text if len(parts) == 1 else text[pieces[0][1] : pieces[-1][2]]
                found.append(([self.words.cls, *(piece for piece, _, _ in pieces), self.words.sep], part))
        return found

    def embed(self, ids: list[int]) -> Floats:
        """One text's vector, (d,) float32. ModelError where the network gives no finite number."""
        return self._run([ids])[0]

    def embed_many(self, texts: Sequence[str]) -> Floats:
        """Vectors of many texts, (n, d) float32, in their order; like lengths go together, so little is padded."""
        read = [self.read(text) for text in texts]
        order = sorted(range(len(read)), key=lambda i: len(read[i]))
        chunks = [order[i : i + self.batch] for i in range(0, len(order), self.batch)]
        vectors = np.stack([vector for chunk in chunks for vector in self._run([read[i] for i in chunk])])
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    def _run(self, batch: list[list[int]]) -> list[Floats]:
        """The vectors, (d,), of up to self.batch texts."""
        size = self.fixed or max(map(len, batch))
        lengths = None if all(len(ids) == size for ids in batch) else np.array([[len(ids)] for ids in batch])
        feed = {spec.name: self._tensor(role, batch, size, lengths, spec.dtype) for role, spec in self.inputs.items()}
        found = self.model.net.run(feed)[self.output.name].astype(np.float32, copy=False)
        if found.ndim == 3:
            found = self._pool(found, lengths)
        vectors = [self._vector(row) for row in found]
        if len(vectors) != len(batch):
            raise ModelError(f"{self.model.ref.name}: {len(vectors)} vectors came out of {len(batch)} texts")
        return vectors

    def _vector(self, found: Floats) -> Floats:
        """(d,), of length 1 if the manifest says so. ModelError where it is not finite."""
        length = math.sqrt(found @ found)
        if not math.isfinite(length):
            raise ModelError(f"{self.model.ref.name}: no finite vector came out; `edge-agent models verify` it")
        vector: Floats = found / max(length, 1e-12) if self.text.normalize else found
        return vector

    def _tensor(
        self, role: str, batch: list[list[int]], size: int, lengths: npt.NDArray[np.int64] | None, dtype: str
    ) -> npt.NDArray[Any]:
        """(n, size) of one input; `lengths` (n, 1): None where nothing is padded."""
        if role == "ids":
            return np.array([ids + [self.words.pad] * (size - len(ids)) for ids in batch], dtype)
        if role == "mask" and lengths is not None:
            return (np.arange(size) < lengths).astype(dtype)
        return _filled((len(batch), size), int(role == "mask"), dtype)

    def _pool(self, found: Floats, lengths: npt.NDArray[np.int64] | None) -> Floats:
        """[n, L, d] -> [n, d]: the first token's, or the mean over those that are not padded."""
        size = found.shape[1]
        pooled: Floats
        if self.text.pooling == "cls":
            pooled = found[:, 0]
        elif lengths is None:
            pooled = found.sum(1) / np.float32(size)
        else:
            weight = (np.arange(size) < lengths).astype(np.float32)[:, :, None]
            pooled = (found * weight).sum(1) / weight.sum(1)
        return pooled


@lru_cache(maxsize=512)
def _filled(shape: tuple[int, int], value: int, dtype: str) -> npt.NDArray[Any]:
    """The same number everywhere, made once for each length; nobody writes to it."""
    made = np.full(shape, value, dtype)
    made.flags.writeable = False
    return made


def encoder(model: Served) -> Encoder:
    """Make an encoder of a text model, and run it once. ManifestError when file and manifest do not fit together."""
    name, text, net = model.manifest.name, model.manifest.text, model.net
    if model.manifest.task != "encode" or text is None:
        raise ManifestError(f"{name}: no text encoder (its task is {model.manifest.task}); name one, e.g. encoder")
    words, inputs = words_of(model), inputs_of(name, net)
    shape = inputs["ids"].shape
    made = Encoder(
        model=model,
        text=text,
        words=words,
        inputs=inputs,
        output=_output(name, net, text.pooling),
        length=min(text.max_length, shape[1] or text.max_length),
        fixed=shape[1],
        # without a mask what is padded would count
        batch=min(shape[0] or BATCH, BATCH) if "mask" in inputs or shape[1] else 1,
    )
    proved(name, words, made.embed)
    return made


def proved(name: str, words: WordPiece, answer: Callable[[list[int]], object]) -> None:
    """Run a text network on its tokenizer's highest id. ManifestError where it has no such row in its table."""
    answer([words.cls, words.sep])
    try:
        answer([words.cls, words.highest, words.sep])
    except ModelError as error:
        raise ManifestError(
            f"{name}: its network does not take word piece {words.highest}, which its tokenizer gives; put the "
            f"tokenizer beside it that it was trained with ({error})"
        ) from None


def words_of(model: Served) -> WordPiece:
    """The word pieces of a text model. ManifestError where it has none, RefusedError where they are others by now."""
    text, name = model.manifest.text, model.manifest.name
    if "tokenizer" in model.parts:
        with model.part("tokenizer") as source:
            return vocabulary.from_json(model.parts["tokenizer"], text.rules if text else None, source)
    if "vocab" in model.parts and text is not None:
        with model.part("vocab") as source:
            return vocabulary.from_vocab(model.parts["vocab"], text.lowercase, text.rules, source)
    raise ManifestError(f'{name}: no [[file]] of role "vocab" or "tokenizer"; a text model needs one')


def inputs_of(name: str, net: Net) -> dict[str, TensorSpec]:
    """The network's inputs by their roles, told from their names; one that stands alone takes the ids."""
    if len(net.inputs) == 1 and len(net.inputs[0].shape) == 2:
        return {"ids": net.inputs[0]}
    found: dict[str, TensorSpec] = {}
    for spec in net.inputs:
        role = _role(spec.name.lower())
        if not role or role in found or len(spec.shape) != 2:
            raise ManifestError(f"{name}: what is input {spec.name} {list(spec.shape)}? expected ids, mask, types")
        found[role] = spec
    if "ids" not in found:
        raise ManifestError(f"{name}: no input takes token ids among {', '.join(s.name for s in net.inputs)}")
    return found


def _role(name: str) -> str:
    """Of an input of this name; "" where it does not say."""
    return next((role for role, parts in ROLES if any(part in name for part in parts)), "")


def _output(name: str, net: Net, pooling: str) -> TensorSpec:
    """The output that `pooling` names, else the one with a vector a token."""
    _, named, wanted = pooling.partition(":")
    for spec in net.outputs:
        if (spec.name.split(":")[0] == wanted) if named else (len(spec.shape) == 3):
            return spec
    seen = ", ".join(f"{s.name} {list(s.shape)}" for s in net.outputs)
    raise ManifestError(f'{name}: pooling = "{pooling}" finds no output among {seen}')
