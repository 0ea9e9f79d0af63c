"""A line of numbers, read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import InputError
from edge_agent.types import Floats


def numbers(line: str, size: int) -> Sequence[Floats]:
    """The windows of `size` numbers in a line. InputError when it is no list of finite numbers or another length."""
    words = line.strip().removeprefix("[").removesuffix("]").replace(",", " ").split()
    try:
        with np.errstate(over="ignore"):
            found = np.array(words, np.float32)
    except ValueError:
        raise InputError(f'"{line[:40]}" is no list of numbers') from None
    if not len(found) or len(found) % size:
        raise InputError(f"the line has {len(found)} numbers, the network takes {size}, or a whole multiple of that")
    if not np.isfinite(found).all():
        raise InputError("a number in the line is not finite")
    return found.reshape(-1, size)  # type: ignore[return-value]
