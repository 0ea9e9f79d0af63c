"""What of captured text goes on: without what names a person, or not at all.

One place: each Text is made so when it comes into the chain of tasks and when a task gives one (pipeline.py), so
models, vectors, places in the text and what is stored know no other; and each event once more before it is kept
(report.py), as a task may say text of its own.
"""

from __future__ import annotations

import json
import logging
import re
import select
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import msgspec

from edge_agent.config import Privacy
from edge_agent.errors import tenfold
from edge_agent.events import Event, is_captured
from edge_agent.personal import FINDERS, Place, plain, replaced
from edge_agent.programs import environment, python
from edge_agent.types import Finding, Sample, Text

log = logging.getLogger("edge_agent")

ANSWER_S = 10.0
"""seconds after which the child that looks for the config's own patterns is given up; it ends by itself long before"""
MOST_ROUNDS = 9
"""what stood behind one thing that was taken out may be found without it"""
UNCHECKED = "[unchecked]"
"""what stands for a text that could not be looked through"""
Item = TypeVar("Item", bound="Sample | Finding")


class Hider:
    """Takes what `[privacy]` names out of texts. For any thread."""

    def __init__(self, names: list[str], patterns: dict[str, str]) -> None:
        """`names`: of FINDERS; `patterns`: name -> regular expression of the config."""
        self._finders = [(name, find) for name, find in FINDERS.items() if name in names]
        self._own = _Own(patterns) if patterns else None
        # what is replaced once stays as it is
        known = "|".join(map(re.escape, [*names, *patterns, UNCHECKED[1:-1]]))
        self._done = re.compile(rf"\[(?:{known})\]")

    def __call__(self, text: str) -> str:
        """The text with [email] and the like in it; UNCHECKED for one that the config's patterns take too long on."""
        for _ in range(MOST_ROUNDS):
            before, form = text, plain(text)
            own = self._own(form[0]) if self._own else []
            if own is None:
                return UNCHECKED
            text = replaced(text, form, self._found(form[0], own))
            if text == before:
                break
        return text

    def close(self) -> None:
        """End the child, if there is one."""
        if self._own:
            self._own.end()

    def _found(self, told: str, own: list[tuple[str, Place]]) -> Iterator[tuple[str, Place]]:
        if "[" in told:
            yield from ((match[0][1:-1], match.span()) for match in self._done.finditer(told))
        yield from own
        for name, find in self._finders:
            yield from ((name, place) for place in find(told))


def hider(asked: Privacy) -> Hider | None:
    """What a config asks for; None where that is nothing."""
    return Hider(list(asked.redact), asked.patterns) if asked.redact or asked.patterns else None


class _Own:
    """The config's own patterns, looked for in a child (patterns.py) that can be ended."""

    def __init__(self, patterns: dict[str, str]) -> None:
        self._patterns = patterns
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._unchecked = 0

    def __call__(self, text: str) -> list[tuple[str, Place]] | None:
        """Name and place of each that is found; None where that took too long."""
        with self._lock:
            try:
                found = self._ask(text)
            except (OSError, ValueError) as error:
                self.end()
                found, why = None, f"cannot be looked for ({error})"
            else:
                why = "take too long on a text"
            if found is None:
                self._unchecked += 1
                if tenfold(self._unchecked):
                    log.warning("privacy.patterns: %s; %d texts withheld so far", why, self._unchecked)
                return None
            return [(name, (start, end)) for name, start, end in found]

    def _ask(self, text: str) -> list[tuple[str, int, int]] | None:
        """The child's answer. OSError, ValueError where it gives none."""
        if self._child is None:
            command = python("edge_agent.walk.patterns")
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), start_new_session=True
            )
            self._tell(self._patterns)
        self._tell(text)
        assert self._child.stdout is not None
        if not select.select([self._child.stdout], [], [], ANSWER_S)[0]:
            raise TimeoutError("no answer")
        found: list[tuple[str, int, int]] | None = json.loads(self._child.stdout.readline() or "!")
        return found

    def _tell(self, value: object) -> None:
        assert self._child is not None and self._child.stdin is not None
        self._child.stdin.write(json.dumps(value).encode() + b"\n")
        self._child.stdin.flush()

    def __del__(self) -> None:
        # after a reload there are others; a pipeline that still works on a text holds these until it is done
        self.end()

    def end(self) -> None:
        """The next text gets a new one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
        self._child = None


@dataclass(slots=True, eq=False)
class Guard:
    """What one pipeline lets through. `hide` may be changed while it works."""

    hide: Callable[[str], str] | None = None
    """takes what names a person out of a text; None: nothing is"""
    words: bool = True
    """whether events may hold the words themselves"""

    def sample(self, item: Item) -> Item:
        """A text as the tasks may see it; anything else as it is."""
        if self.hide is None or not isinstance(item, Text):
            return item
        return msgspec.structs.replace(item, text=self.hide(item.text))

    def event(self, event: Event, found: Sample | Finding) -> Event:
        """An event as it may be kept; `found`: what it was made from."""
        if not self.words:
            return without_words(event)
        if self.hide is None:
            return event
        hide, text = self.hide, (found.of if isinstance(found, Finding) else found).text
        # what stands in the text is clean, and the places of spans fit it
        return _changed(event, lambda value, empty: _each(value, lambda said: said if said in text else hide(said)))

    def why(self, error: Exception) -> str:
        """An error's message as it may be logged: it may hold the text that it is about."""
        if not self.words:
            return f"{type(error).__name__} on a text that is kept private"
        return str(error) if self.hide is None else self.hide(str(error))


OPEN = Guard()
Struct = TypeVar("Struct", bound=msgspec.Struct)


def without_words(event: Event) -> Event:
    """An event without what was captured in words."""
    return _changed(event, _nothing)


def _nothing(value: object, empty: object) -> object:
    return empty


def _each(value: Any, change: Callable[[str], str]) -> Any:
    """A value with each text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {_each(key, change): _each(one, change) for key, one in value.items()}
    return type(value)(_each(one, change) for one in value) if isinstance(value, list | tuple) else value


def _changed(struct: Struct, change: Callable[[Any, Any], Any]) -> Struct:
    """A struct with each captured field of it, and of structs in it, changed; `change` gets what stands there and what
    stands there when it is empty.
    """
    made: dict[str, Any] = {}
    for name, captured, empty in _fields(type(struct)):
        value = getattr(struct, name)
        if captured:
            made[name] = change(value, empty)
        elif (changed := _within(value, change)) is not value:
            made[name] = changed
    return msgspec.structs.replace(struct, **made) if made else struct


def _within(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    """A value with the structs in it changed; itself where there are none."""
    if isinstance(value, msgspec.Struct):
        return _changed(value, change)
    if isinstance(value, list | tuple) and any(isinstance(one, msgspec.Struct) for one in value):
        return type(value)(_within(one, change) for one in value)
    return value


@lru_cache(maxsize=64)
def _fields(kind: type[msgspec.Struct]) -> list[tuple[str, bool, object]]:
    """Name of each field, whether it is captured, and what stands there when it is empty."""
    hints = get_type_hints(kind, include_extras=True)
    fields = msgspec.structs.fields(kind)
    return [(one.name, is_captured(hints[one.name]), "" if one.required else one.default) for one in fields]
