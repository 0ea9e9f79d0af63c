"""``[update]`` and ``[policy]``: where signed bundles come from, how they are tried, and what may serve at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec

from edge_agent.config.times import Between, Duration, window
from edge_agent.errors import ConfigError
from edge_agent.manifest import SHA256
from edge_agent.toml import Name

Text = Annotated[str, msgspec.Meta(min_length=1)]
Hash = Annotated[str, msgspec.Meta(pattern=SHA256, description="a SHA-256 in 64 small hex digits")]
Age = Annotated[
    str, msgspec.Meta(pattern=r"^[1-9]\d{0,4}d\Z", description='an age in days such as "365d"', examples=["365d"])
]
GROUP = r"^[a-z][a-z0-9_-]{0,63}\Z"


class Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[update]``: signed bundles are taken from a repository; without it none is."""

    repository: Annotated[str, msgspec.Meta(min_length=1, examples=["https://updates.example/fleet"])]
    """https:// or http:// address, or the path of a folder, such as that of a USB stick"""
    root: Text = "root.json"
    """what is trusted: the metadata/1.root.json of the repository, as it was given to this device"""
    ca: Text | None = None
    """PEM of the authority that signed the server's certificate, where that is one of your own"""
    group: Annotated[str, msgspec.Meta(pattern=GROUP, description="small letters, digits, - and _")] = "all"
    """whose offers are taken; where a bundle is offered to it not, those to "all" """
    models: list[Name] = []
    """names under which models are taken, as its pipelines call them"""
    config: Name | None = None
    """the shared config that is followed: its sections stand in place of those of this file"""
    files: list[Name] = []
    """other files, such as label sets; they lie in HOME/fleet/laid/files.NAME/current"""
    agent: Name | None = None
    """the bundle of the program itself that is taken, such as "edge-agent": root lays it, see `edge-agent install`"""
    every: Duration = "1h"
    """time between two looks at the repository"""
    look: bool = True
    """false: it is taken what a command or a job says, and nothing by itself"""
    between: Between | None = None
    """the time of day in which files may come, on the device's clock; when absent, at any time"""
    bytes_per_day: Annotated[int, msgspec.Meta(ge=10_000, le=10**15)] | None = None
    """bytes of files that may come a day (UTC); what is not whole goes on the next day"""
    canary: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 10
    """1 in so many live samples is answered by a new model as well before it serves; 0: it is not tried so"""
    canary_samples: Annotated[int, msgspec.Meta(ge=10, le=100_000)] = 100
    """samples after which it is settled"""
    canary_most: Duration = "30min"
    """time after which it is settled by those that came, where there are ten; with fewer it is tried again later"""
    agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.5
    """share of its answers that are those of the model that serves, at least, where its publisher says nothing else"""
    slower: Annotated[float, msgspec.Meta(ge=1, le=100)] = 1.5
    """times that it may take of what the model that serves takes, of the clock and of the processor, at most"""
    celsius: Annotated[float, msgspec.Meta(ge=30, le=130)] = 80.0
    """degrees of the warmest sensor that may not be passed while both run"""
    health: Duration = "5min"
    """time that something new is watched; where it does not go well, what was before is switched back to"""

    @property
    def follows(self) -> list[str]:
        """What is taken by itself, as KIND/NAME; the program last, as that starts the service anew."""
        found = [f"model/{name}" for name in self.models]
        found += [f"config/{self.config}"] if self.config else []
        found += [f"files/{name}" for name in self.files]
        return found + ([f"agent/{self.agent}"] if self.agent else [])

    @property
    def address(self) -> str:
        """Of the repository, with / at its end."""
        base = self.repository if "://" in self.repository else f"file://{quote(self.repository)}"
        return base.rstrip("/") + "/"


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[policy]``: which models may serve; what does not say what is asked for may not."""

    licences: list[Text] | None = None
    """e.g. ["Apache-2.0", "MIT"]: those of models that may serve; when absent, any"""
    max_age: Age | None = None
    """of a model since it was published, or else added here; those that came with the program have none"""
    signed: bool = False
    """true: only models that came signed from the repository, or that the program names by hash itself"""
    refuse: list[Hash] = []
    """of files that are known to be bad"""

    @property
    def most_age_s(self) -> float | None:
        """Seconds."""
        return int(self.max_age[:-1]) * 86_400.0 if self.max_age is not None else None


def _repository(given: str, path: Callable[[str, str], str]) -> str:
    """An address, or the absolute path of a folder. ConfigError."""
    if "://" not in given:
        return path("update.repository", given)
    parts = urlsplit(given)
    if parts.scheme not in ("https", "http", "file") or (parts.scheme != "file" and not parts.hostname):
        raise ConfigError('update.repository: is no address; write "https://host/path", or the path of a folder')
    if parts.query or parts.fragment:
        raise ConfigError("update.repository: a query or a # stands in no such address; files are looked for below it")
    return given


def checked_update(update: Update | None, path: Callable[[str, str], str]) -> Update | None:
    """It with absolute paths; `path(key, given)` makes them. ConfigError."""
    if update is None:
        return None
    given = _repository(update.repository, path)
    if update.between is not None:
        window(update.between, None)
    files = {key: path(f"update.{key}", one) for key in ("root", "ca") if (one := getattr(update, key)) is not None}
    if "ca" in files and urlsplit(given).scheme != "https":
        raise ConfigError("update.ca: is for https:// only; leave it out, or let the repository be served by TLS")
    return msgspec.structs.replace(update, repository=given, **files)


def shared_folder(home: Path, name: str) -> Path:
    """Where the shared config of a name lies that serves."""
    return home / "fleet" / "laid" / f"config.{name}" / "current"
