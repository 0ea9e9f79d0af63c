"""The training of a tagger: epochs over marked sentences, the best one by sentences that were kept apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_agent.tasks.text.texthead import joined
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.workshop.data.slots import Marked
from edge_agent.workshop.train import checkpoint
from edge_agent.workshop.train.bert.data import MASK
from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.finish import Rows
from edge_agent.workshop.train.loop import cosine, stepped
from edge_agent.workshop.train.tagger import data

LENGTH = 128
"""most pieces of a sentence"""
EXCHANGED, HIDDEN, DROPPED = 0.5, 0.1, 0.1
"""share of the slots that are filled anew, of the pieces that are hidden, of the numbers that the head does not see"""
HEAD = 5
"""how many times the encoder's learning rate the head, which begins at nothing, has"""


@dataclass(frozen=True)
class Lesson:
    """What is taught, and how."""

    taught: Sequence[Marked]
    kept: Sequence[Marked]
    words: WordPiece
    tags: Sequence[str]
    epochs: int
    rows: int
    rate: float
    seed: int


def fit(net: Bert, lesson: Lesson, out: Path, resume: bool, say: Callable[[str], None]) -> tuple[Bert, nn.Linear, Rows]:
    """Train `net` and a head; the best of the epochs, and how each went. A checkpoint is left in `out` after each."""
    head = nn.Linear(net.shape.width, len(lesson.tags))
    both = nn.ModuleDict({"net": net, "head": head})
    groups = [{"params": net.parameters(), "scale": 1.0}, {"params": head.parameters(), "scale": float(HEAD)}]
    optimizer = torch.optim.AdamW(groups, lr=lesson.rate, weight_decay=0.01)
    state: dict[str, Any] = {"epoch": 0, "best": -1.0, "weights": {}, "curve": []}
    if resume:
        state = checkpoint.load(out / "checkpoint.pt")
        both.load_state_dict(state["last"])
        optimizer.load_state_dict(state["optimizer"])
    others, begun = data.by_slot(lesson.taught), time.monotonic()
    for epoch in range(state["epoch"], lesson.epochs):
        loss = _round(both, optimizer, lesson, others, epoch)
        right = f1(both, lesson)
        if right >= state["best"]:
            state["best"] = right
            state["weights"] = {key: value.clone() for key, value in both.state_dict().items()}
        state["curve"].append({"epoch": epoch + 1, "loss": loss, "span_f1": right})
        state |= {"epoch": epoch + 1, "last": both.state_dict(), "optimizer": optimizer.state_dict()}
        checkpoint.save(out / "checkpoint.pt", state)
        spent = time.monotonic() - begun
        say(f"epoch {epoch + 1} of {lesson.epochs}: loss {loss:.3f}, span F1 of those kept {right:.4f}, {spent:.0f} s")
    both.load_state_dict(state["weights"])
    return net, head, state["curve"]


def _round(
    both: nn.ModuleDict, optimizer: torch.optim.Optimizer, lesson: Lesson, others: dict[str, list[str]], epoch: int
) -> float:
    """One epoch; the mean loss."""
    dice = np.random.default_rng((lesson.seed, epoch))
    torch.manual_seed(lesson.seed * 1000 + epoch)
    rows = [data.exchanged(one, others, dice, EXCHANGED) for one in lesson.taught]
    coded = [data.encode(one, lesson.words, lesson.tags, LENGTH) for one in rows]
    # sentences of like length go together; which ones, and their order, is drawn
    order = sorted(range(len(coded)), key=lambda i: len(coded[i][0]) + dice.random() * 4)
    batches = [order[i : i + lesson.rows] for i in range(0, len(order), lesson.rows)]
    both.train()
    total = 0.0
    for step, batch in enumerate(batches[int(i)] for i in dice.permutation(len(batches))):
        share = (epoch + step / len(batches)) / lesson.epochs
        ids, truth = table([coded[i][0] for i in batch], 0), table([coded[i][1] for i in batch], -1)
        hide = torch.from_numpy(dice.random(ids.shape) < HIDDEN) & (ids > MASK)
        hidden = both["net"](ids.masked_fill(hide, MASK), torch.zeros_like(ids))
        logits = both["head"](functional.dropout(hidden, DROPPED))
        loss = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=-1)
        stepped(optimizer, lesson.rate * min(1.0, share * 20) * cosine(share), loss, 1.0)
        total += float(loss.detach())
    return total / len(batches)


def table(rows: Sequence[Sequence[int]], empty: int) -> torch.Tensor:
    """Rows of numbers, padded to the longest."""
    out = torch.full((len(rows), max(map(len, rows))), empty)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = torch.tensor(row)
    return out


def f1(both: nn.ModuleDict, lesson: Lesson) -> float:
    """F1 of whole spans on the sentences that were kept."""
    both.eval()
    right = told = there = 0
    with torch.no_grad():
        for one in lesson.kept:
            ids, truth = data.encode(one, lesson.words, lesson.tags, LENGTH)
            logits = both["head"](both["net"](torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.long)))[0]
            said = logits.argmax(1).tolist()
            first = [(i, t) for i, t in enumerate(truth) if t >= 0]  # the first pieces of words
            spans = [
                {span[:3] for span in joined([(i, i + 1, lesson.tags[tag], 1.0) for i, tag in tagged])}
                for tagged in ([(i, said[i]) for i, _ in first], first)
            ]
            right, told, there = right + len(spans[0] & spans[1]), told + len(spans[0]), there + len(spans[1])
    return 2 * right / max(1, told + there)
