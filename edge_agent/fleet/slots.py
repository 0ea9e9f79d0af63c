"""Two slots for what is no model: the files that serve, and those before them, in HOME/fleet/laid/KIND.NAME.

::

    HOME/fleet/laid/config.shop/7/       all files of number 7
    HOME/fleet/laid/config.shop/current  a link to the one that serves

A folder is whole, and on the disk, before the link names it, and the link changes by one rename.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edge_agent import files
from edge_agent.fleet.bundle import Bundle, Wanted
from edge_agent.registry import store

CURRENT = "current"


def shelf(home: Path, key: str) -> Path:
    """The folder of KIND/NAME."""
    return home / "fleet" / "laid" / key.replace("/", ".")


def lay(home: Path, bundle: Bundle) -> Path:
    """Put the files of a bundle, which are in the store, into a folder of its number. OSError."""
    place = shelf(home, bundle.wanted.key)
    final = place / str(bundle.number)
    if final.is_dir():
        return final
    part = place / f".{bundle.number}"
    shutil.rmtree(part, ignore_errors=True)
    for row in bundle.files:
        at = part / row.path
        files.folder(at.parent)
        shutil.copyfile(store.blob(home, row.sha256), at)
        at.chmod(files.FILE)
        files.sync(at)
    for folder in [part, *(path for path in part.rglob("*") if path.is_dir())]:
        files.sync(folder)
    part.rename(final)
    files.sync(place)
    return final


def number(home: Path, key: str) -> int:
    """The number that serves; 0 for none."""
    link = shelf(home, key) / CURRENT
    return int(os.readlink(link)) if link.is_symlink() else 0  # noqa: PTH115, a Path of it says no more


def point(home: Path, wanted: Wanted) -> None:
    """Let this number serve; 0: none. All but it and the one that served go. OSError."""
    place, before = shelf(home, wanted.key), number(home, wanted.key)
    link = place / CURRENT
    if wanted.number:
        fresh = place / f".{CURRENT}"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(str(wanted.number))
        fresh.replace(link)
    else:
        link.unlink(missing_ok=True)
    if place.is_dir():
        files.sync(place)
    kept = {str(wanted.number), str(before), CURRENT}
    for other in place.iterdir() if before != wanted.number and place.is_dir() else ():
        if other.name not in kept:
            shutil.rmtree(other, ignore_errors=True)


def current(home: Path, key: str) -> Path | None:
    """The folder that serves; None for none."""
    at = number(home, key)
    return shelf(home, key) / str(at) if at else None
