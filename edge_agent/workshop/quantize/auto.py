"""``quantize --auto``: of the forms that a network can have, the best for the processor that it is to serve on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edge_agent import __version__
from edge_agent.backends.onnx import saturates
from edge_agent.manifest import Served
from edge_agent.workshop.data.calibration import Say
from edge_agent.workshop.evaluate import score
from edge_agent.workshop.making import Making, sure
from edge_agent.workshop.quantize.search import Memory, SearchResult, Tool, by_cost, distance, keeping, search
from edge_agent.workshop.quantize.tools import bases
from edge_agent.workshop.quantize.without import NONE

SECONDS = 3.0
"""for which forms that meet the budget are timed against each other"""
KEPT, SHARE = 4, 0.01
"""layers that are kept in float at most where nothing is measured, and the share of all layers' costs from which on one
is: made pictures rank the layers well, and tell nothing of how many are needed"""


def best(job: Making, tool: Tool, settings: Mapping[str, Any], work: Path, say: Say) -> SearchResult:
    """The best plan. Of forms that meet the budget, the fastest; in doubt about another processor, that of 7 bits.

    What a plan loses is taken with a standard error on top of it, see `sure`.
    """
    searched = job.part("search")
    judge, far = score.against(job.parent, searched), distance(job.parent, searched)
    whole = judge(job.parent)
    about = [job.row.sha256, job.part("samples").sha256, job.row.format, str(job.args.threads), __version__]
    memory = Memory(work, about, job.others)

    def measure(candidate: Served) -> float:
        return float(whole) + sure(judge(candidate), whole)

    budget = float(whole) - job.args.max_drop
    forms = [bases(tool.parts, settings)]
    # products may saturate where it is to serve: weights of 7 bits are a form, too
    if _saturates(job) and forms[0][0].bits == "8":
        forms.append([msgspec.structs.replace(plan, bits="7w") for plan in forms[0]])
    found = [search(tool, plans, measure, budget, far, memory, say) for plans in forms]
    good = _served_best(job, [one for one in found if one.within])
    if len(good) < 2:
        return good[0] if good else max(found, key=lambda one: one.score)
    took = score.times({str(at): tool.open(tool.make(one.plan)) for at, one in enumerate(good)}, searched, SECONDS)
    return good[int(min(took, key=lambda place: took[place]))]


def _saturates(job: Making) -> bool:
    """Whether products of U8 and S8 may saturate where it is to serve."""
    there = saturates() if job.args.cpu == "here" else job.args.cpu in ("x86", "any")
    return there and job.row.format == "onnx"


def _served_best(job: Making, good: list[SearchResult]) -> list[SearchResult]:
    """How fast a form is can be measured here alone; for another processor without VNNI 7 bits are not slower."""
    if not _saturates(job) or saturates():
        return good
    return [one for one in good if one.plan.bits == "7w"] or good


def unmeasured(job: Making, tool: Tool, settings: Mapping[str, Any], work: Path, say: Say) -> SearchResult:
    """On samples that were made up: the layers in float that cost more than SHARE of all costs, KEPT of them at most.

    Nothing is measured but outputs, so it has no score (NaN). RefusedError where no plan can be made.
    """
    samples = job.part("search")
    memory = Memory(work, [job.row.sha256, samples.sha256, job.row.format, str(job.args.threads), NONE], job.others)
    base, costs, order = by_cost(tool, bases(tool.parts, settings), distance(job.parent, samples), memory, say)
    whole = sum(cost for cost in costs.values() if math.isfinite(cost))
    kept = [part for part in order[:KEPT] if not costs[part.name] <= SHARE * whole]
    return SearchResult(keeping(base, kept), math.nan, True, costs, [], [part.name for part in kept])
