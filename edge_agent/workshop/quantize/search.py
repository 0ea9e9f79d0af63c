"""``quantize --auto``: which layers stay in float so that the rest may be quantized within a budget of accuracy.

Each layer is quantized alone, and what that does to the network's outputs is its cost; the costliest are kept in float,
as few as meet the budget. That the cost of many layers is about the sum of their own is what HAWQ and its like build on
(Dong et al., arXiv 1905.03696); how many it takes is measured, never assumed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent import files
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Served
from edge_agent.workshop.data.calibration import Samples, Say, feeds
from edge_agent.workshop.quantize.build import QuantizePlan
from edge_agent.workshop.quantize.contents import Contents

FEW = 6
"""samples on which a layer alone is tried"""
FLOOR = 0.1
"""of the mean variance, added to that of each channel: what hardly varies counts little"""


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """A layer that can be quantized or kept."""

    name: str
    op: str
    keep: tuple[str, ...]
    """what a plan names to keep it in float"""


@dataclass(frozen=True, slots=True)
class Tool:
    """What turns a plan into a file, for one model in one format."""

    parts: list[LayerGroup]
    make: Callable[[QuantizePlan], bytes]
    """raises RefusedError where that cannot be"""
    open: Callable[[bytes], Served]
    contents: Callable[[bytes], Contents]
    """what a file holds, read off it"""


@dataclass(slots=True)
class SearchResult:
    """What the search came to."""

    plan: QuantizePlan
    score: float
    """on the samples that were searched with, at least"""
    within: bool
    """whether it meets the budget"""
    costs: dict[str, float]
    """layer -> error at the outputs when it alone is quantized"""
    ladder: list[tuple[int, float]]
    """(layers kept, score), in the order of the layers kept"""
    kept: list[str]


class Memory:
    """What was measured, by what it depends on; in a file, so that an interrupted search goes on where it was."""

    def __init__(self, path: Path, about: Sequence[str], others: Callable[[Any], Future[Any]] | None = None) -> None:
        """`about`: hashes and settings that every figure here depends on; `others`: workers that find figures."""
        self._others, self._asked = others, dict[str, Future[Any]]()
        self.path = path / f"measured-{hashlib.sha256(chr(10).join(about).encode()).hexdigest()[:16]}.json"
        try:
            # not by msgspec: what cannot be made costs infinity, which that writes as null
            self.known: dict[str, float] = {key: float(one) for key, one in json.loads(self.path.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self.known = {}

    def __call__(self, what: str, plan: object, compute: Callable[[], float]) -> float:
        """The figure `what` of a plan, or of what else JSON can tell apart, as it was or as it is found now."""
        key = _key(what, plan)
        if key not in self.known:
            self.known[key] = self._asked.pop(key).result() if key in self._asked else float(compute())
            files.write(self.path, json.dumps(self.known))
        return self.known[key]

    def ahead(self, what: str, points: Sequence[tuple[object, Any]]) -> None:
        """Have the workers find the figure `what` of these, which is wanted next: (plan, a worker's point)."""
        for plan, point in points:
            key = _key(what, plan)
            if self._others is not None and key not in self.known and key not in self._asked:
                self._asked[key] = self._others(point)


def _key(what: str, plan: object) -> str:
    return f"{what} {hashlib.sha256(msgspec.json.encode(plan)).hexdigest()[:24]}"


def distance(parent: Served, samples: Samples) -> Callable[[Served], float]:
    """How far a candidate's outputs are from the parent's: squared error over variance, channel by channel.

    Channels are the last axis of an output; the mean over channels, the greatest over outputs. 0 for equal ones, about
    1 for what has nothing to do with them; infinite where numbers are none.
    """
    count = len(samples.items)
    few = samples.pick(sorted({int(i) for i in np.linspace(0, count - 1, min(FEW, count))}))
    given = list(feeds(parent, few))
    answers = [parent.net.run(feed) for feed in given]
    names = [spec.name for spec in parent.net.outputs if answers[0][spec.name].dtype == np.float32]
    real = {name: np.concatenate([_channels(answer[name]) for answer in answers]) for name in names}
    variance = {name: columns.var(axis=0) for name, columns in real.items()}
    spread = {name: one + FLOOR * one.mean() + 1e-12 for name, one in variance.items()}

    def far(candidate: Served) -> float:
        found = [candidate.net.run(feed) for feed in given]
        worst = 0.0
        for name in names:
            mine = np.concatenate([_channels(answer[name]) for answer in found])
            if not np.isfinite(mine).all():
                return float("inf")
            worst = max(worst, float((((mine - real[name]) ** 2).mean(axis=0) / spread[name]).mean()))
        return worst

    return far


def _channels(value: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(rows, channels)."""
    wide = value.shape[-1] if value.ndim > 1 else 1
    return value.reshape(-1, wide).astype(np.float64)


def search(
    tool: Tool,
    bases: Sequence[QuantizePlan],
    measure: Callable[[Served], float],
    budget: float,
    far: Callable[[Served], float],
    memory: Memory,
    say: Say,
) -> SearchResult:
    """The plan that keeps the fewest layers in float and is within the budget: its score by `measure` is at least that.

    `bases`: plans without kept layers, of which the nearest is taken on. Raises RefusedError where it cannot be made.
    """
    done, total = len(tool.parts), len(tool.parts) + 10
    base, costs, order = by_cost(tool, bases, far, memory, lambda what, number, _: say(what, number, total))

    def rated(count: int) -> float:
        nonlocal done
        done += 1
        say("measuring plans", min(done, total - 1), total)
        plan = keeping(base, order[:count])
        return memory("score", plan, lambda: _scored(tool, plan, measure))

    scores = _ladder(len(order), rated, budget)
    good = [count for count, value in scores.items() if value >= budget]
    fewest = min(good) if good else max(scores, key=lambda count: (scores[count], -count))
    plan, found = keeping(base, order[:fewest]), scores[fewest]
    say("measuring plans", total, total)
    return SearchResult(
        plan, found, found >= budget, costs, sorted(scores.items()), [one.name for one in order[:fewest]]
    )


def keeping(plan: QuantizePlan, parts: Sequence[LayerGroup]) -> QuantizePlan:
    """The plan with these layers in float, too."""
    return msgspec.structs.replace(plan, keep=(*plan.keep, *(name for part in parts for name in part.keep)))


def by_cost(
    tool: Tool, bases: Sequence[QuantizePlan], far: Callable[[Served], float], memory: Memory, say: Say
) -> tuple[QuantizePlan, dict[str, float], list[LayerGroup]]:
    """Of plans that whose outputs are the nearest with every layer quantized; the error at the outputs where a layer
    alone is quantized by it; the layers, the costliest first. RefusedError where it cannot be made.
    """

    def errors(plans: Sequence[QuantizePlan]) -> Iterator[float]:
        memory.ahead("distance", [(one, one) for one in plans])
        return (memory("distance", one, partial(tried, tool, one, far)) for one in plans)

    base = min(zip(errors(bases), bases, strict=True), key=lambda pair: pair[0])[1]
    tool.make(base)
    alone, costs = [keeping(base, [one for one in tool.parts if one != part]) for part in tool.parts], {}
    for number, (part, cost) in enumerate(zip(tool.parts, errors(alone), strict=True)):
        costs[part.name] = cost
        say(f"layer {part.name} alone", number + 1, len(alone))
    return base, costs, sorted(tool.parts, key=lambda part: -costs[part.name])


def tried(tool: Tool, plan: QuantizePlan, far: Callable[[Served], float]) -> float:
    """Error at the outputs; infinite for what cannot be made. A layer that is never quantized costs nothing."""
    try:
        return far(tool.open(tool.make(plan)))
    except RefusedError as error:
        return 0.0 if "left to quantize" in str(error) else float("inf")


def _scored(tool: Tool, plan: QuantizePlan, measure: Callable[[Served], float]) -> float:
    try:
        return measure(tool.open(tool.make(plan)))
    except EdgeAgentError:
        return 0.0


def _ladder(count: int, score: Callable[[int], float], budget: float) -> dict[int, float]:
    """Scores of 0, 1, 2, 4, 8, ... kept layers up to the first that meets the budget, then of what lies between."""
    scores, low, high = {0: score(0)}, 0, 0
    while scores[high] < budget and max(1, high * 2) < count:
        low, high = high, max(1, high * 2)
        scores[high] = score(high)
    while scores[high] >= budget and high - low > 1:
        middle = (low + high) // 2
        scores[middle] = score(middle)
        low, high = (low, middle) if scores[middle] >= budget else (middle, high)
    return scores
