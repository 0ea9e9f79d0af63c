"""Words that were heard against words that were said."""

from __future__ import annotations

import re
from collections.abc import Sequence


def plain(text: str) -> list[str]:
    """The words of a text in small letters, without what is not spoken."""
    words = re.sub(r"[^\w']+", " ", text.casefold().replace("\u2019", "'")).split()
    return [word for word in (word.strip("'_") for word in words) if word]


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words that have to be put in, left out or changed to make the one the other (Levenshtein 1966)."""
    costs = list(range(len(heard) + 1))
    for row, word in enumerate(said, 1):
        corner, costs[0] = costs[0], row
        for column, other in enumerate(heard, 1):
            corner, costs[column] = (
                costs[column],
                min(costs[column] + 1, costs[column - 1] + 1, corner + (word != other)),
            )
    return costs[-1]
