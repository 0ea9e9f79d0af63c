"""What is known of a device and its pipelines, as far as Home Assistant is shown it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec


class Topics(NamedTuple):
    """Where things stand and are taken: topics, whole."""

    status: str
    health: str
    profile: str
    rules: str
    state: Callable[[str], str]
    """of a pipeline, as those below"""
    counts: Callable[[str], str]
    last: Callable[[str], str]
    snapshot: Callable[[str], str]
    command: Callable[[str], str]
    """of a verb"""


class Pipe(msgspec.Struct, frozen=True):
    """One pipeline."""

    name: str
    places: Mapping[str, Sequence[str]] = {}
    """zone -> labels of what is counted in it, "" for all of them together; the zone "" is the whole picture"""
    lines: Sequence[str] = ()
    """that things are counted at as they cross them"""
    text: bool = False
    label: bool = False
    unusual: bool = False
    """whether texts, labels, and what is unusual come of it"""
    snapshot: bool = False
    models: Sequence[str] = ()
    thresholds: Mapping[str, str] = {}
    """name -> what it is: `score` or `limit`"""


class Device(msgspec.Struct, frozen=True):
    """The device."""

    id: str
    """its name; letters, digits, `_`, `-` and `.`"""
    node: str
    """what its identities begin with, the same for ever: letters, digits, `_` and `-`"""
    version: str
    pipes: Sequence[Pipe] = ()
    rules: Sequence[str] = ()
    profiles: Sequence[str] = ()
    commands: bool = True
    """whether commands are taken that nobody has signed"""
