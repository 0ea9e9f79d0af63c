"""A BERT-family network, ready to read one text or two: what comes out of it, or of a head behind its hidden states.

Any number of inputs (ids, mask, types), of any order and integer type, of fixed or open length; ONNX and TFLite.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, ManifestError, ModelError
from edge_agent.manifest import Served
from edge_agent.tasks.text.encoder import BATCH, inputs_of, words_of
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.types import Floats, Net, TensorSpec

Row = tuple[list[int], int]
"""ids of the pieces of one text or two, and how many of them are of the first"""
Out = dict[str, Floats]
"""output -> what it says of one row: (pieces, ...), or (...,) where it says one thing of all of them"""
WHAT = {
    "mlm": ("fill", "fills in masked words"),
    "nsp": ("follows", "says whether one sentence follows another"),
    "qa": ("answer", "finds answers in a text"),
}
"""role of a head -> what a manifest calls a network that has it inside, and what it does"""
SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\W_])|\n+|(?<=[。！？])")
"""between two sentences: after a full stop with a space, or at a line's end"""
LONGEST = 400
"""characters of a sentence: a longer one is parted at a space"""


@dataclass(frozen=True, slots=True)
class Reader:
    """A text network and, where it needs one, the head behind it."""

    model: Served
    words: WordPiece
    inputs: dict[str, TensorSpec]
    """ids, mask, types -> the network's input; those that it has"""
    outputs: tuple[TensorSpec, ...]
    """of the network that are asked for: the hidden states alone, where there is a head"""
    head: Net | None
    length: int
    """most pieces of a row"""
    fixed: int | None
    """pieces that every input must have; None where the network takes any number"""
    batch: int
    """rows that go in together"""

    def run(self, rows: Sequence[Row]) -> list[Out]:
        """What comes out for each row, in their order; rows of like length go together."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        found: list[Out] = [{}] * len(rows)
        for at in range(0, len(order), self.batch):
            chunk = order[at : at + self.batch]
            for i, out in zip(chunk, self._batch([rows[i] for i in chunk]), strict=True):
                found[i] = out
        return found

    def _batch(self, rows: Sequence[Row]) -> list[Out]:
        size = self.fixed or max(len(ids) for ids, _ in rows)
        made = padded(rows, size, self.words.pad)
        given = self.model.net.run({spec.name: made[role].astype(spec.dtype) for role, spec in self.inputs.items()})
        outs = {spec.name: given[spec.name].astype(np.float32, copy=False) for spec in self.outputs}
        name = self.model.ref.name
        if not all(len(out) == len(rows) and np.isfinite(out).all() for out in outs.values()):
            raise ModelError(f"{name}: no finite number a text came out; `edge-agent models verify` it")
        return [{key: _own(out[n], len(ids), size) for key, out in outs.items()} for n, (ids, _) in enumerate(rows)]

    def headed(self, hidden: Floats) -> Floats:
        """What the head says of hidden states, (n, L, H); of the network's own output just that."""
        if self.head is None:
            return hidden
        found = self.head.run({self.head.inputs[0].name: hidden})[self.head.outputs[0].name]
        if not np.isfinite(found).all():
            raise ModelError(f"{self.model.ref.name}: its head gives no finite number; `edge-agent models verify` it")
        return found.astype(np.float32, copy=False)

    def pair(self, one: list[int], other: list[int]) -> Row:
        """Two texts (ids without marks) as one row, the longer one cut until they fit."""
        between = [self.words.sep] * self.words.seps
        room = self.length - 2 - len(between)
        most = max(room // 2, room - len(other)), max(room // 2, room - len(one))
        # the end of what comes before and the beginning of what comes after lie next to each other
        one, other = one[-most[0] :], other[: most[1]]
        return [self.words.cls, *one, *between, *other, self.words.sep], len(one) + 1 + len(between)

    def ids(self, text: str) -> list[int]:
        """Pieces of a text without marks. InputError when there is nothing in it to read."""
        ids = self.words.encode(text, self.length)[1:-1]
        if not ids:
            raise InputError(f"{'empty text' if not text.strip() else 'no letter in the text'}; nothing to understand")
        return ids


def padded(rows: Sequence[Row], size: int, pad: int) -> dict[str, npt.NDArray[np.int64]]:
    """The ids, the mask and the types of the rows, each (rows, size)."""
    made = {"ids": np.full((len(rows), size), pad, np.int64)}
    made |= {role: np.zeros((len(rows), size), np.int64) for role in ("mask", "types")}
    for n, (ids, first) in enumerate(rows):
        made["ids"][n, : len(ids)], made["mask"][n, : len(ids)], made["types"][n, first : len(ids)] = ids, 1, 1
    return made


def _own(out: Floats, pieces: int, size: int) -> Floats:
    """What came out for one row, without what was padded where it says something of each piece."""
    return out[:pieces] if out.ndim and len(out) == size else out


def reader(model: Served, role: str) -> Reader:
    """A reader of what the head of this role says: inside of the network, or beside an encoder.

    ManifestError for a model that has none, RefusedError for a head that the gate refuses.
    """
    manifest = model.manifest
    task, what = WHAT[role]
    beside = any(row.role == role for row in manifest.file)
    if manifest.text is None or (manifest.task != task and not beside):
        raise ManifestError(
            f"{manifest.name}: no model that {what} (its task is {manifest.task}, and no head for it lies beside it)"
        )
    head = None
    if manifest.task != task:
        if model.head is None:
            raise ManifestError(f"{manifest.name}: its head cannot be had here")
        head = model.head(role)
    return made(model, head)


def made(model: Served, head: Net | None) -> Reader:
    """A reader of a text network, with the head behind it. ManifestError where they do not fit together."""
    manifest, net = model.manifest, model.net
    assert manifest.text is not None
    inputs, words = inputs_of(manifest.name, net), words_of(model)
    fixed, most = inputs["ids"].shape[1], manifest.text.max_length
    outputs = net.outputs if head is None else _hidden(manifest.name, net, head)
    rows = inputs["ids"].shape[0]
    # without a mask what is padded would count
    batch = min(rows or BATCH, BATCH) if "mask" in inputs or fixed else 1
    return Reader(model, words, inputs, outputs, head, min(most, fixed or most), fixed, batch)


def _hidden(name: str, net: Net, head: Net) -> tuple[TensorSpec, ...]:
    """The output of the network that the head takes. ManifestError where there is none."""
    wide = head.inputs[0].shape[-1]
    found = tuple(spec for spec in net.outputs if len(spec.shape) == 3 and spec.shape[-1] == wide)[:1]
    if not found or len(head.inputs) != 1 or len(head.outputs) != 1:
        raise ManifestError(f"{name}: its head takes hidden states {wide} wide, which it does not give")
    return found


def softmax(scores: Floats) -> Floats:
    """Along the last axis."""
    power = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Floats = power / power.sum(axis=-1, keepdims=True)
    return shares


def sentences(text: str) -> list[str]:
    """The sentences of a text, none empty, none longer than LONGEST characters."""
    found = []
    for part in SENTENCE_END.split(text):
        left = " ".join(part.split())
        while len(left) > LONGEST:
            cut = left.rfind(" ", LONGEST // 2, LONGEST) + 1 or LONGEST
            found.append(left[:cut].strip())
            left = left[cut:]
        found.append(left.strip())
    return [one for one in found if any(char.isalnum() for char in one)]
