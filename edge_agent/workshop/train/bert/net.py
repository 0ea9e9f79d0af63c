"""The network of edge-bert: a small BERT encoder with its two heads and a sentence vector.

Devlin et al. 2018 with the changes that made it small: normalisation before each block (Xiong et al. 2020), token
vectors narrower than the hidden state (Lan et al. 2019, ALBERT), and the decoder of the masked tokens tied to them.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

EPS = 1e-5
BLOCKED = -10000.0
"""added to the score of a padding token: far below any score, far from the end of float16"""


@dataclass(frozen=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int
    layers: int = 4
    width: int = 256
    heads: int = 4
    inner: int = 512
    """width between the two matrices of a feed-forward block"""
    token: int = 128
    """width of a token's vector before it is widened to `width`"""
    length: int = 128
    """most tokens of one input"""
    embedding: int = 384
    """width of the sentence vector (the teacher's)"""


def waves(length: int, width: int) -> torch.Tensor:
    """(length, width) sines and cosines of the place (Vaswani et al. 2017, 3.5): where the learnt positions begin.

    With queries and keys that begin alike, each place first looks at its neighbours; from random positions a net of
    this size spends its first thousands of steps on learning no more than how frequent each word is.
    """
    at = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    return torch.cat([at.sin(), at.cos()], 1)


class TransformerLayer(nn.Module):  # type: ignore[misc]
    """One block: attention, then the feed-forward part, each normalised before and added to its input."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm1 = nn.LayerNorm(shape.width, EPS)
        self.query = nn.Linear(shape.width, shape.width)
        self.key = nn.Linear(shape.width, shape.width)
        self.value = nn.Linear(shape.width, shape.width)
        self.out = nn.Linear(shape.width, shape.width)
        self.norm2 = nn.LayerNorm(shape.width, EPS)
        self.up = nn.Linear(shape.width, shape.inner)
        self.down = nn.Linear(shape.inner, shape.width)

    def forward(self, x: torch.Tensor, blocked: torch.Tensor) -> torch.Tensor:
        """x (n, L, H); blocked (n, 1, 1, L): added to the scores, 0 where a token stands."""
        n, length, width = x.shape[0], x.shape[1], self.query.in_features
        y = self.norm1(x)
        q, k, v = (
            f(y).view(n, length, self.heads, width // self.heads).transpose(1, 2)
            for f in (self.query, self.key, self.value)
        )
        if x.is_cuda:
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=blocked.to(q.dtype))
        else:  # a third faster than PyTorch's own in training on a CPU
            scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5
            y = (scores + blocked).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class Bert(nn.Module):  # type: ignore[misc]
    """Encoder, heads and sentence vector."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Embedding(shape.vocabulary, shape.token)
        self.position = nn.Embedding(shape.length, shape.token)
        self.segment = nn.Embedding(2, shape.token)
        self.norm0 = nn.LayerNorm(shape.token, EPS)
        self.widen = nn.Linear(shape.token, shape.width)
        self.layers = nn.ModuleList(TransformerLayer(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width, EPS)
        self.project = nn.Linear(shape.width, shape.embedding)
        self.mlm = nn.Linear(shape.width, shape.token)
        self.mlm_norm = nn.LayerNorm(shape.token, EPS)
        self.mlm_bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.pool = nn.Linear(shape.width, shape.width)
        self.nsp = nn.Linear(shape.width, 2)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5 * 0.6)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.05)
        with torch.no_grad():
            self.position.weight.copy_(waves(shape.length, shape.token) * 0.07)
            for layer in self.layers:
                layer.key.weight.copy_(layer.query.weight)

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        """ids, types (n, L) int64, ids 0 where nothing stands -> hidden (n, L, H)."""
        return self.hidden(ids, types, (ids != 0).float(), self.position.weight[: ids.shape[1]])

    def hidden(self, ids: torch.Tensor, types: torch.Tensor, seen: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """As `forward`; seen (n, L): 1 where a token stands; places: the vectors of the positions."""
        blocked = (1 - seen)[:, None, None] * BLOCKED
        x = self.widen(self.norm0(self.token(ids) + places + self.segment(types)))
        for layer in self.layers:
            x = layer(x, blocked)
        hidden: torch.Tensor = self.norm(x)
        return hidden

    def fill(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (..., H) -> logits (..., V) of the masked token."""
        y = self.mlm_norm(functional.gelu(self.mlm(hidden), approximate="tanh"))
        return functional.linear(y, self.token.weight, self.mlm_bias)

    def follows(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden (n, L, H) -> logits (n, 2): index 0, B follows A; index 1, it does not."""
        logits: torch.Tensor = self.nsp(torch.tanh(self.pool(hidden[:, 0])))
        return logits

    def embed(self, hidden: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """hidden (n, L, H), ids (n, L) -> the mean over the tokens, projected, of length 1: (n, E)."""
        here = (ids != 0).to(hidden.dtype)[:, :, None]
        mean = (hidden * here).sum(1) / here.sum(1).clamp(min=1)
        return functional.normalize(self.project(mean).float(), dim=-1)


def half_pays(device: str) -> bool:
    """Whether bfloat16 products are faster than float32 ones here: on GPUs, and on processors made for it."""
    if device.startswith("cuda"):
        return True
    spent = []
    for kind in (torch.float32, torch.bfloat16):
        x = torch.ones(512, 512, dtype=kind)
        x @ x
        begun = time.perf_counter()
        for _ in range(20):
            x @ x
        spent.append(time.perf_counter() - begun)
    return spent[1] < 0.8 * spent[0]
