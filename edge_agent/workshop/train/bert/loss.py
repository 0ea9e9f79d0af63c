"""The losses of edge-bert: masked words, the next sentence, and the teacher's vectors."""

from __future__ import annotations

import torch
from torch.nn import functional

from edge_agent.workshop.train.bert import data
from edge_agent.workshop.train.bert.data import Deck
from edge_agent.workshop.train.bert.net import Bert

LESSON = 64
"""tokens of a text that is compared with the teacher's vector"""


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


def loss_of(found: dict[str, float]) -> float:
    """The one number of a measurement by which the best weights are chosen; the less, the better."""
    return found["mlm_loss"] + found["nsp_loss"] + 10 * (1 - found["cosine"])
