"""Where the files of a model lie, and whether they are right."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.errors import FetchError, ManifestError
from edge_agent.manifest import File, Manifest, load
from edge_agent.paths import carried, home
from edge_agent.registry import licences, store

Say = Callable[[int, int], None]


Looked = tuple[Path, Literal["right", "absent", "corrupt"], str]
"""where a file is, how it is, and what to tell people when it is not right"""


class Located(msgspec.Struct, frozen=True):
    """A model that was found; its files may still be missing (see `file_path`)."""

    manifest: Manifest
    folder: Path
    why: str
    """why this model, one line"""


def serves(located: Located) -> bool:
    """Whether a network and all that it needs (vocabulary, finder) are here and right."""
    conditions = {row.name: look(located, row)[1] for row in located.manifest.file}
    networks = {row.name for row in located.manifest.networks()}
    parts = {row.name for row in located.manifest.parts()}
    return any(conditions[name] == "right" for name in networks) and all(conditions[name] == "right" for name in parts)


def is_model(folder: Path) -> bool:
    """Whether a model was put there; a link to a version that is gone is a broken one."""
    return (folder / "manifest.toml").is_file() or folder.is_symlink()


def manifest_in(folder: Path) -> Manifest:
    """The manifest of a model's folder. ManifestError; of a model that was added it says how to be rid of it."""
    try:
        return load(folder / "manifest.toml")
    except ManifestError as error:
        root = home() / "models"
        if root not in folder.parents:
            raise
        names = folder.relative_to(root).parts
        name = names[1] if names[0] == ".versions" else names[0]
        raise ManifestError(f"{error}; mend it, or remove the model: `edge-agent models remove {name}`") from None


def file_path(located: Located, row: File, *, pull: bool = False, say: Say | None = None) -> Path:
    """Path of one file of a model, its hash computed now. `pull` fetches what is missing or wrong.

    Raises FetchError: which file, both hashes shortened, and what to do; RefusedError for terms that nobody may meet.
    """
    licences.check(f"{located.manifest.name}: {row.name}", row.sha256)
    path, condition, problem = look(located, row)
    if condition == "right":
        return path
    if pull and row.sources:
        return _fetch(located, row, say or quiet)
    raise FetchError(problem)


def parts_of(located: Located, *, pull: bool = False, say: Say | None = None) -> dict[str, Path]:
    """role -> right file, of what the networks need beside them; as `file_path`."""
    return {row.role: file_path(located, row, pull=pull, say=say) for row in located.manifest.parts()}


def is_here(located: Located, row: File) -> bool:
    """Whether a file lies here, right or damaged; it is not read."""
    return (located.folder / row.name).is_file() or store.blob(home(), row.sha256).is_file()


def look(located: Located, row: File) -> Looked:
    """Where a file is, how it is, and what to tell people when it is not right."""
    name = located.manifest.name
    mend = f"run `edge-agent models pull {name}`" if row.sources else "put the right one there, or install anew"
    beside, blob = located.folder / row.name, store.blob(home(), row.sha256)
    path = beside if beside.is_file() else blob
    try:
        found = store.digest(path)
    except FileNotFoundError:
        where = "is not here yet" if row.sources else f"is missing in {located.folder}"
        return path, "absent", f"{name}: {row.name} {where}; {mend}"
    except OSError as error:
        return path, "corrupt", f"{name}: {path} cannot be read ({error.strerror}); {mend}"
    if found == row.sha256:
        return path, "right", ""
    if path == beside and row.sources:
        mend = f"delete it and {mend}"
    wrong = f"{row.name} is damaged: sha256 {found[:12]}…, not {row.sha256[:12]}…"
    return path, "corrupt", f"{name}: {wrong}; {mend} ({path})"


def _fetch(located: Located, row: File, say: Say) -> Path:
    from edge_agent.registry import fetch

    mirror = os.environ.get(fetch.MIRROR)
    return fetch.fetch(home(), located.manifest.name, located.folder, row, mirror, say)


def quiet(done: int, total: int) -> None:
    """Progress for nobody."""


def state(located: Located) -> Literal["carried", "ready", "absent", "corrupt"]:
    """carried: all of it came with the program; ready: it can serve; absent; corrupt: the hash of a file is wrong."""
    conditions = {look(located, row)[1] for row in located.manifest.file}
    if "corrupt" in conditions:
        return "corrupt"
    own = located.folder.parent == carried("models") and not any(row.sources for row in located.manifest.file)
    if own and conditions == {"right"}:
        return "carried"
    return "ready" if serves(located) else "absent"
