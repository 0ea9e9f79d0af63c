"""What a device keeps, in one file: config, home and the events that wait; and put back, also on a new device.

The file is a tar (gzip) of config/, home/ and store/ behind a manifest.json. What waits is put back under new numbers
of a new epoch: the device may have gone on after the backup, and no number is given out twice.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from edge_agent import __version__, files
from edge_agent.config import load
from edge_agent.device.laid import named as named_by
from edge_agent.errors import InputError, StoreError, UsageError
from edge_agent.events import UNREADABLE, rfc3339
from edge_agent.outbox.outbox import Outbox

MANIFEST, ROOMS = "manifest.json", ("config", "home", "store")
MOST_MANIFEST, MOST_FILES = 64_000, 200_000
"""bytes of the manifest, and files of a backup"""
LEFT_OUT = {"outbox", "instances", "part", "lock", "spare"}
"""of a home and a store: stores, halves of downloads, what is of a running process alone"""
TRIES = 5
"""times that a store is copied until nothing came or went meanwhile; the last copy is as good as after a power cut"""


class Manifest(msgspec.Struct, frozen=True):
    """What a backup says of itself."""

    v: int
    device: str
    version: str
    at: str
    """RFC 3339"""
    config: str
    """the config's name among the files of config/"""


class Places(msgspec.Struct, frozen=True):
    """Where a device keeps what a backup holds."""

    config: Path
    """the file; what it names and lies beside it belongs to it, and so do credentials"""
    home: Path
    store: Path


def backup(places: Places, out: Path) -> int:
    """Write all of it to a file for its owner alone, which holds secrets; how many files. InputError, ConfigError."""
    device, count = load(places.config, pipelines=False).device.id, 0
    told = Manifest(1, device, __version__, rfc3339(time.time()), places.config.name)
    part = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w+b") as file:
            with tarfile.open(fileobj=file, mode="w:gz") as tar, tempfile.TemporaryDirectory(dir=out.parent) as copies:
                raw = msgspec.json.encode(told)
                head = tarfile.TarInfo(MANIFEST)
                head.size, head.mode, head.mtime = len(raw), 0o600, int(time.time())
                tar.addfile(head, io.BytesIO(raw))
                store = _copied(places.store, Path(copies) / "store")
                for room, folder in (("config", places.config.parent), ("home", places.home), ("store", store)):
                    for path in _of_config(places.config) if room == "config" else _files(folder):
                        with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                            tar.add(path, f"{room}/{path.relative_to(folder)}", recursive=False)
                            count += 1
            file.flush()
            os.fsync(file.fileno())
        files.put(part, out)
    finally:
        part.unlink(missing_ok=True)
    return count


def _of_config(config: Path) -> list[Path]:
    """The config, the files that it names below its folder, and credentials."""
    named = {config, *named_by(load(config, pipelines=False)), *(config.parent / "credentials").glob("*")}
    return sorted(path for path in named if path.is_file() and path.is_relative_to(config.parent))


def _files(folder: Path) -> Iterator[Path]:
    """Regular files and links below a home or a store, in order."""
    for path in sorted(folder.rglob("*")):
        within = path.relative_to(folder).parts
        if within[0] not in LEFT_OUT and "part" not in within and (path.is_symlink() or path.is_file()):
            yield path


def _copied(store: Path, to: Path) -> Path:
    """A store, copied until nothing came or went meanwhile."""
    for _ in range(TRIES):
        shutil.rmtree(to, ignore_errors=True)
        to.mkdir()
        before = _listing(store)
        for path in sorted(store.iterdir()) if store.is_dir() else ():
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    shutil.copy2(path, to / path.name)
        if before == _listing(store):
            break
    return to


def _listing(store: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(store.iterdir()) if store.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            at = path.stat()
            found.append((path.name, at.st_size, at.st_mtime_ns))
    return found


# ── put back ─────────────────────────────────────────────────────────────────────────────────────────────


def restore(archive: Path, places: Places, other_device: bool = False) -> list[str]:
    """Put back what a backup holds, where nothing is; what was done, a line each.

    Raises InputError for a file that is no backup of ours or holds what none does, UsageError where something is in
    the way, or where it is another device's and `other_device` does not say that this is meant.
    """
    for place in (places.config, places.store):
        if place.exists() and (place.is_file() or any(place.iterdir())):
            raise UsageError(f"{place} is there; stop the service, and move it away")
    files.folder(places.home, files.PRIVATE)
    # beside the home, on the same disk, so that what is moved is moved at once
    with tempfile.TemporaryDirectory(dir=places.home.parent, prefix=".restore-") as folder:
        told = _unpacked(archive, Path(folder))
        unpacked = Path(folder, "config", told.config)
        if not unpacked.is_file() or PurePosixPath(told.config).name != told.config:
            raise InputError(f"{archive}: holds no config {told.config!r}; it is no whole backup")
        here = load(unpacked, pipelines=False).device.id
        if here != told.device and not other_device:
            raise UsageError(
                f'{archive} is of the device "{told.device}", and this one is "{here}"; --other-device takes it'
            )
        done = [f"{_moved(Path(folder, 'config'), places.config.parent)} files to {places.config.parent}"]
        (places.config.parent / told.config).replace(places.config)
        done.append(f"{_moved(Path(folder, 'home'), places.home)} files to {places.home}")
        done.append(
            f"{_put(Path(folder, 'store'), places.store, told.device, here)} events that wait to {places.store}"
        )
    return done


def _unpacked(archive: Path, folder: Path) -> Manifest:
    """Unpack a backup into a folder; its manifest. InputError for whatever else it is."""
    free, count = shutil.disk_usage(folder).free, 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            told = _manifest(archive, tar)
            while (member := tar.next()) is not None:
                count, free = count + 1, free - member.size
                if count > MOST_FILES or free < 0:
                    raise InputError(f"{archive}: holds more than this disk has room for, or than {MOST_FILES} files")
                _unpack(archive, tar, member, folder)
    except (tarfile.TarError, EOFError, OSError, *UNREADABLE) as error:
        if isinstance(error, OSError) and error.filename:
            raise InputError(f"{archive}: cannot be read or unpacked ({error.strerror}); check path and disk") from None
        raise InputError(f"{archive}: is damaged, or no backup of edge-agent ({type(error).__name__})") from None
    return told


def _manifest(archive: Path, tar: tarfile.TarFile) -> Manifest:
    """What stands first in a backup."""
    head = tar.next()
    if head is None or head.name != MANIFEST or not head.isreg() or head.size > MOST_MANIFEST:
        raise InputError(f"{archive}: is no backup of edge-agent; give a file that `edge-agent backup` wrote")
    file = tar.extractfile(head)
    return msgspec.json.decode(file.read() if file is not None else b"", type=Manifest)


def _name(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    """Where a member belongs, below one of ROOMS."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts or len(name.parts) < 2 or name.parts[0] not in ROOMS:
        raise InputError(f"{archive}: {member.name[:100]!r} leads out of where it belongs; it is no backup of ours")
    return name


def _unpack(archive: Path, tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    """One file, or a link within home/. InputError for all else: a device, a path that leads out."""
    name = _name(archive, member)
    at = folder / name
    if any((folder.joinpath(*name.parts[:n])).is_symlink() for n in range(1, len(name.parts))):
        raise InputError(f"{archive}: {member.name[:100]!r} lies behind a link; it is no backup of ours")
    at.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if member.issym() and name.parts[0] == "home":
        if not _stays(name, PurePosixPath(member.linkname)):
            raise InputError(f"{archive}: the link {member.name[:100]!r} leads out; it is no backup of ours")
        at.symlink_to(member.linkname)
    elif member.isreg():
        source = tar.extractfile(member)
        assert source is not None
        mode = stat.S_IMODE(member.mode) & 0o755
        with os.fdopen(os.open(at, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            shutil.copyfileobj(source, file)
            os.fchmod(file.fileno(), mode)
    else:
        raise InputError(f"{archive}: {member.name[:100]!r} is neither a file nor a link; it is no backup of ours")


def _stays(name: PurePosixPath, to: PurePosixPath) -> bool:
    """Whether a link of this name leads to a place in home/: behind a name, maybe a link, no ``..`` may stand."""
    up = next((n for n, part in enumerate(to.parts) if part != ".."), len(to.parts))
    inside = PurePosixPath(os.path.normpath(name.parent / to)).is_relative_to("home")
    return inside and not to.is_absolute() and ".." not in to.parts[up:]


def _moved(source: Path, to: Path) -> int:
    """Move the files below a folder; how many. They become its owner's where root moves them."""
    count = 0
    for path in sorted(source.rglob("*")) if source.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            continue
        at, mode = to / path.relative_to(source), path.lstat().st_mode
        files.folder(
            at.parent, files.FOLDER if at.parent != to else stat.S_IMODE(to.stat().st_mode) if to.exists() else 0o750
        )
        shutil.move(str(path), at)
        if os.geteuid() == 0:
            owner = to.stat()
            os.chown(at, owner.st_uid, owner.st_gid, follow_symlinks=False)
        if stat.S_ISREG(mode):
            at.chmod(stat.S_IMODE(mode))
        count += 1
    return count


def _put(source: Path, store: Path, device: str, here: str) -> int:
    """Put the events that wait in a copied store into a new one, and where sources resume; how many events."""
    if not source.is_dir() or not any(source.iterdir()):
        return 0
    try:
        old, count = Outbox(source, device), 0
        new = _other_epoch(store, here, old.epoch)
        while records := old.take(1000):
            for record in records:
                # what the copy itself declares missing is not: it went on there
                if record.seq <= old.before:
                    with contextlib.suppress(*UNREADABLE):
                        new.put(new.encoding.decode(record.payload), record.kind, record.entry.mark)
                        count += 1
            old.done(*records)
        for pipeline, mark in old.marks.items():
            new.passed(pipeline, mark)
        new.close()
        old.close()
    except StoreError as error:
        raise InputError(f"the store of the backup cannot be put back: {error}") from None
    return _given_to_its_owner(store, count)


def _other_epoch(store: Path, device: str, epoch: int) -> Outbox:
    """A new store whose epoch is not this one: it is the second in which it begins."""
    while (new := Outbox(store, device)).epoch == epoch:
        new.close()
        shutil.rmtree(store)
        time.sleep(0.5)
    return new


def _given_to_its_owner(store: Path, count: int) -> int:
    if os.geteuid() == 0:
        owner = store.parent.stat()
        for path in (store, *store.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
    return count
