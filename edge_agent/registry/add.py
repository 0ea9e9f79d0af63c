"""Adding a model to the registry and removing it again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.config import NAME
from edge_agent.errors import FetchError, ManifestError, ModelError, UsageError
from edge_agent.manifest import load
from edge_agent.registry import ALIASES, Located, OpenNet, _folders, carried, file_path, home, locate, store


def add(
    path: Path, name: str | None, open_net: OpenNet, prove: Callable[[Located], object] = lambda located: None
) -> Located:
    """Copy a model (a folder with a manifest, or a bare file) into the registry, once `prove` has raised nothing.

    Each file goes to the store by its hash; manifest.toml, with labels and classes as they were found, goes to
    HOME/models/NAME. Raises RefusedError for a file of no known family, UsageError for a name that is taken.
    """
    located = locate(str(path.absolute()), open_net=open_net)
    name = name or located.manifest.name
    if not re.fullmatch(NAME, name):
        raise UsageError(f'"{name}" is no model name; use 1 to 64 letters, digits or _ . -')
    if name in ALIASES or carried("models", name).is_dir() or (home() / "models" / name).is_dir():
        raise UsageError(f'the name "{name}" is taken; give another one with --name')
    prove(located)
    rows = []
    try:
        for row in located.manifest.file:
            place = file_path(located, row)
            store.put(home(), place, row.sha256, row.bytes)
            rows.append(msgspec.structs.replace(row, sources=[f"file:{place.absolute()}"]))
        manifest = msgspec.structs.replace(located.manifest, name=name, file=rows, card=None)
        folder = home() / "models" / name
        store.write(folder / "manifest.toml", toml(msgspec.to_builtins(manifest)))
    except OSError as error:
        raise FetchError(f"{name}: cannot be stored in {home()}: {error.strerror}; check space and owner") from None
    return Located(load(folder / "manifest.toml"), folder, located.why)


def remove(name: str) -> int:
    """Delete what was fetched or added of a model; what another model uses too stays. Returns the bytes freed.

    The catalogue's entry stays, so that the model can be pulled again. Raises UsageError where nothing can go.
    """
    if name in ALIASES:
        raise UsageError(f'"{name}" is another name for {" or ".join(ALIASES[name])}; remove that one')
    if not re.fullmatch(NAME, name):
        raise UsageError(f'"{name}" is no name in the registry; see `edge-agent models list`')
    located = locate(name)
    others = set()
    for folder in _folders():
        if folder != located.folder:
            try:
                others |= {row.sha256 for row in load(folder / "manifest.toml").file}
            except ModelError:
                continue
    freed = 0
    for row in located.manifest.file:
        blob = store.blob(home(), row.sha256)
        if blob.is_file() and row.sha256 not in others:
            freed += blob.stat().st_size
            blob.unlink()
        for left in (home() / "blobs" / "part").glob(f"{row.sha256}.*"):
            freed += left.stat().st_size
            left.unlink()
    added = home() / "models" / name
    if added.is_dir():
        shutil.rmtree(added)
    elif not any(row.sources for row in located.manifest.file):
        raise UsageError(f"{name} came with the program; there is nothing to remove")
    return freed


def toml(table: dict[str, Any]) -> str:
    """A manifest's plain values as TOML 1.0: scalars and lists first, then [input], [text] and the [[file]] rows."""
    plain = {k: v for k, v in table.items() if v is not None and not isinstance(v, dict) and k != "file"}
    lines = _pairs(plain)
    for key, value in table.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *_pairs(value)]
    for row in table["file"]:
        lines += ["", "[[file]]", *_pairs(row)]
    return "\n".join(lines) + "\n"


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_value(value)}" for key, value in table.items() if value is not None]


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    if isinstance(value, str):
        if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
            raise ManifestError(f"{value!a} cannot be written as TOML; rename it")
        # a JSON string is a TOML basic string, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
