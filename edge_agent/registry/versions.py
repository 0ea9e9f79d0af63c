"""The versions of the models that were added here: which one serves, and which one served before.

::

    HOME/models/NAME                      a link to the version that serves
    HOME/models/.versions/NAME/7/         manifest.toml, and in `previous` the number of the version before it

A version's folder is whole, and on the disk, before the link points at it, and the link changes by one rename. So
which version is current and which one is previous change together, and a power cut leaves the old pair or the new.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_agent import files
from edge_agent.errors import ManifestError, UsageError
from edge_agent.manifest import load
from edge_agent.registry import store
from edge_agent.registry.files import manifest_in

MANIFEST, BEFORE = "manifest.toml", "previous"


def switch(home: Path, name: str, manifest: str) -> Path:
    """Make `manifest` (TOML) the current version of `name`, and the one that was current its previous one.

    One whose manifest cannot be read is not kept: then the one before it stays the previous one. Older ones go. Returns
    the link. OSError as the disk raises it; then, as after a power cut, nothing has changed. UsageError where a folder
    that somebody put there stands in the way.
    """
    link, shelf = home / "models" / name, _shelf(home, name)
    if link.is_dir() and not link.is_symlink():
        raise UsageError(f"{name}: {link} was put there by hand and has no versions; add under another name")
    files.folder(shelf)
    for folder in (home, home / "models", shelf.parent):
        files.sync(folder)
    now = _kept(home, name, manifest)
    fresh = shelf / str(max((int(f.name) for f in shelf.iterdir() if f.name.isdigit()), default=0) + 1)
    files.folder(fresh)
    if now is not None:
        files.write(fresh / BEFORE, now.name)
    files.write(fresh / MANIFEST, manifest)
    files.sync(shelf)
    pointer = link.with_name(f".{name}.new")
    pointer.unlink(missing_ok=True)
    pointer.symlink_to(Path(".versions", name, fresh.name))
    pointer.replace(link)
    files.sync(link.parent)
    for folder in shelf.iterdir():
        if folder not in (fresh, now):
            shutil.rmtree(folder)
    return link


def _kept(home: Path, name: str, manifest: str) -> Path | None:
    """Folder of the version that stays as the previous one when `manifest` begins to serve; None for none."""
    for folder in (current(home, name), previous(home, name)):
        if folder is not None and _text(folder) not in ("", manifest):
            return folder
    return None


def _text(folder: Path) -> str:
    """A version's manifest; "" for one that cannot be read."""
    try:
        load(folder / MANIFEST)
    except ManifestError:
        return ""
    return (folder / MANIFEST).read_text(encoding="utf-8")


def current(home: Path, name: str) -> Path | None:
    """Folder of the version that serves; None where none was added under this name."""
    link = home / "models" / name
    return _shelf(home, name) / link.readlink().name if link.is_symlink() else None


def previous(home: Path, name: str) -> Path | None:
    """Folder of the version before; None where there is none."""
    now = current(home, name)
    try:
        before = _shelf(home, name) / (now / BEFORE).read_text() if now else None
    except OSError:
        return None
    return before if before is not None and (before / MANIFEST).is_file() else None


def drop(home: Path, name: str) -> None:
    """Forget every version of a name; the link goes first."""
    (home / "models" / name).unlink()
    files.sync(home / "models")
    if _shelf(home, name).is_dir():
        shutil.rmtree(_shelf(home, name))


def manifests(home: Path) -> list[Path]:
    """The manifests of the current and the previous version of each model that was added."""
    root = home / "models"
    names = [entry.name for entry in root.iterdir() if not entry.name.startswith(".")] if root.is_dir() else []
    folders = [root / name for name in sorted(names)]
    folders += [before for name in names if (before := previous(home, name)) is not None]
    # a link to a version that is gone is a model whose files are not known
    return [folder / MANIFEST for folder in folders if (folder / MANIFEST).is_file() or folder.is_symlink()]


def collect(home: Path, budget: int, others: list[Path]) -> tuple[int, int]:
    """Delete what killed processes left, then blobs that no kept version uses, the oldest first, until all blobs take
    at most `budget` bytes.

    `others`: manifests beside those of `manifests` whose blobs are kept. Returns bytes freed and bytes left. Raises
    ManifestError, and deletes nothing, when a manifest cannot be read: what it uses is not known.
    """
    used = set()
    for path in [*manifests(home), *others]:
        try:
            used |= {row.sha256 for row in manifest_in(path.parent).file}
        except ManifestError as error:
            raise ManifestError(f"nothing is deleted, as a model's files are not known: {error}") from None
    blobs = files.stats((home / "blobs" / "sha256").glob("??/*"))
    left, freed = sum(stat.st_size for stat, _ in blobs), store.sweep(home)
    for stat, path in blobs:
        if left > budget and f"{path.parent.name}{path.name}" not in used:
            path.unlink()
            left, freed = left - stat.st_size, freed + stat.st_size
    return freed, left


def _shelf(home: Path, name: str) -> Path:
    return home / "models" / ".versions" / name
