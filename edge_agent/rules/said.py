"""The condition that words stand in a text, however they are written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from msgspec import UNSET

from edge_agent.events import Event
from edge_agent.got import Heard, Read
from edge_agent.rules.facts import Cause, Now
from edge_agent.rules.leaves import Leaf

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""a word; where words are not parted by spaces, a character"""


@lru_cache(maxsize=32)
def plain(text: str) -> str:
    """The words of a text with a space on both sides of each, without marks and capitals."""
    return f" {' '.join(_TOKEN.findall(text.casefold()))} "


@dataclass(slots=True, kw_only=True)
class Said(Leaf):
    """Words stand in a text."""

    phrases: tuple[str, ...]
    """each as `plain` gives it"""
    how: str = "text"
    """text, heard or read"""
    score: float = 0.0

    @property
    def moment(self) -> bool:
        return True

    def hear(self, event: Event, cause: Cause, now: Now, known: bool) -> bool:
        got: object = event.read if event.read is not UNSET else event.heard
        return self._fits(got) and self._says(getattr(event, "text", "")) and self.hit(cause, now)

    def _fits(self, got: object) -> bool:
        """Whether a text that was captured like this counts."""
        if not isinstance(got, Heard | Read):
            return self.how == "text"
        gone = isinstance(got, Read) and got.gone
        way = {"heard": Heard, "read": Read}.get(self.how, object)
        return isinstance(got, way) and not gone and got.score >= self.score

    def _says(self, text: str) -> bool:
        return any(phrase in plain(text) for phrase in self.phrases)
