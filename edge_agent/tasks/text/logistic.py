"""Multinomial logistic regression, by L-BFGS (Nocedal & Wright, Numerical Optimization, alg. 7.4 and 7.5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.types import Floats

Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
MEMORY = 10
"""steps that L-BFGS remembers"""
ROUNDS = 200
"""steps at most"""


def logistic(x: Floats, y: Labels, count: int, l2: float, close: float) -> tuple[Floats, Floats]:
    """Weights (d, K) and bias (K,) of about the least penalised loss.

    The search runs in units in which each column of `x` bends the loss about equally, so few steps do.
    """
    n, size = x.shape
    bend = 0.1 / count
    unit = np.append(1 / np.sqrt(bend * (x**2).sum(0) + l2), 1 / np.sqrt(bend * n)).astype(np.float32)[:, None]
    wide = np.concatenate([x, np.ones((n, 1), np.float32)], 1) * unit[:, 0]
    pull = (l2 * unit**2).astype(np.float32)
    pull[-1] = 0
    rows = np.arange(n)

    def loss(flat: Floats) -> tuple[float, Floats]:
        v = flat.reshape(size + 1, count)
        z = wide @ v
        z -= z.max(1, keepdims=True)
        said = z[rows, y].sum(dtype=np.float64)
        np.exp(z, out=z)
        mass = z.sum(1, keepdims=True)
        value = float(np.log(mass).sum(dtype=np.float64) - said + (pull * v * v).sum(dtype=np.float64) / 2)
        z /= mass
        z[rows, y] -= 1
        return value, (wide.T @ z + pull * v).ravel()

    v = lbfgs(loss, np.zeros((size + 1) * count, np.float32), close).reshape(size + 1, count) * unit
    return v[:size], v[size]


def lbfgs(loss: Callable[[Any], tuple[float, Any]], at: Any, close: float) -> Any:
    """Where a smooth `loss` (value and gradient) is least, by L-BFGS with backtracking (Armijo)."""
    value, slope = loss(at)
    steps: list[tuple[Any, Any, float]] = []
    for _ in range(ROUNDS):
        if np.abs(slope).max() < close * max(1.0, abs(value)):
            break
        way, shares = slope.copy(), []
        for s, g, rho in reversed(steps):
            shares.append(rho * float(s @ way))
            way -= shares[-1] * g
        way *= float(
            (steps[-1][0] @ steps[-1][1]) / (steps[-1][1] @ steps[-1][1]) if steps else 1 / np.linalg.norm(slope)
        )
        for (s, g, rho), share in zip(steps, reversed(shares), strict=True):
            way += s * (share - rho * float(g @ way))
        fall = float(slope @ way)
        length = 1.0
        while length > 1e-10:
            ahead, ahead_slope = loss(at - length * way)
            if ahead <= value - 1e-4 * length * fall:
                break
            length /= 2
        else:
            break
        s, g = -length * way, ahead_slope - slope
        if s @ g > 1e-12:
            steps = [*steps[-MEMORY + 1 :], (s, g, 1 / float(s @ g))]
        at, value, slope = at + s, ahead, ahead_slope
    return at


def softmax(z: Doubles) -> Doubles:
    """(n, K) logits as shares that sum to 1."""
    e = np.exp(z - z.max(1, keepdims=True))
    p: Doubles = e / e.sum(1, keepdims=True)
    return p
