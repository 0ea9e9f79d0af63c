"""The training of edge-bert: masked words and next sentences first, then the teacher's sentence vectors as well.

The plan is one of time: the learning rate and the change of phase follow the share of the minutes that is spent, so
that a run of any length is a whole one, and a resumed one goes on where it was.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edge_agent.errors import ModelError
from edge_agent.workshop.train.bert import data
from edge_agent.workshop.train.bert.data import CLS, PAD, SEP, Deck
from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.bert.teacher import Vectors
from edge_agent.workshop.train.loop import Say, Training, cosine, decayed, stepped

Shelves = list[tuple[torch.Tensor, torch.Tensor]]
"""ids (n, L) and the teacher's vectors (n, E), texts of like length together"""
LESSON = 64
"""tokens of a text that is compared with the teacher's vector"""
WARM = 0.02
"""share of the time in which the learning rate rises, before a cosine to a fiftieth"""
PRETRAIN = 0.35
"""share of the time for the first phase"""
LONG_EVERY = 8
"""one batch in so many is of 128 tokens, the others of 64"""


@dataclass
class Lessons:
    """Texts with the teacher's vectors, growing in a thread of their own while the first phase trains."""

    told: list[tuple[NDArray[np.int32], NDArray[np.float16]]] = field(default_factory=list)
    """ids (n, 64), PAD where nothing stands, and vectors (n, E)"""
    stop: threading.Event = field(default_factory=threading.Event)
    asked: Future[None] = field(default_factory=Future)
    """done where the teacher has been asked all, or failed"""


def teach(lessons: Lessons, texts: list[str], tokenizer: Any, vectors: Vectors, chunk: int = 2000) -> None:
    """Starts the thread that fills `lessons`."""

    def work() -> None:
        for at in range(0, len(texts), chunk):
            if lessons.stop.is_set():
                return
            some = texts[at : at + chunk]
            lessons.told.append((rows(tokenizer, some), vectors(some).astype(np.float16)))

    pool = ThreadPoolExecutor(1)
    lessons.asked = pool.submit(work)
    pool.shutdown(wait=False)


def rows(tokenizer: Any, texts: list[str]) -> NDArray[np.int32]:
    """(n, 64) token ids with [CLS] and [SEP], cut or padded."""
    table = np.full((len(texts), LESSON), PAD, np.int32)
    for row, e in zip(table, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        words = [CLS, *e.ids[: LESSON - 2], SEP]
        row[: len(words)] = words
    return table


@dataclass(frozen=True)
class Held:
    """What progress is measured on: documents that are never trained on."""

    deck: Deck
    ids: NDArray[np.int32]
    vectors: NDArray[np.float16]


TAUGHT = ("taught_mlm", "taught_nsp", "taught_vectors")
MEASURED = ("mlm_loss", "mlm_top1", "nsp_loss", "nsp", "cosine", "pearson")


def measure(net: Bert, held: Held, half: bool, seed: int = 5) -> dict[str, float]:
    """On held-out text: MLM loss and top-1, NSP loss and accuracy (whole sentences), agreement with the teacher."""
    device = held.deck.tokens.device
    g = torch.Generator(device=device).manual_seed(seed)
    n = 256 if device.type == "cuda" else 64
    loss, hit, count, right, unsure = 0.0, 0.0, 0.0, 0.0, 0.0
    net.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
        for _ in range(4):
            a, b, label = data.pairs(held.deck, n, g)
            ids, types = data.lay(held.deck, a, b, LESSON, torch.zeros_like(label, dtype=torch.bool))
            masked, places, truth = data.mask(ids, net.shape.vocabulary, g)
            hidden = net(masked, types)
            real = truth >= 0
            logits = net.fill(hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))[real]).float()
            loss += float(functional.cross_entropy(logits, truth[real], reduction="sum"))
            hit += float((logits.argmax(-1) == truth[real]).sum())
            count += float(real.sum())
            says = net.follows(net(ids, types)).float()
            right += float((says.argmax(1) == label).sum())
            unsure += float(functional.cross_entropy(says, label, reduction="sum"))
        ids = torch.from_numpy(held.ids).to(device).long()
        found = torch.cat([net.embed(net(part, torch.zeros_like(part)), part) for part in ids.split(128)])
    wanted = torch.from_numpy(held.vectors).to(device).float()
    upper = torch.triu_indices(len(ids), len(ids), 1, device=device)
    both = torch.stack([(m @ m.T)[upper[0], upper[1]] for m in (found, wanted)])
    net.train()
    agrees = float((found * wanted).sum(1).mean()), float(torch.corrcoef(both)[0, 1].nan_to_num())
    told = (loss / count, hit / count, unsure / (4 * n), right / (4 * n), *agrees)
    return dict(zip(MEASURED, told, strict=True))


def optimizer_of(net: Bert) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    groups, fused = decayed(net.parameters(), 0.01), net.token.weight.is_cuda
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, fused=fused)


def fit(
    training: Training, net: Bert, deck: Deck, held: Held, lessons: Lessons, args: argparse.Namespace, say: Say
) -> None:
    """Train `net` in place until the time is over; the best weights by what is held out are kept in BEST.

    Raises ModelError when the loss is no longer a number.
    """
    device = deck.tokens.device
    g = torch.Generator(device=device).manual_seed(args.seed + training.clock.step)
    table: Shelves = []

    def learn(share: float) -> torch.Tensor:
        if share >= PRETRAIN and not table:
            table.extend(_shelves(lessons, device, say))
        loss, parts = _losses(net, deck, table, args, training.clock.step, g)
        warm = min(1.0, max(share, 0.0005) / WARM)
        stepped(training.optimizers[0], args.rate * warm * cosine((share - WARM) / (1 - WARM), 0.02), loss, 1.0)
        return parts

    net.train()
    try:
        training.run(learn, TAUGHT, say, lambda: measure(net, held, args.half), loss_of)
    finally:
        lessons.stop.set()


def _losses(
    net: Bert, deck: Deck, table: Shelves, args: argparse.Namespace, step: int, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one batch: the loss, and its parts (masked words, next sentence, teacher).

    `table`: the teacher's lessons, from the second phase on.
    """
    device = deck.tokens.device
    with torch.autocast(device.type, torch.bfloat16, enabled=args.half):
        length = LESSON if (step + 1) % LONG_EVERY else 128
        n = args.rows * 128 // length // (2 if table else 1)
        mlm, nsp = pair_loss(net, deck, n, length, g)
        loss = mlm + nsp
        lesson = torch.zeros((), device=device)
        if table:
            ids, wanted = table[step % len(table)]
            some = torch.randint(len(ids), (args.rows * 128 // ids.shape[1] // 2,), generator=g, device=device)
            lesson = lesson_loss(net, ids[some], wanted[some])
            loss = loss + 10 * lesson
    return loss, torch.stack([mlm, nsp, lesson]).detach()


def _shelves(lessons: Lessons, device: torch.device, say: Say) -> Shelves:
    """The lessons so far on the device, texts of at most 16, 32 and 64 tokens apart; waits for a first thousand."""
    while sum(len(ids) for ids, _ in lessons.told) < 1000 and not lessons.asked.done():
        time.sleep(0.2)
    lessons.stop.set()
    error = lessons.asked.exception() if lessons.asked.done() else None
    if error is not None or not lessons.told:
        raise ModelError(f"the teacher failed: {error or 'it gave no vector'}")
    pieces, found = zip(*lessons.told, strict=True)
    ids, vectors = (
        torch.from_numpy(np.concatenate(pieces)).to(device),
        torch.from_numpy(np.concatenate(found)).to(device),
    )
    say(f"the teacher's vectors of {len(ids)} texts from here on")
    size = (ids != PAD).sum(1)
    shelves = []
    for low, high in ((0, LESSON // 4), (LESSON // 4, LESSON // 2), (LESSON // 2, LESSON)):
        here = (size > low) & (size <= high)
        if bool(here.any()):
            shelves.append((ids[here][:, :high], vectors[here]))
    return shelves


def pair_loss(net: Bert, d: Deck, n: int, length: int, g: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(MLM loss, NSP loss) of a fresh batch; of the long pairs seven in ten fill their length, of the others half."""
    a, b, label = data.pairs(d, n, g)
    spans = torch.rand(n, generator=g, device=a.device) < (0.7 if length > LESSON else 0.5)
    ids, types = data.lay(d, a, b, length, spans)
    masked, places, truth = data.mask(ids, net.shape.vocabulary, g)
    hidden = net(masked, types)
    at = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2]))
    logits = net.fill(at).float()
    mlm = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), ignore_index=-100)
    return mlm, functional.cross_entropy(net.follows(hidden).float(), label)


def lesson_loss(net: Bert, ids: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - cosine to the teacher's vectors, and how far the similarities among the batch are from the teacher's."""
    ids = ids.long()
    found = net.embed(net(ids, torch.zeros_like(ids)), ids)
    with torch.autocast(found.device.type, enabled=False):
        wanted = wanted.float()
        apart = functional.mse_loss(found @ found.T, wanted @ wanted.T)
        return (1 - (found * wanted).sum(1)).mean() + 5 * apart


def loss_of(found: Mapping[str, float]) -> float:
    """The one number of a measurement by which the best weights are chosen; the less, the better."""
    return found["mlm_loss"] + found["nsp_loss"] + 10 * (1 - found["cosine"])
