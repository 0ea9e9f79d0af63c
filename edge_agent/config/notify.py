"""``[[notify]]``: who is told of what, and how often."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from edge_agent.errors import ConfigError, nearest, within
from edge_agent.events import EVENTS
from edge_agent.toml import Name

Filled = Annotated[str, msgspec.Meta(min_length=1)]
Kinds = list[Filled]
_DAY = r"([01]\d|2[0-3]):[0-5]\d"
_QUIET = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^{_DAY}-{_DAY}\Z", description='two times of a day such as "22:00-07:00"', examples=["22:00-07:00"]
    ),
]
Pipes = Mapping[str, Callable[[str], str]]
"""name of each pipeline -> kind of an event -> its class"""
Section = TypeVar("Section", bound=msgspec.Struct)
LABELLED = ("label", "verdict", "detections", "spans")
"""fields of events by which they have labels"""
OWN = ("words", "what", "time", "kind")
"""what a text may name beside the fields of events: the event in words, its rule or pipeline, its time of day"""


class Choice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which events are meant; each key that is given leaves fewer of them."""

    rules: list[Name] = []
    """names of rules; none: all"""
    kinds: Kinds = []
    """of events; none: rule"""
    pipelines: list[Name] = []
    """none: all"""
    labels: list[Filled] = []
    """of events that have labels; none: all"""
    phases: tuple[Literal["new", "update", "end", "on", "off"], ...] = ("new", "on")
    """of things in view and of rules: those of their lives that count"""


class Notify(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[notify]]``: a receiver, and what it is told."""

    name: Name
    url_file: Filled
    """path, or credential:NAME: of the receiver's address, and headers below it"""
    title: Filled = "{device}: {what}"
    message: Filled = "{words}"
    snapshot: bool = False
    """true: with the picture of the event, where there is one"""
    text: bool = True
    """false: what was captured in words stays on the device, also where events hold it"""
    quiet: _QUIET | None = None
    """local times between which nothing is sent; what happens meanwhile is said in one message afterwards"""
    limit: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    """messages an hour at most; what is held back is said in a later one"""
    expire_hours: Annotated[float, msgspec.Meta(gt=0, le=1e4)] = 24.0
    """what could not be sent for so long is not sent any more; the next message says how many"""
    ca: Filled | None = None
    """PEM of the authority that signed the receiver's certificate; the system's own otherwise"""


def checked_notify(
    notify: Sequence[Notify],
    pipes: Pipes,
    rules: Collection[str],
    snapshots: bool,
    path: Callable[[str, str], str],
) -> list[Notify]:
    """The receivers with absolute paths; `rules`: their names; `snapshots`: whether there are any; `path`: makes that
    of a key absolute. ConfigError for one that makes no sense.
    """
    made: list[Notify] = []
    for at, one in enumerate(notify):
        where = f"notify[{at}] ({one.name})"
        with within(where):
            if one.name in {other.name for other in made}:
                raise ConfigError("stands twice; give each its own name")
            check_choice(one, pipes, rules)
            _check_texts(one)
            if one.snapshot and not snapshots:
                raise ConfigError("snapshot: none is made; write snapshots = true under [samples]")
        made.append(with_paths(one, ("url_file", "ca"), f"{where}: ", path))
    return made


def check_choice(choice: Choice, pipes: Pipes, rules: Collection[str]) -> None:
    """ConfigError for a name that is none, and where nothing can be meant."""
    if not rules and (choice.rules or not choice.kinds):
        raise ConfigError('nothing is chosen, as there is no [[rule]]; write one, or e.g. kinds = ["object"]')
    kinds = [kind for kind in EVENTS if kind != "gap"]
    for key, known in (("kinds", kinds), ("pipelines", [*pipes, "agent"]), ("rules", rules)):
        check_known(key, getattr(choice, key), known)
    _check_labels(choice)
    _check_alerts(choice, [name for name in pipes if name in (choice.pipelines or pipes)], pipes)


def _check_labels(choice: Choice) -> None:
    fields = {field.name for kind in choice.kinds for field in msgspec.structs.fields(EVENTS[kind])}
    if choice.labels and fields.isdisjoint(LABELLED):
        raise ConfigError('labels: no event that is chosen has any; write e.g. kinds = ["object"]')


def _check_alerts(choice: Choice, among: Sequence[str], pipes: Pipes) -> None:
    """ConfigError for a kind that is telemetry in each of these pipelines."""
    for kind in choice.kinds:
        if kind != "rule" and among and all(pipes[name](kind) == "telemetry" for name in among):
            where = " and ".join(among)
            raise ConfigError(f'kinds: "{kind}" of {where} is telemetry, and this is for alerts; see class there')


def check_known(key: str, given: Collection[str], known: Collection[str]) -> None:
    """ConfigError for a name that is none of those."""
    for name in given:
        if name not in known:
            raise ConfigError(f'{key}: "{name}" is none{nearest(name, known)}')


def placeholders() -> list[str]:
    """What may stand in braces in a text."""
    names = [field.name for event in EVENTS.values() for field in msgspec.structs.fields(event)]
    return list(dict.fromkeys([*OWN, *names]))


def _check_texts(notify: Notify) -> None:
    if notify.quiet and notify.quiet[:5] == notify.quiet[6:]:
        raise ConfigError(f'quiet: "{notify.quiet}" has no length; give two times that differ')
    for key in ("title", "message"):
        check_text(key, getattr(notify, key))


def check_text(key: str, text: str) -> None:
    """ConfigError for a name in braces that is none."""
    known = placeholders()
    for name in re.findall(r"\{(\w*)\}", text):
        if name not in known:
            raise ConfigError(f'{key}: "{{{name}}}" is none{nearest(name, known)}')


def with_paths(section: Section, keys: Collection[str], where: str, path: Callable[[str, str], str]) -> Section:
    """A section with those of its files that are no credentials as `path` makes them; `where`: before their keys."""
    files = {key: getattr(section, key) for key in keys}
    given = {key: file for key, file in files.items() if file and not file.startswith("credential:")}
    return msgspec.structs.replace(section, **{key: path(where + key, file) for key, file in given.items()})
