"""Does a head beside an encoder (masked words, next sentence) say what it says on its parent? In the child process.

Each is run on the encoder that serves, and its most precise form on the most precise encoder, over the sealed sentences
(samples/carried.py).
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.backends import open_net
from edge_agent.errors import ManifestError, RefusedError
from edge_agent.figures.scores import accuracy, macro_f1
from edge_agent.gate.opened import bounded, open_served
from edge_agent.gate.trial import Heads, Result, Variant
from edge_agent.samples.carried import sentences
from edge_agent.tasks.text.reader import Reader, made

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
    said = _reader(question, encoder, head)
    mask = said.words.vocab.get("[MASK]")
    if mask is None:
        raise RefusedError('no "[MASK]" in its vocabulary, which a head for masked words needs')
    found = []
    for text in sentences():
        ids = said.words.encode(text, said.length)
        for place in range(2, len(ids) - 1, STRIDE):
            found.append(_said(said, [*ids[:place], mask, *ids[place + 1 :]], len(ids))[place])
    return np.stack(found)


def _follows(question: Heads, encoder: Variant, head: Variant) -> Array:
    """(n, 2) scores of whether one sentence follows another."""
    said = _reader(question, encoder, head)
    read = [said.words.encode(text, said.length // 2) for text in sentences()]
    pairs = zip(read, [*read[1:], read[0]], strict=True)
    return np.stack([_said(said, [*a, *b[1:]], len(a)) for a, b in pairs])


def _reader(question: Heads, encoder: Variant, head: Variant) -> Reader:
    """An encoder with a head behind it. RefusedError where they do not fit together."""
    net = open_net(Path(head.path), head.file.format, question.threads)
    bounded(net)
    try:
        return made(open_served(question.manifest, encoder, question.parts, question.threads), net)
    except ManifestError as error:
        raise RefusedError(str(error)) from None


def _said(by: Reader, ids: list[int], first: int) -> Array:
    """What the head says of these pieces, of which the `first` are the first sentence."""
    (hidden,) = by.run([(ids, first)])[0].values()
    found: Array = by.headed(hidden[None])[0]
    return found
