"""Which of two steps takes less of the processor?"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable

TURNS, SECONDS = 12, 1.0
"""in which a network and the same one rewritten are timed: so many at least, and more where they are short"""


def share(before: Callable[[], object], after: Callable[[], object]) -> float:
    """Processor time of the step `after` over that of the one `before`; taken in turns."""
    took: list[list[float]] = [[], []]
    until = time.monotonic() + SECONDS
    for turn in itertools.count():
        if turn > TURNS and time.monotonic() > until:
            break
        for side in (0, 1) if turn % 2 else (1, 0):
            step = (after, before)[side]
            began = time.thread_time()
            step()
            took[side].append(time.thread_time() - began)
    shares = [ours / theirs for ours, theirs in zip(*took, strict=True)]
    return float(statistics.median(shares[1:]))
