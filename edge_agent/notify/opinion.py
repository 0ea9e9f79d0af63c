"""A second opinion: a larger model at an address of the user's is shown an alert's picture, and what it says becomes an
event. Whatever it says, or does not, changes nothing of the alert.
"""

from __future__ import annotations

import base64
import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, get_args

import msgspec

from edge_agent.config import Opinion, secret
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.events import UNREADABLE, Event, OpinionEvent
from edge_agent.events.opinion import Verdict
from edge_agent.files import read_regular
from edge_agent.notify.message import filled, one_line
from edge_agent.notify.post import Answer, post
from edge_agent.notify.receiver import Picture, Receiver, Told
from edge_agent.notify.send import Sent, check_ca, judged
from edge_agent.notify.spool import Waiting

MOST_ANSWER, MOST_SAID = 200_000, 1000
"""bytes of an answer; characters of what it says that go into an event"""
MOST_PICTURE = 200_000
"""bytes"""
ANSWER_S = 120.0
"""seconds that a model may think"""
ROOM = 100_000
"""bytes of a day that have to be left for a question to be asked: more than one with a snapshot takes"""
VERDICTS = tuple(filter(None, get_args(Verdict)))


class Purse(Protocol):
    """A day's bytes."""

    per_day: int | None

    @property
    def left(self) -> float:
        """That may still be spent today."""

    def spend(self, size: int) -> None:
        """So many were."""


Doubted = Callable[[str, str, bytes, str], None]
"""(pipeline, when, a JPEG, why)"""


class _Part(msgspec.Struct, frozen=True):
    text: str = ""


class _Message(msgspec.Struct, frozen=True):
    content: str | list[_Part] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Reply(msgspec.Struct, frozen=True):
    choices: list[_Choice]


class Opinions(Receiver):
    """Questions about events, one after the other."""

    def __init__(
        self,
        config: Opinion,
        place: Path,
        picture: Picture,
        purse: Purse,
        keep: Callable[[OpinionEvent], Event],
        doubted: Doubted | None = None,
    ) -> None:
        """`keep`: keeps an event, as what its pipeline lets through of it; `doubted` is given the picture of each event
        that the larger model says no to, None: nobody wants it. Raises OSError.
        """
        super().__init__("opinion", config, place, picture)
        self._purse, self._keep, self._doubted = purse, keep, doubted
        self._own: deque[str] = deque(maxlen=1000)
        """ids of events of ours: of a rule that they make come true nothing is asked, or it would never end"""

    @property
    def config(self) -> Opinion:
        """As its section says now."""
        assert isinstance(self.choice, Opinion)
        return self.choice

    def turn_to(self, choice: Told) -> None:
        super().turn_to(choice)
        self._purse.per_day = self.config.bytes_per_day

    def settle(self, number: int, event: Event, picture: str) -> None:
        """As of a Receiver; what has no picture is not asked about."""
        if picture and not set(getattr(event, "because", ())) & set(self._own):
            super().settle(number, event, picture)
        else:
            self.spool.done([number])

    def is_quiet(self, at: float) -> bool:
        return self._purse.left < ROOM

    def deliver(self, events: Sequence[Waiting]) -> Sent:
        waiting = events[-1]
        path = self.picture(waiting.picture)
        try:
            data = read_regular(path, MOST_PICTURE) if path is not None else b""
        except OSError:
            data = b""
        if not data:
            return Sent("gone", "its picture is there no more")
        config = self.config
        answer = ask(config, filled(config.prompt, waiting.event), data, self._purse)
        said, sent = read(answer)
        if said is None:
            return sent
        event = waiting.event
        kept = self._keep(
            OpinionEvent(
                pipeline=event.pipeline,
                at=event.at,
                age_ms=_age(event.at),
                about=event.id,
                by=config.model,
                verdict=verdict(said),
                answer=said,
            )
        )
        self._own.append(kept.id)
        if self._doubted is not None and isinstance(kept, OpinionEvent) and kept.verdict == "no":
            self._doubted(event.pipeline, event.at, data, f"{kept.by} on {event.id}: {kept.answer or 'no'}"[:200])
        return Sent("taken")


def ask(config: Opinion, prompt: str, picture: bytes, purse: Purse) -> Answer:
    """Put a question, with a JPEG or without one (b""). Never raises."""
    content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
    if picture:
        address = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
        content.append({"type": "image_url", "image_url": {"url": address}})
    asked = {**config.options, "model": config.model, "messages": [{"role": "user", "content": content}]}
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "edge-agent"}
    try:
        if key := key_of(config):
            headers["Authorization"] = f"Bearer {key}"
    except EdgeAgentError as error:
        return Answer(401, str(error))
    body = msgspec.json.encode(asked)
    answer = post(config.address, body, headers, ca=config.ca, most=MOST_ANSWER, limit_s=ANSWER_S)
    purse.spend(len(body) + len(answer.body))
    return answer


def read(answer: Answer) -> tuple[str | None, Sent]:
    """What an answer says, on one line; None, and what is to become of the question, where it is none."""
    sent = judged(answer)
    if sent.how != "taken":
        return None, sent
    if answer.why or answer.kind != "application/json":
        return None, Sent("refused", answer.why or "it answers something else than JSON")
    try:
        content = msgspec.json.decode(answer.body, type=_Reply).choices[0].message.content
    except (IndexError, *UNREADABLE):
        return None, Sent("refused", "its answer is not one of chat/completions")
    text = content if isinstance(content, str) else " ".join(part.text for part in content or ())
    said = one_line(text[: 4 * MOST_SAID])[:MOST_SAID]
    return (said, sent) if said else (None, Sent("refused", "its answer is empty"))


def verdict(said: str) -> Verdict:
    """The first word of an answer, where it is one of a verdict."""
    word = re.match(r"\W*(\w+)", said)
    first = word[1].lower() if word else ""
    return first if first in VERDICTS else ""  # type: ignore[return-value]


def _age(at: str) -> float | None:
    """Milliseconds since then; None for a time that is none."""
    try:
        then = datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None
    return round(max(0.0, time.time() - then) * 1000, 1)


def key_of(config: Opinion) -> str:
    """The key, as its file says now; "" where none is needed. ConfigError, which does not show it."""
    if config.key_file is None:
        return ""
    key = secret(config.key_file, "opinion.key_file").strip()
    if not re.fullmatch(r"[\x21-\x7e]{1,2000}", key):
        raise ConfigError(f"opinion.key_file: {config.key_file} holds no key; write it alone on one line")
    return key


def check(config: Opinion) -> None:
    """ConfigError for a key or an authority that cannot be had."""
    key_of(config)
    check_ca("opinion", config.ca)


class _NoPurse:
    per_day: int | None = None
    left = float("inf")

    def spend(self, size: int) -> None:
        """It costs nothing."""


def tried(config: Opinion) -> tuple[bool, str]:
    """Ask something without a picture; whether an answer came, and a line about it."""
    said, sent = read(ask(config, "Answer with the one word yes.", b"", _NoPurse()))
    return said is not None, f"opinion: {sent.why or f'{config.model} answers (it was shown no picture)'}"
