"""What the page needs of an agent: rooms of one storey do not import each other, so it is said here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from edge_agent.config import Config, Pipeline, Zone
from edge_agent.events import Event
from edge_agent.outbox.outbox import Outbox
from edge_agent.sources import Opened
from edge_agent.types import StreamState
from edge_agent.walk.pipeline import Show, Stats, Watcher

if TYPE_CHECKING:
    from edge_agent.archive.archive import Archive
    from edge_agent.link.link import Link
    from edge_agent.recorder.pictures import Pictures
    from edge_agent.serving.models import Models


class Line(Protocol):
    """A pipeline at work: edge_agent/agent/line.py."""

    config: Pipeline
    stream: StreamState
    since: float
    taken: int
    stats: Stats
    zones: Sequence[Zone]
    watchers: list[Watcher]
    opened: Opened

    @property
    def show(self) -> Show: ...

    @property
    def models(self) -> list[str]: ...


class Keep(Protocol):
    """Where events are kept: edge_agent/agent/keep.py."""

    listeners: list[Callable[[Event], None]]


class Archiver(Protocol):
    """What archives events: edge_agent/agent/archiving.py."""

    archive: Archive


class Guard(Protocol):
    """What watches over the accuracy of models: edge_agent/agent/guarding.py."""

    @property
    def told(self) -> Mapping[str, Any]: ...

    @property
    def known(self) -> Any: ...


class State(Protocol):
    """What the device says of itself: edge_agent/agent/state.py."""

    refused: str

    @property
    def accuracy(self) -> Guard | None: ...

    def states(self) -> dict[str, dict[str, object]]: ...

    def health(self) -> dict[str, object]: ...

    def seen(self) -> tuple[Mapping[str, Any], Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]]]:
        """Health, and of each pipeline state and counts."""


class Swap(Protocol):
    """What exchanges models: edge_agent/agent/swap.py."""

    models: Models
    look: threading.Event


class Rules(Protocol):
    """Rules and profiles: edge_agent/agent/rules.py."""

    on: dict[str, bool]

    @property
    def profiles(self) -> list[str]: ...

    @property
    def profile(self) -> str: ...

    def set_profile(self, name: str, by: str = "page") -> None: ...


class Requests(Protocol):
    """What answers texts: edge_agent/agent/requests.py."""

    def ask(self, payload: bytes, reply: Callable[[dict[str, Any]], None]) -> None: ...


class Agent(Protocol):
    """edge_agent/agent/agent.py."""

    config: Config
    outbox: Outbox
    link: Link | None

    @property
    def lines(self) -> Sequence[Line]: ...

    @property
    def keep(self) -> Keep: ...

    @property
    def pictures(self) -> Pictures | None: ...

    @property
    def archiver(self) -> Archiver | None: ...

    @property
    def state(self) -> State: ...

    @property
    def swap(self) -> Swap: ...

    @property
    def rules(self) -> Rules: ...

    @property
    def requests(self) -> Requests: ...

    def reload(self) -> None: ...
