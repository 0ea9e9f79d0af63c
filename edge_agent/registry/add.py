"""Adding a model to the registry and removing it again."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent.errors import FetchError, ManifestError, ModelError, UsageError
from edge_agent.manifest import SHA256, Manifest, load
from edge_agent.paths import carried, home
from edge_agent.registry import store, versions
from edge_agent.registry.catalogue import ALIASES, ReadFile, locate
from edge_agent.registry.files import Located, file_path, manifest_in
from edge_agent.toml import NAME, toml


def add(
    path: Path,
    name: str | None,
    read: ReadFile,
    prove: Callable[[Located], object] = lambda located: None,
) -> Located:
    """Copy a model (a folder with a manifest, or a bare file) into the registry, once `prove` has raised nothing.

    Each file goes to the store by its hash; manifest.toml, with labels and classes as they were found, becomes the
    current version of NAME, and what was current its previous one (see versions.py). `read` says what a bare file
    is. Raises RefusedError for a file of no known family or one that makes no sense, UsageError for a name
    that is taken.
    """
    located = locate(str(path.absolute()), read=read)
    name = located.manifest.name if name is None else name
    serving = check_name(name, located.manifest.task)
    prove(located)
    folder, why = home() / "models" / name, located.why
    try:
        with store.alone(home(), "models"):
            rows = []
            for row in located.manifest.file:
                place = file_path(located, row)
                store.put(home(), place, row.sha256, row.bytes)
                rows.append(msgspec.structs.replace(row, sources=[f"file:{place.absolute()}"]))
            manifest = msgspec.structs.replace(located.manifest, name=name, file=rows, card=None)
            if serving == manifest:
                why += "; it was the current version already"
            else:
                versions.switch(home(), name, toml(msgspec.to_builtins(manifest)))
    except OSError as error:
        raise FetchError(f"{name}: cannot be stored in {home()}: {error.strerror}; check space and owner") from None
    return Located(load(folder / "manifest.toml"), folder, why)


def check_name(name: str, task: str) -> Manifest | None:
    """The manifest of what serves under a name that a model for a task may have. UsageError where it may not."""
    if not re.fullmatch(NAME, name):
        raise UsageError(f'"{name}" is no model name; use 1 to 64 letters, digits or _ . -')
    if name in ALIASES or carried("models", name).is_dir():
        raise UsageError(f'the name "{name}" is taken; give another one with --name')
    # one that is damaged is replaced
    serving = next(iter(_manifests(versions.current(home(), name))), None)
    if serving is not None and serving.task != task:
        raise UsageError(f'"{name}" is a model to {serving.task}, this is one to {task}; use another --name')
    return serving


def rollback(name: str) -> Located:
    """Make the previous version the current one, and the current one the previous.

    Raises UsageError where there is none, FetchError where one of its files is not here or damaged.
    """
    before = versions.previous(home(), name) if re.fullmatch(NAME, name) else None
    if before is None:
        raise UsageError(f"{name}: there is no previous version to go back to; see `edge-agent models list`")
    located = Located(manifest_in(before), before, f"{name}: rolled back")
    for row in located.manifest.file:
        file_path(located, row)
    try:
        with store.alone(home(), "models"):
            folder = versions.switch(home(), name, (before / "manifest.toml").read_text(encoding="utf-8"))
    except OSError as error:
        raise FetchError(f"{name}: cannot be switched in {home()}: {error.strerror}; check space and owner") from None
    return Located(load(folder / "manifest.toml"), folder, located.why)


def collect(budget: int) -> tuple[int, int]:
    """Delete blobs that no current or previous version uses until all take at most `budget` bytes: (freed, left)."""
    with store.alone(home(), "models"):
        return versions.collect(home(), budget, sorted(carried("models").glob("*/manifest.toml")))


def remove(name: str) -> int:
    """Delete what was fetched or added of a model; what another model uses too stays. Returns the bytes freed.

    The catalogue's entry stays, so that the model can be pulled again. Of a version whose manifest cannot be read it is
    not known what is only its own, which `collect` deletes afterwards. Raises UsageError where nothing can go.
    """
    if name in ALIASES:
        raise UsageError(f'"{name}" is another name for {" or ".join(ALIASES[name])}; remove that one')
    if not re.fullmatch(NAME, name):
        raise UsageError(f'"{name}" is no name in the registry; see `edge-agent models list`')
    link = folder = home() / "models" / name
    if not (added := link.is_symlink() or link.is_dir()):
        folder = locate(name).folder
        if not any(row.sources for row in load(folder / "manifest.toml").file):
            raise UsageError(f"{name} came with the program; there is nothing to remove")
    with store.alone(home(), "models"):
        gone = _manifests(folder, versions.previous(home(), name))
        if link.is_symlink():
            versions.drop(home(), name)
        elif added:
            shutil.rmtree(link)
        return _delete(gone, folder)


def _manifests(*folders: Path | None) -> list[Manifest]:
    """Those in these folders that can be read."""
    found = []
    for folder in folders:
        with contextlib.suppress(ManifestError):
            found += [load(folder / "manifest.toml")] if folder is not None else []
    return found


def _delete(gone: list[Manifest], folder: Path) -> int:
    """Delete the blobs that only these manifests, the first one in `folder`, use, and what was derived from them.
    Returns the bytes freed.
    """
    others = set()
    for path in [*versions.manifests(home()), *carried("models").glob("*/manifest.toml")]:
        if path.parent != folder:
            try:
                others |= {row.sha256 for row in load(path).file}
            except ModelError:
                continue
    freed, own = 0, {row.sha256 for manifest in gone for row in manifest.file} - others
    for sha256 in own | (_derived(own) - others):
        blob = store.blob(home(), sha256)
        for left in [blob, *(home() / "blobs" / "part").glob(f"{sha256}.*")]:
            if left.is_file():
                freed += left.stat().st_size
                left.unlink()
    return freed


def _derived(own: set[str]) -> set[str]:
    """The faster forms that this device made of these files (serving/forms.py keeps what it made in HOME/derived)."""
    found = set()
    for place in (home() / "derived").glob("*.json"):
        try:
            verdict = json.loads(place.read_bytes())
            of, figures = verdict["sha256"][0], verdict["result"]["figures"]
            # one was all there was, once
            made = {str(row["sha256"]) for row in figures.get("files") or [figures["file"]]}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            # another version wrote it, or nothing could be made
            continue
        if str(of).partition(" ")[0] in own:
            found |= {one for one in made if re.fullmatch(SHA256, one)}
    return found
