"""The training of a tagger: epochs over marked sentences, the best one by sentences that were kept apart."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edge_agent.tasks.text.texthead import joined
from edge_agent.tasks.text.wordpiece import WordPiece
from edge_agent.workshop.data.marked import Marked
from edge_agent.workshop.train.bert.data import MASK
from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.loop import BEST, Clock, Training, cosine, load, stepped
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
    args: argparse.Namespace


def fit(net: Bert, lesson: Lesson, out: Path, say: Callable[[str], None]) -> tuple[Bert, nn.Linear, Training]:
    """Train `net` and a head; the best of the epochs, and how each went. A checkpoint is left in `out` after each."""
    args, head = lesson.args, nn.Linear(net.shape.width, len(lesson.tags))
    both = nn.ModuleDict({"net": net, "head": head})
    groups = [{"params": net.parameters(), "scale": 1.0}, {"params": head.parameters(), "scale": float(HEAD)}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, weight_decay=0.01)
    training = Training(out, Clock(steps=args.epochs), {"both": both}, [optimizer], args.resume)
    others = data.by_slot(lesson.taught)

    def learn(share: float) -> torch.Tensor:
        return _round(both, optimizer, lesson, others, training.clock.step)

    training.run(
        learn, ("loss",), say, lambda: {"span_f1": f1(both, lesson)}, lambda found: -found["span_f1"], save_s=0.0
    )
    both.load_state_dict(load(out / BEST)["both"])
    return net, head, training


def _round(
    both: nn.ModuleDict, optimizer: torch.optim.Optimizer, lesson: Lesson, others: dict[str, list[str]], epoch: int
) -> torch.Tensor:
    """One epoch; the mean loss."""
    args = lesson.args
    dice = np.random.default_rng((args.seed, epoch))
    torch.manual_seed(args.seed * 1000 + epoch)
    rows = [data.exchanged(one, others, dice, EXCHANGED) for one in lesson.taught]
    coded = [data.encode(one, lesson.words, lesson.tags, LENGTH) for one in rows]
    # sentences of like length go together; which ones, and their order, is drawn
    order = sorted(range(len(coded)), key=lambda i: len(coded[i][0]) + dice.random() * 4)
    batches = [order[i : i + args.rows] for i in range(0, len(order), args.rows)]
    both.train()
    total = 0.0
    for step, batch in enumerate(batches[int(i)] for i in dice.permutation(len(batches))):
        share = (epoch + step / len(batches)) / args.epochs
        ids, truth = table([coded[i][0] for i in batch], 0), table([coded[i][1] for i in batch], -1)
        hide = torch.from_numpy(dice.random(ids.shape) < HIDDEN) & (ids > MASK)
        hidden = both["net"](ids.masked_fill(hide, MASK), torch.zeros_like(ids))
        logits = both["head"](functional.dropout(hidden, DROPPED))
        loss = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=-1)
        stepped(optimizer, args.rate * min(1.0, share * 20) * cosine(share), loss, 1.0)
        total += float(loss.detach())
    return torch.tensor([total / len(batches)])


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
