"""Does a head beside an encoder (masked words, next sentence) say what it says on its parent? In the child process.

Nothing serves these heads; they are there for who fits the encoder further. Each is run on the encoder that serves, and
its most precise form on the most precise encoder, over the sealed sentences (samples/carried.py).
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.figures.scores import accuracy, macro_f1
from edge_agent.gate.opened import bounded, open_served
from edge_agent.gate.trial import Heads, Result, Variant
from edge_agent.samples.carried import sentences
from edge_agent.tasks.text.encoder import inputs_of, words_of
from edge_agent.types import TensorSpec

STRIDE = 4
"""of how many word pieces one is masked"""
FIRST = 5
"""words of the parent among which the variant's first one has to be: the very first are often about as likely"""
Array = npt.NDArray[Any]


def agree_heads(question: Heads) -> Result:
    """Variants: an encoder and a head, the original encoder and the original head. Refused below 1 - max_drop."""
    encoder, head, whole, original = question.variants
    ask = _masked if head.file.role == "mlm" else _follows
    mine, theirs = ask(question, encoder, head), ask(question, whole, original)
    if mine.shape != theirs.shape:
        raise RefusedError(f"it gives {list(mine.shape)} scores, its parent {list(theirs.shape)}")
    if head.file.role == "mlm":
        among = np.argsort(-theirs, axis=1)[:, :FIRST]
        agreement, measure = float((among == mine.argmax(axis=1)[:, None]).any(axis=1).mean()), "first words agree"
    else:
        said = [[str(label) for label in scores.argmax(axis=1)] for scores in (theirs, mine)]
        told_by = [(accuracy(*said), "answers agree"), (macro_f1(*said), "F1 of the answers")]
        agreement, measure = min(told_by, key=itemgetter(0))
    least = 1 - question.manifest.max_drop
    told = f"{measure} {agreement:.3f} against {original.file.name} on {whole.file.name}, {len(mine)} times"
    figures = {"agreement": agreement, "measure": measure, "samples": len(mine), "parent": original.file.name}
    if agreement < least:
        return Result(False, f"it does not agree: {told}, at least {least:.3f} is asked for", figures=figures)
    return Result(True, notes=[told], figures=figures)


def _masked(question: Heads, encoder: Variant, head: Variant) -> Array:
    """(n, words) scores of each word for every place that was masked, one at a time."""
    said = _Said(question, encoder, head)
    mask = said.words.vocab.get("[MASK]")
    if mask is None:
        raise RefusedError('no "[MASK]" in its vocabulary, which a head for masked words needs')
    found = []
    for text in sentences():
        ids = said.words.encode(text, said.length)
        for place in range(2, len(ids) - 1, STRIDE):
            found.append(said.of([*ids[:place], mask, *ids[place + 1 :]], len(ids))[place])
    return _finite(np.stack(found))


def _follows(question: Heads, encoder: Variant, head: Variant) -> Array:
    """(n, 2) scores of whether one sentence follows another."""
    said = _Said(question, encoder, head)
    read = [said.words.encode(text, said.length // 2) for text in sentences()]
    return _finite(np.stack([said.of([*a, *b[1:]], len(a)) for a, b in zip(read, [*read[1:], read[0]], strict=True)]))


def _finite(scores: Array) -> Array:
    if not np.isfinite(scores).all():
        raise RefusedError("it gives numbers that are not finite")
    return scores


class _Said:
    """An encoder with a head behind it."""

    def __init__(self, question: Heads, encoder: Variant, head: Variant) -> None:
        assert question.manifest.text is not None
        self.model = open_served(question.manifest, encoder, question.parts, question.threads)
        self.head = open_net(Path(head.path), head.file.format, question.threads)
        bounded(self.head)
        self.words, self.inputs = words_of(self.model), inputs_of(question.manifest.name, self.model.net)
        self.fixed = self.inputs["ids"].shape[1]
        most = question.manifest.text.max_length
        self.length = min(most, self.fixed or most)
        if len(self.head.inputs) != 1 or len(self.head.outputs) != 1:
            raise RefusedError("a head takes the hidden states alone, and gives one output")
        self.hidden = self._hidden()

    def _hidden(self) -> TensorSpec:
        wide = self.head.inputs[0].shape[-1]
        for spec in self.model.net.outputs:
            if len(spec.shape) == 3 and spec.shape[-1] == wide:
                return spec
        raise RefusedError(f"it takes hidden states {wide} wide, which the encoder does not give")

    def of(self, ids: list[int], first: int) -> Array:
        """What the head says of these pieces, of which the `first` are the first sentence."""
        size = self.fixed or len(ids)
        rows = np.zeros((3, 1, size), np.int64)
        rows[0], rows[0, 0, : len(ids)], rows[1, 0, : len(ids)] = self.words.pad, ids, 1
        rows[2, 0, first : len(ids)] = 1
        tensors = dict(zip(("ids", "mask", "types"), rows, strict=True))
        feed = {spec.name: tensors[role].astype(spec.dtype) for role, spec in self.inputs.items()}
        hidden = self.model.net.run(feed)[self.hidden.name]
        found: Array = self.head.run({self.head.inputs[0].name: hidden})[self.head.outputs[0].name][0]
        return found
