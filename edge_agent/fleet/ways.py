"""How each kind of bundle is laid and switched to; how it is tried and watched, the owner of the pipelines says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_agent import files
from edge_agent.errors import EdgeAgentError, ManifestError, RefusedError, UsageError
from edge_agent.fleet import slots
from edge_agent.fleet.bundle import Bundle, Wanted
from edge_agent.fleet.served import Laid
from edge_agent.fleet.steps import Figures
from edge_agent.manifest import MOST_BYTES, Manifest, load
from edge_agent.registry import add, store, versions

MANIFEST = "manifest.toml"

Tried = Callable[[Bundle, Path], Figures]
"""a bundle, and the folder of its second slot -> what was measured; raises as `Way` says"""


def untried(bundle: Bundle, folder: Path) -> Figures:
    """Where nothing runs that could try it."""
    return {}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the pipelines' side does with one kind."""

    prove: Tried = untried
    canary: Tried = untried
    window: Callable[[Bundle], None] = lambda bundle: None
    switched: Callable[[], None] = lambda: None
    """told when what serves has changed"""


class ModelWay:
    """A model: its files stand in the store by their hashes, its versions in the registry (registry/versions.py)."""

    def __init__(self, home: Path, asked: Asked) -> None:
        self._home, self._asked = home, asked

    def lay(self, bundle: Bundle) -> None:
        """Its manifest where `canary` finds it: a folder that serves under no name."""
        files.write(self._folder(bundle) / MANIFEST, self._text(bundle))
        self._manifest(bundle)

    def prove(self, bundle: Bundle) -> Figures:
        return self._asked.prove(bundle, self._folder(bundle))

    def canary(self, bundle: Bundle) -> Figures:
        return self._asked.canary(bundle, self._folder(bundle))

    def switch(self, bundle: Bundle) -> None:
        with store.alone(self._home, "models"):
            versions.switch(self._home, bundle.name, self._text(bundle))
        self._asked.switched()

    def serves(self, bundle: Bundle) -> bool:
        now = versions.current(self._home, bundle.name)
        return now is not None and _sha256(now / MANIFEST) == _part(bundle, MANIFEST)

    def window(self, bundle: Bundle) -> None:
        self._asked.window(bundle)

    def back(self, bundle: Bundle, before: Laid | None) -> None:
        """The version that the registry has before it, also one that was added by hand; without one the name goes."""
        if versions.previous(self._home, bundle.name) is not None:
            add.rollback(bundle.name)
        else:
            with store.alone(self._home, "models"):
                versions.drop(self._home, bundle.name)
        self._asked.switched()

    def _folder(self, bundle: Bundle) -> Path:
        return self._home / "fleet" / "next" / f"model.{bundle.name}"

    def _text(self, bundle: Bundle) -> str:
        """The manifest as it was published. RefusedError where there is none."""
        sha256 = _part(bundle, MANIFEST)
        try:
            return files.read_regular(store.blob(self._home, sha256), MOST_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"{bundle.wanted}: its manifest cannot be read ({error})") from None

    def _manifest(self, bundle: Bundle) -> Manifest:
        """What it says, held against what was signed. RefusedError."""
        try:
            manifest = load(self._folder(bundle) / MANIFEST)
            add.check_name(bundle.name, manifest.task)
        except (ManifestError, UsageError) as error:
            raise RefusedError(f"{bundle.wanted}: {error}") from None
        if manifest.name != bundle.name:
            raise RefusedError(f"{bundle.wanted}: its manifest is that of {manifest.name}")
        parts = {(part.path, part.sha256, part.bytes) for part in bundle.files}
        for row in manifest.file:
            if row.sources or (row.name, row.sha256, row.bytes) not in parts:
                raise RefusedError(f"{bundle.wanted}: its manifest names {row.name}, which is none of the signed files")
        return manifest


class SlotWay:
    """Files that are no model, in two slots of their own: a config with what it names, or label sets."""

    def __init__(self, home: Path, asked: Asked) -> None:
        self._home, self._asked = home, asked

    def lay(self, bundle: Bundle) -> None:
        slots.lay(self._home, bundle)

    def prove(self, bundle: Bundle) -> Figures:
        return self._asked.prove(bundle, slots.lay(self._home, bundle))

    def canary(self, bundle: Bundle) -> Figures:
        return self._asked.canary(bundle, slots.lay(self._home, bundle))

    def switch(self, bundle: Bundle) -> None:
        slots.lay(self._home, bundle)
        slots.point(self._home, bundle.wanted)
        self._asked.switched()

    def serves(self, bundle: Bundle) -> bool:
        return slots.number(self._home, bundle.wanted.key) == bundle.number

    def window(self, bundle: Bundle) -> None:
        self._asked.window(bundle)

    def back(self, bundle: Bundle, before: Laid | None) -> None:
        number = before.number if before is not None else 0
        if number and not (slots.shelf(self._home, bundle.wanted.key) / str(number)).is_dir():
            raise EdgeAgentError(f"{bundle.wanted.key}/{number}: is no longer there to go back to")
        slots.point(self._home, Wanted(bundle.kind, bundle.name, number))
        self._asked.switched()


def _part(bundle: Bundle, path: str) -> str:
    """SHA-256 of one of its files. RefusedError where it has none of this name."""
    for part in bundle.files:
        if part.path == path:
            return part.sha256
    raise RefusedError(f"{bundle.wanted}: holds no {path}")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(files.read_regular(path, MOST_BYTES)).hexdigest()
    except OSError:
        return ""
