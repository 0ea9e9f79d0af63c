"""A repository, a device that takes from it, and what stands in for its pipelines."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.fleet import fetch, slots, verify
from edge_agent.fleet.bundle import Bundle, Kind, Origin
from edge_agent.fleet.keys import Keys
from edge_agent.fleet.pack import Packed
from edge_agent.fleet.repository import Published, Repository
from edge_agent.fleet.served import Served
from edge_agent.fleet.steps import Way
from edge_agent.fleet.update import Look, Update
from edge_agent.fleet.ways import Asked, ModelWay, SlotWay
from edge_agent.manifest import File, Input, Manifest
from edge_agent.toml import toml


def repository(place: Path, keys: Path, **names: int) -> Repository:
    made = Repository(place, Keys(keys))
    with made.alone():
        made.roles.begin(names)
    return made


def some_files(**named: bytes) -> Packed:
    return Packed("files", "", {name.replace("_", "."): data for name, data in named.items()}, Origin())


def a_model(name: str, network: bytes, version: str = "1", licence: str = "MIT") -> Packed:
    """A model by its files alone: nothing here runs it."""
    row = File("model.onnx", "onnx", hashlib.sha256(network).hexdigest(), len(network))
    manifest = Manifest(
        name=name,
        version=version,
        task="detect",
        family="yolox",
        licence=licence,
        trained_by="the test",
        file=[row],
        labels=["person"],
        input=Input(32, 32),
    )
    text = toml(msgspec.to_builtins(manifest)).encode()
    return Packed("model", version, {"model.onnx": network, "manifest.toml": text}, Origin(licence=licence))


def publish(
    made: Repository, packed: Packed, name: str, *, team: str = "", groups: tuple[str, ...] = ("all",)
) -> Published:
    with made.alone():
        return made.publish(packed, name, groups, team=team)


class Device:
    """One that takes bundles of a repository, each kind with what stands in for the pipelines."""

    def __init__(self, home: Path, address: str, root: Path, group: str = "all", look: Look | None = None) -> None:
        self.home, self.address, self.root = home, address, root
        self.served = Served(home / "fleet")
        self.model, self.config, self.files = Asked(), Asked(), Asked()
        self.allowance = fetch.Allowance(home / "fleet" / "spent.json", None)
        self.check: Callable[[Bundle], None] = lambda bundle: None
        self.group, self._look, self.ca = group, look, ""

    @property
    def update(self) -> Update:
        ways: dict[str, Way] = {
            "model": ModelWay(self.home, self.model),
            "config": SlotWay(self.home, self.config),
            "files": SlotWay(self.home, self.files),
        }
        trusted = self.ca or None
        found = lambda asked: verify.found(asked, self.address, self.root, self.group, self.served, trusted)  # noqa: E731
        bring = lambda bundle: fetch.fetch(self.home, self.address, bundle, self.allowance, trusted)  # noqa: E731
        return Update(self.served, ways, self._look or found, bring, lambda bundle: self.check(bundle))

    def holds(self, name: str, kind: Kind = "files") -> dict[str, bytes]:
        """What serves of a name: path -> bytes."""
        folder = slots.current(self.home, f"{kind}/{name}")
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder is not None else {}
