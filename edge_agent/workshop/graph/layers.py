"""A network's operators, whatever its format: which belong to one layer, and which stand behind the last of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operator:
    """One of them."""

    name: str
    op: str
    inputs: tuple[str, ...]
    """tensors that are computed; constants are left out"""
    outputs: tuple[str, ...]
    weights: int
    """elements of its float weights; 0 for one that has none"""
    kind: str = ""
    """what these are: fp32, int8 …, see quantize/contents.py; of TFLite alone"""


def groups(operators: Sequence[Operator]) -> dict[str, list[str]]:
    """Each operator with weights, and with it those without that work on its output, up to the next ones with weights.

    Operators before the first one belong to none.
    """
    found: dict[str, list[str]] = {}
    owner: dict[str, str] = {}
    for one in operators:
        first = one.name if one.weights else next((owner[name] for name in one.inputs if name in owner), None)
        if first is not None:
            found.setdefault(first, []).append(one.name)
            owner.update(dict.fromkeys(one.outputs, first))
    return found


def tail(operators: Sequence[Operator]) -> set[str]:
    """Those behind the last one with weights on every way: what joins boxes and scores, for one.

    They cost little, and one scale does not serve what they join.
    """
    read: set[str] = set()
    """tensors that something with weights reads, itself or further on"""
    free = set()
    for one in reversed(operators):
        if one.weights or read & {*one.outputs}:
            read.update(one.inputs)
        else:
            free.add(one.name)
    return free
