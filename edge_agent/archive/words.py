"""The words of a question that say what is looked for."""

from __future__ import annotations

import re

from edge_agent.families.same import SAME

MOST_WORDS = 32
"""of a question that are looked for"""
_SAY_NOTHING = (
    "a about and any anybody anyone are as at be because been before but by came can cannot come could did do does",
    "done event events ever find for from get give go got had happened has have he her here him his how i if in into",
    "is it its may me more most my no not of off on one or our out over show so some somebody someone something tell",
    "than that the their them then there these they this those to too two up us was we were what when where which",
    "who whom whose why will with would you your",
)
STOP = {word for line in _SAY_NOTHING for word in line.split()}
"""words that say nothing of what is looked for"""
KINDS = {word: group.replace("_", " ").split() for group in SAME for word in group.split()}
"""word -> words for the same kind of thing"""


def words_of(question: str) -> list[str]:
    """The words that say what is looked for."""
    words = [word.strip("'_") for word in re.findall(r"[\w']+", question.casefold())]
    return list(dict.fromkeys(word for word in words if word and word not in STOP))[:MOST_WORDS]
