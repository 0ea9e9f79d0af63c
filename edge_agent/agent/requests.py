"""``cmd/understand``: a text, and what is to be done with it; answered beside the pipelines, one after the other.

A client that may publish there chooses from what the config allows: the models of pipelines and those that are
named under ``[understand]``, its documents and its labels, never a path.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.config import Pipeline
from edge_agent.config.sections import Understand
from edge_agent.errors import EdgeAgentError, InputError, within
from edge_agent.events import UNREADABLE
from edge_agent.paths import home
from edge_agent.tasks import TASKS, TaskRow, found_at, make_task
from edge_agent.tasks.text import captured
from edge_agent.types import Finding, Task, Text
from edge_agent.uri import Uri, parse_task
from edge_agent.walk.fair import Client
from edge_agent.walk.lane import work_for

if TYPE_CHECKING:
    from edge_agent.manifest import Served
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

WAITING = 8
"""requests that wait to be answered; more are refused"""
KEPT = 4
"""tasks that are kept ready, those that were asked last"""
MOST_TOP = 20
NOT_TAKEN = "texts are not taken here; write [understand] into the config"
LAST = Client(priority=0, share=0.5)
"""pipelines go before requests"""
Reply = Callable[["dict[str, Any]"], None]


class Request(msgspec.Struct, frozen=True):
    """What a command says."""

    text: str
    task: str = "classify"
    model: str = ""
    """empty: the one that the task usually runs on, or the first that may be asked and can do it"""
    second: str = ""
    """follows: whether this goes on from `text`"""
    context: str = ""
    """answer: the text to look in; empty: the config's documents and what was lately captured"""
    store: str = ""
    top: int = 0


def check(allowed: Understand | None) -> None:
    """Raise an EdgeAgentError for a model that `[understand]` names and that is not here."""
    from edge_agent.registry import catalogue

    for name in allowed.models if allowed is not None else ():
        with within("understand.models"):
            catalogue.locate(name)


class Requests:
    """Answers requests on a thread of its own."""

    def __init__(
        self, allowed: Understand | None, models: Models, pipes: Callable[[], Sequence[Pipeline]] = tuple
    ) -> None:
        """`allowed`: the section of the config, None where it has none; `pipes`: those that are at work now.

        Raises an EdgeAgentError for a model that is named and not here.
        """
        self._allowed, self._models, self._pipes = allowed, models, pipes
        self.turn_to(allowed)()
        self._ready: OrderedDict[tuple[str, ...], tuple[str, Task]] = OrderedDict()
        self._waiting: queue.Queue[tuple[bytes, Reply]] = queue.Queue(WAITING)

    def turn_to(self, allowed: Understand | None) -> Callable[[], None]:
        """What has this section hold from then on. Raises an EdgeAgentError for a model that is named and not here."""
        check(allowed)

        def act() -> None:
            self._allowed = allowed
            captured.keep(allowed.captured if allowed is not None else 0)

        return act

    def ask(self, payload: bytes, reply: Reply) -> None:
        """Take a request; `reply` is called on another thread, or at once where it cannot be taken."""
        if self._allowed is None:
            reply({"ok": False, "error": NOT_TAKEN})
            return
        try:
            self._waiting.put_nowait((payload, reply))
        except queue.Full:
            reply({"ok": False, "error": f"{WAITING} requests wait already; try again later"})

    def work(self, stop: threading.Event) -> None:
        """Answer until `stop` is set."""
        while not stop.is_set():
            try:
                payload, reply = self._waiting.get(timeout=0.5)
            except queue.Empty:
                continue
            try:
                if self._allowed is None:  # the config was turned to while it waited
                    raise InputError(NOT_TAKEN)
                reply({"ok": True, "result": self._answer(payload)})
            except (EdgeAgentError, msgspec.ValidationError) as error:
                reply({"ok": False, "error": str(error)})
            except Exception as error:  # a bug: the client is told, and the next one is answered
                log.exception("a request could not be answered")
                reply({"ok": False, "error": f"not answered: {type(error).__name__}"})

    def _answer(self, payload: bytes) -> dict[str, Any]:
        """What the reply holds. Raises an EdgeAgentError, one line."""
        asked, row = _asked(payload)
        task = self._task(asked, row, self._model(asked, row))
        began = time.monotonic()
        with work_for(LAST, began):
            found = [one for text in _texts(asked) for one in task(Text(text, time.time(), began))]
            found += getattr(task, "ended", tuple)()
        if asked.task == "follows":
            found = found[-1:]
        show, told = found_at(row.show), [one for one in found if isinstance(one, Finding)]
        refs = {"model": msgspec.to_builtins(told[-1].model)} if told else {}
        return {**refs, "found": [show(one)[0] for one in told]}

    def _names(self) -> list[str]:
        """The models that may be asked."""
        assert self._allowed is not None
        tasks = [task for pipe in self._pipes() for task in pipe.tasks]
        uris = [parse_task(task) for task in tasks]
        serving = [uri.rest or TASKS[uri.scheme].default for uri in uris if uri.scheme in TASKS]
        return list(dict.fromkeys([*self._allowed.models, *filter(None, serving)]))

    def _model(self, asked: Request, row: TaskRow) -> str:
        """The name of the model to ask. InputError for one that may not be asked."""
        names = self._names()
        if asked.model and asked.model not in names:
            raise InputError(f"no such model may be asked; there are {', '.join(names) or 'none'}")
        if asked.model:
            return asked.model
        for name in [*([row.default] if row.default in names else []), *names]:
            try:
                if self._models.serve(name).manifest.task in (row.purpose, *row.on):
                    return name
            except EdgeAgentError:
                continue
        raise InputError(f"no model that may be asked can {asked.task}; name one under [understand] models")

    def _task(self, asked: Request, row: TaskRow, name: str) -> Task:
        """The task, ready; what remembers texts is made anew for each request."""
        from edge_agent.registry import catalogue

        uri = Uri(asked.task, name, self._options(asked))
        key, now = (str(uri),), catalogue.fingerprint(name)
        kept = self._ready.pop(key, None) if row.alone else None
        if kept is None or kept[0] != now:
            kept = now, make_task(uri, self._serve, home())
        if row.alone:
            self._ready[key] = kept
            while len(self._ready) > KEPT:
                self._ready.popitem(last=False)
        return kept[1]

    def _serve(self, name: str) -> Served:
        """A model as it lies there now: what serves pipelines is opened once."""
        return self._models.open(name) if name in self._models.changed() else self._models.serve(name)

    def _options(self, asked: Request) -> dict[str, str]:
        assert self._allowed is not None
        found: dict[str, str] = {}
        if asked.task == "classify" and self._allowed.labels:
            found["labels"] = self._allowed.labels
        if asked.task == "similar":
            found["store"] = asked.store
        if asked.task == "answer" and not asked.context:
            found["context"] = self._allowed.documents or "captured"
        if asked.top:
            found["top"] = str(max(1, min(asked.top, MOST_TOP)))
        return found


def _asked(payload: bytes) -> tuple[Request, TaskRow]:
    """A request, and the task that it names. InputError."""
    try:
        asked = msgspec.json.decode(payload, type=Request)
    except UNREADABLE as error:
        raise InputError(f"no request: {error}") from None
    row = TASKS.get(asked.task)
    if row is None or row.takes is not Text or not row.needs:
        able = ", ".join(name for name, one in TASKS.items() if one.takes is Text and one.needs)
        raise InputError(f"no such task; there are {able}")
    if not asked.text.strip():
        raise InputError("the text is empty; give at least one word")
    return asked, row


def _texts(asked: Request) -> Iterable[str]:
    """The texts that the task is to be given, one after the other."""
    if asked.task == "follows":
        if not asked.second.strip():
            raise InputError('"second" is missing: the text that may go on from "text"')
        return asked.text, asked.second
    if asked.task == "answer" and asked.context:
        return (f"{asked.text.rstrip('?')}? {asked.context}",)
    if asked.task == "topics":
        return [line for line in asked.text.splitlines() if line.strip()]
    return (asked.text,)
