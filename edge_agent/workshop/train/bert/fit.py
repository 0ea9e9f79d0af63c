"""The training of edge-bert: masked words and next sentences first, then the teacher's sentence vectors as well.

The plan is one of time: the learning rate and the change of phase follow the share of the minutes that is spent, so
that a run of any length is a whole one, and a resumed one goes on where it was.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edge_agent.errors import ModelError
from edge_agent.workshop.train.bert import data
from edge_agent.workshop.train.bert.data import CLS, PAD, SEP, Deck
from edge_agent.workshop.train.bert.loss import LESSON, lesson_loss, loss_of, pair_loss
from edge_agent.workshop.train.bert.net import Bert
from edge_agent.workshop.train.bert.teacher import Vectors

Shelves = list[tuple[torch.Tensor, torch.Tensor]]
"""ids (n, L) and the teacher's vectors (n, E), texts of like length together"""


@dataclass(frozen=True)
class TrainPlan:
    """How a run is spent."""

    seconds: float
    """of training, all phases together"""
    rows: int
    """sequences of 128 tokens in a batch; twice as many of 64"""
    rate: float = 1.5e-3
    """peak of the learning rate, after a warm-up of 2 % and before a cosine to a fiftieth"""
    pretrain: float = 0.35
    """share of the time for the first phase"""
    long_every: int = 8
    """one batch in so many is of 128 tokens, the others of 64"""
    half: bool = True
    """bfloat16 where it does no harm; a processor without it is faster in float32"""
    seed: int = 1
    save_every: float = 60.0
    """seconds"""


@dataclass
class Lessons:
    """Texts with the teacher's vectors, growing in a thread of their own while the first phase trains."""

    ids: list[NDArray[np.int32]] = field(default_factory=list)
    """(n, 64) each, PAD where nothing stands"""
    vectors: list[NDArray[np.float16]] = field(default_factory=list)
    """(n, E) each"""
    stop: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


def teach(lessons: Lessons, texts: list[str], tokenizer: Any, vectors: Vectors, chunk: int = 2000) -> threading.Thread:
    """Starts the thread that fills `lessons`; an exception of the teacher is kept in `lessons.error`."""

    def work() -> None:
        try:
            for at in range(0, len(texts), chunk):
                if lessons.stop.is_set():
                    return
                some = texts[at : at + chunk]
                found = vectors(some).astype(np.float16)
                lessons.ids.append(rows(tokenizer, some))
                lessons.vectors.append(found)
        except (RuntimeError, ValueError, ModelError) as error:
            lessons.error = error

    thread = threading.Thread(target=work, name="teacher", daemon=True)
    thread.start()
    return thread


def rows(tokenizer: Any, texts: list[str]) -> NDArray[np.int32]:
    """(n, 64) token ids with [CLS] and [SEP], cut or padded."""
    table = np.full((len(texts), LESSON), PAD, np.int32)
    for row, e in zip(table, tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True):
        words = [CLS, *e.ids[: LESSON - 2], SEP]
        row[: len(words)] = words
    return table


@dataclass(frozen=True)
class Held:
    """What progress is measured on: documents that are never trained on."""

    deck: Deck
    ids: NDArray[np.int32]
    vectors: NDArray[np.float16]


def rate_at(share: float, peak: float) -> float:
    """The learning rate after a share of the time."""
    if share < 0.02:
        return peak * max(share, 0.0005) / 0.02
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - 0.02) / 0.98))))


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
    return {
        "mlm_loss": loss / count,
        "mlm_top1": hit / count,
        "nsp_loss": unsure / (4 * n),
        "nsp": right / (4 * n),
        "cosine": float((found * wanted).sum(1).mean()),
        "pearson": float(torch.corrcoef(both)[0, 1].nan_to_num()),
    }


def optimizer_of(net: Bert) -> torch.optim.AdamW:
    """AdamW; matrices decay, vectors do not."""
    wide = [p for p in net.parameters() if p.ndim > 1]
    thin = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": wide, "weight_decay": 0.01}, {"params": thin, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6, fused=wide[0].is_cuda)


def fit(
    net: Bert,
    deck: Deck,
    held: Held,
    lessons: Lessons,
    plan: TrainPlan,
    save: Callable[[torch.optim.AdamW, dict[str, Any], bool], None],
    say: Callable[[str], None],
    state: dict[str, Any] | None = None,
    optimizer: torch.optim.AdamW | None = None,
) -> dict[str, Any]:
    """Trains `net` in place until the plan's time is spent; returns the state.

    `state` is what an earlier run ended with ({"elapsed", "step", "least", "curve"}). `save(optimizer, state, best)` is
    called after each measurement, `best` when the held-out loss is the least so far. Raises ModelError when the loss
    is no longer a number; what `save` was last given is then the last good state.
    """
    device = deck.tokens.device
    optimizer = optimizer or optimizer_of(net)
    state = state or {"elapsed": 0.0, "step": 0, "least": float("inf"), "curve": []}
    g = torch.Generator(device=device).manual_seed(plan.seed + state["step"])
    table: Shelves = []
    net.train()
    begun, saved = time.monotonic() - state["elapsed"], time.monotonic()
    news = _News(plan, say, torch.zeros(4, device=device))
    while (elapsed := time.monotonic() - begun) < plan.seconds:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(elapsed / plan.seconds, plan.rate)
        if elapsed / plan.seconds >= plan.pretrain and not table:
            table = _shelves(lessons, device, say)
        optimizer.zero_grad(set_to_none=True)
        loss, parts, tokens = _losses(net, deck, table, plan, state["step"], g)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        news.seen += parts
        news.tokens += tokens
        state["step"] += 1
        if state["step"] % 10 and device.type == "cuda":
            continue
        news.tell(state["step"], elapsed, begun)
        now = time.monotonic()
        if now - saved >= plan.save_every:
            saved = now
            _keep(net, optimizer, held, plan, state, now - begun, save, say)
    if not state["curve"] or state["curve"][-1]["step"] < state["step"]:
        _keep(net, optimizer, held, plan, state, plan.seconds, save, say)
    lessons.stop.set()
    return state


def _losses(
    net: Bert, deck: Deck, table: Shelves, plan: TrainPlan, step: int, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Of one batch: the loss, its parts (masked words, next sentence, teacher, 1) and the number of tokens.

    `table`: the teacher's lessons, from the second phase on.
    """
    device = deck.tokens.device
    with torch.autocast(device.type, torch.bfloat16, enabled=plan.half):
        length = LESSON if (step + 1) % plan.long_every else 128
        n = plan.rows * 128 // length // (2 if table else 1)
        mlm, nsp = pair_loss(net, deck, n, length, g)
        loss, tokens = mlm + nsp, n * length
        lesson = torch.zeros((), device=device)
        if table:
            ids, wanted = table[step % len(table)]
            some = torch.randint(len(ids), (plan.rows * 128 // ids.shape[1] // 2,), generator=g, device=device)
            lesson = lesson_loss(net, ids[some], wanted[some])
            tokens += len(some) * ids.shape[1]
            loss = loss + 10 * lesson
    return loss, torch.stack([mlm, nsp, lesson, torch.ones_like(mlm)]).detach(), tokens


@dataclass
class _News:
    """What is said of the losses, every five seconds."""

    plan: TrainPlan
    say: Callable[[str], None]
    seen: torch.Tensor
    """sums of the parts of the loss, and of steps"""
    tokens: int = 0
    told: float = field(default_factory=time.monotonic)

    def tell(self, step: int, elapsed: float, begun: float) -> None:
        """Say the means since the last time. ModelError where a loss is no number."""
        if not bool(torch.isfinite(self.seen).all()):
            raise ModelError(
                f"the loss is no number at step {step}: training stopped, the last checkpoint is the last "
                "good one; go on from it with --resume and a lower --rate"
            )
        now = time.monotonic()
        if now - self.told < 5:
            return
        mean = (self.seen / self.seen[3]).tolist()
        left = max(0.0, self.plan.seconds - (now - begun))
        self.say(
            f"{elapsed / self.plan.seconds:4.0%} step {step} mlm {mean[0]:.3f} nsp {mean[1]:.3f} "
            f"teacher {mean[2]:.3f} {self.tokens / (now - self.told):,.0f} tokens/s, {left / 60:.1f} min left"
        )
        self.told, self.tokens = now, 0
        self.seen.zero_()


def _keep(
    net: Bert,
    optimizer: torch.optim.AdamW,
    held: Held,
    plan: TrainPlan,
    state: dict[str, Any],
    elapsed: float,
    save: Callable[[torch.optim.AdamW, dict[str, Any], bool], None],
    say: Callable[[str], None],
) -> None:
    """Measures, notes it in the curve and saves."""
    found = measure(net, held, plan.half)
    state["elapsed"] = elapsed
    state["curve"].append({"seconds": round(elapsed, 1), "step": state["step"], **found})
    loss = loss_of(found)
    best = loss <= state["least"]
    state["least"] = min(loss, state["least"])
    say("held-out " + " ".join(f"{k} {v:.4f}" for k, v in found.items()))
    save(optimizer, state, best)


def _shelves(lessons: Lessons, device: torch.device, say: Callable[[str], None]) -> Shelves:
    """The lessons so far on the device, texts of at most 16, 32 and 64 tokens apart; waits for a first thousand."""
    while sum(map(len, lessons.ids)) < 1000 and lessons.error is None:
        if not any(t.name == "teacher" for t in threading.enumerate()):
            break
        time.sleep(0.2)
    lessons.stop.set()
    if lessons.error is not None or not lessons.vectors:
        raise ModelError(f"the teacher failed: {lessons.error or 'it gave no vector'}")
    count = min(len(lessons.ids), len(lessons.vectors))
    ids = torch.from_numpy(np.concatenate(lessons.ids[:count])).to(device)
    vectors = torch.from_numpy(np.concatenate(lessons.vectors[:count])).to(device)
    say(f"the teacher's vectors of {len(ids)} texts from here on")
    size = (ids != PAD).sum(1)
    shelves = []
    for low, high in ((0, LESSON // 4), (LESSON // 4, LESSON // 2), (LESSON // 2, LESSON)):
        here = (size > low) & (size <= high)
        if bool(here.any()):
            shelves.append((ids[here][:, :high], vectors[here]))
    return shelves
