"""Files by their SHA-256, under HOME/blobs.

A file is either whole and named by its hash, or it is not there: it is written beside its place, synced, and
renamed. Nothing is trusted because it lies here: each load hashes what it takes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent import files
from edge_agent.errors import FetchError, WrongFileError
from edge_agent.files import sync
from edge_agent.held import is_ours

log = logging.getLogger("edge_agent")

CHUNK = 1 << 20
MOST_BYTES = 1 << 31
"""of a file: ONNX's protobuf and TFLite's offsets end there"""
PATIENCE = 3600.0
"""seconds that a process waits for another one, which may fetch a large file slowly"""
STALE = 3600.0
"""seconds after which a file of a trial is nobody's any more: it has a minute"""
LATELY = 5.0
"""seconds"""
TICK = 2_100_000_000
"""nanoseconds: a file system's clock stands still for milliseconds (FAT's for two seconds), so what has just changed
may change again unseen"""
_read_lately: dict[tuple[int, ...], tuple[float, str]] = {}
"""what a file is known by -> when it was read, and its hash"""
_one_writes = threading.Lock()


def blob(home: Path, sha256: str) -> Path:
    """Where the file of this hash lies, or would lie: HOME/blobs/sha256/AB/REST."""
    return home / "blobs" / "sha256" / sha256[:2] / sha256[2:]


def digest(path: Path) -> str:
    """SHA-256 of a file in lower-case hex, read in pieces. OSError as `files.open_regular` raises it, also for one of
    more than MOST_BYTES, which is not read.

    One start asks for the same file up to four times: what was read in the last LATELY seconds, and was left alone
    since (by inode, size and times), is not read again.
    """
    now = time.monotonic()
    with os.fdopen(files.open_regular(path), "rb") as file:
        at = os.fstat(file.fileno())
        if at.st_size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"larger than {MOST_BYTES >> 30} GB, which no network file can be", str(path))
        key = (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns)
        read, found = _read_lately.get(key, (-LATELY, ""))
        if now - read < LATELY:
            return found
        # what is written through a mapping shows in no time stamp
        settled = abs(time.time_ns() - at.st_ctime_ns) > TICK and is_ours(file.fileno())
        hasher = hashlib.sha256()
        while piece := file.read(CHUNK):
            hasher.update(piece)
    if settled:
        with _one_writes:
            for old in [key for key, (read, _) in _read_lately.items() if now - read >= LATELY]:
                del _read_lately[old]
            _read_lately[key] = now, hasher.hexdigest()
    return hasher.hexdigest()


def scratch(home: Path) -> Path:
    """Folder for what is not whole yet, on the same disk as the blobs; made when it is not there."""
    return files.folder(home / "blobs" / "part", files.PRIVATE)


def keep(home: Path, part: Path, sha256: str) -> Path:
    """Move a whole file from `scratch` to its place, so that a power cut leaves it there whole or not at all.

    The hash is computed once more; WrongFileError (and the part is gone) when it is another one.
    """
    found = digest(part)
    if found != sha256:
        part.unlink()
        raise WrongFileError(f"has sha256 {found[:12]}…, promised was {sha256[:12]}…")
    place = blob(home, sha256)
    files.folder(place.parent)
    with part.open("rb") as file:
        files.settle(file.fileno(), place.parent)
        os.fsync(file.fileno())
    part.replace(place)
    # the folders may be new themselves
    for folder in (place.parent, *list(place.parents)[1:4]):
        sync(folder)
    return place


def put(home: Path, source: Path, sha256: str, limit: int) -> Path:
    """Copy a file of at most `limit` bytes into the store. FetchError when it is not the one that was promised."""
    import tempfile

    try:
        file = os.fdopen(files.open_regular(source), "rb")
    except OSError as error:
        raise FetchError(f"cannot be read ({error.strerror})") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        if size != limit:
            raise WrongFileError(f"has {size} bytes, promised were {limit}")
        with tempfile.NamedTemporaryFile(dir=scratch(home), prefix=f"{sha256}.", suffix=".copy", delete=False) as copy:
            part = Path(copy.name)
            try:
                while piece := file.read(CHUNK):
                    copy.write(piece)
            except BaseException:
                part.unlink()
                raise
    return keep(home, part, sha256)


@contextmanager
def alone(home: Path, sha256: str, what: str = "") -> Iterator[None]:
    """One process at a time fetches a file; the others wait and then find it done. `what`: said while it waits.

    FetchError after PATIENCE seconds.
    """
    import fcntl

    handle = private(scratch(home) / f"{sha256}.lock")
    try:
        deadline, said = time.monotonic() + PATIENCE, False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise FetchError(f"{what or home}: another process has kept it for {PATIENCE:.0f} s") from None
                if what and not said:
                    log.warning("%s: another process fetches it; waiting for that", what)
                said = True
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def sweep(home: Path) -> int:
    """Delete what killed processes left in `scratch`, unless somebody works on it. Returns the bytes freed."""
    import fcntl
    import shutil

    freed = 0
    for left in scratch(home).iterdir():
        name = left.name.partition(".")[0]
        if left.suffix == ".lock":
            continue
        handle = -1
        try:
            if re.fullmatch("[0-9a-f]{64}", name):
                handle = private(left.with_name(f"{name}.lock"))
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif time.time() - left.stat().st_mtime < STALE:
                continue  # a trial may write it; it says so to nobody
            size = _bytes_in(left)
            shutil.rmtree(left) if left.is_dir() else left.unlink()
            freed += size
        except BlockingIOError:
            continue  # it is being fetched
        finally:
            if handle >= 0:
                os.close(handle)
    return freed


def _bytes_in(place: Path) -> int:
    """Of a file, or of all files below a folder."""
    inside = [place, *place.rglob("*")] if place.is_dir() else [place]
    return sum(path.lstat().st_size for path in inside if not path.is_dir())


def private(path: Path) -> int:
    """A descriptor of a file in `scratch` for reading and writing, made when it is not there; only its owner may."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(PermissionError):  # root made it where nothing may be given away
        files.settle(handle, path.parent, 0o600)
    return handle
