"""What people read of events: a title, and a text in plain words."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent.config import Notify
from edge_agent.events import EVENTS, Event

MOST_TITLE, MOST_TEXT = 200, 2000
"""characters; receivers cut longer ones, or refuse them"""
SHOWN = 5
"""of the events that were held back, the last ones are said in words"""


class Note(NamedTuple):
    """A message to people."""

    title: str
    text: str
    events: Sequence[Event] = ()
    """that it is about, the newest last"""
    picture: Path | None = None
    """JPEG of the newest"""


def note_of(config: Notify, events: Sequence[Event], dropped: int, picture: Path | None = None) -> Note:
    """The message on the newest of some events; it says which others were held back, and how many were `dropped`."""
    held = [_body(event) for event in events[:-1]]
    lines = [filled(config.message, events[-1])]
    if held:
        lines.append(f"and {len(held)} more, held back since {_clock(held[0])}:")
        lines += [f"{_clock(body)} {_words(body)}" for body in held[-SHOWN:]]
    if dropped:
        lines.append(f"({dropped} older ones could not be sent)")
    title = filled(config.title, events[-1])[:MOST_TITLE]
    return Note(title, "\n".join(lines)[:MOST_TEXT], events, picture)


def _body(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.to_builtins(event)
    return body


def filled(text: str, event: Event) -> str:
    """A text of the config with what an event says in the places of its braces, on one line."""
    body = _body(event)
    values = {name: _plain(value) for name, value in body.items()}
    values |= {"words": _words(body), "time": _clock(body), "what": str(body.get("rule") or body["pipeline"])}
    return one_line(re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], ""), text))


def _words(body: Mapping[str, Any]) -> str:
    """An event in plain words, of a rule why it is on or off; its kind, where its words are kept back, or it lacks what
    they are made of.
    """
    if body["kind"] == "rule" and body["why"]:
        return one_line(body["why"])
    with contextlib.suppress(KeyError, TypeError):
        words = one_line(EVENTS[body["kind"]].words(body))
        if words.strip('" '):
            return words
    return str(body["kind"])


def _clock(body: Mapping[str, Any]) -> str:
    """The time of day of an event, as the device's clock on the wall shows it."""
    return time.strftime("%H:%M", time.localtime(datetime.fromisoformat(body["at"].replace("Z", "+00:00")).timestamp()))


def _plain(value: object) -> str:
    """A value of an event as text; "" for what is no text, number or list of these."""
    if isinstance(value, list):
        return ", ".join(filter(None, map(_plain, value)))
    return "" if isinstance(value, dict) or value is None else str(value)


def one_line(text: str) -> str:
    """A text without line ends and control characters, which have a meaning in the heads of mails."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
