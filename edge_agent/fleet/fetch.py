"""Bringing the files of a bundle here: what is here already is not sent again, and what broke off goes on."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from shutil import disk_usage
from urllib.parse import unquote, urlsplit

import msgspec

from edge_agent import files
from edge_agent.errors import FetchError, NotNowError, RefusedError, WrongFileError
from edge_agent.events import UNREADABLE
from edge_agent.files import write_private
from edge_agent.fleet import forms
from edge_agent.fleet.bundle import Bundle, Part
from edge_agent.manifest import File
from edge_agent.registry import store
from edge_agent.registry.download import download, reason

SPARE = 64 << 20
"""bytes of the disk that stay free"""
KEEP = 1 << 20
"""bytes between two notes of what was spent"""


class Allowance:
    """How many bytes may come in a day (UTC), and at what time of day. `spend` is told of each piece that came."""

    def __init__(self, file: Path, per_day: int | None, may_now: Callable[[], str] = lambda: "") -> None:
        """`file` keeps what was spent; `may_now`: why nothing may come now, "" where it may."""
        self._file, self.per_day, self._may_now = file, per_day, may_now
        self._day, self._spent, self._noted = "", 0, 0
        with contextlib.suppress(OSError, *UNREADABLE):
            day, spent = msgspec.json.decode(files.read_regular(file, 1000), type=tuple[str, int])
            self._day, self._spent = day, max(0, spent)

    def check(self) -> None:
        """NotNowError where nothing may come now."""
        if why := self._may_now():
            raise NotNowError(why)
        today = time.strftime("%Y-%m-%d", time.gmtime())
        if self._day != today:
            self._day, self._spent, self._noted = today, 0, 0
        if self.per_day is not None and self._spent >= self.per_day:
            raise NotNowError(f"the {self.per_day} bytes of today are spent; it goes on tomorrow")

    def spend(self, count: int) -> None:
        """So many came. NotNowError where no more may."""
        self._spent += count
        if self._spent - self._noted >= KEEP or (self.per_day is not None and self._spent >= self.per_day):
            self.note()
        self.check()

    def note(self) -> None:
        """Keep what was spent."""
        self._noted = self._spent
        with contextlib.suppress(OSError):
            files.folder(self._file.parent, files.PRIVATE)
            write_private(self._file, msgspec.json.encode((self._day, self._spent)))


Blob = Callable[[File], Path]
"""brings a file by its hash. NotNowError, RefusedError"""


def fetch(home: Path, repository: str, bundle: Bundle, allowance: Allowance, ca: str | None = None) -> int:
    """Bring all files of a bundle into the store of HOME; the bytes that came. `ca`: as of registry/download.py.

    Raises NotNowError where they cannot come now (what came stays), RefusedError for one that is not what was signed,
    or for which the disk has no room.
    """
    missing = [part for part in bundle.files if not _is_here(home, part)]
    total = sum(part.bytes for part in missing)
    free = disk_usage(files.folder(home)).free
    if total + SPARE > free:
        raise RefusedError(
            f"{bundle.wanted}: needs {total / 1e6:.1f} MB, and the disk of {home} has {free / 1e6:.1f} left"
        )
    blob = lambda row: _blob(home, repository, bundle, row, allowance, ca)  # noqa: E731
    came = sum(_part(home, bundle, part, blob) for part in missing)
    allowance.note()
    return came


def _is_here(home: Path, part: Part) -> bool:
    with contextlib.suppress(OSError):
        return store.digest(store.blob(home, part.sha256)) == part.sha256
    return False


def _part(home: Path, bundle: Bundle, part: Part, blob: Blob) -> int:
    """One file, by its smallest form that can be used here."""
    with store.alone(home, part.sha256, str(bundle.wanted)):
        for form in part.forms:
            base = b""
            if form.base:
                try:
                    base = files.read_regular(store.blob(home, form.base), forms.MOST)
                except OSError:
                    continue
            place = blob(File(part.path, "text", form.sha256, form.bytes))
            data = forms.restored(form.method, files.read_regular(place, part.bytes), part.bytes, base)
            fresh = store.scratch(home) / f"{part.sha256}.restored"
            write_private(fresh, data)
            _kept(home, fresh, part, bundle)
            place.unlink(missing_ok=True)
            return form.bytes
        blob(File(part.path, "text", part.sha256, part.bytes))
        return part.bytes


def _kept(home: Path, fresh: Path, part: Part, bundle: Bundle) -> None:
    try:
        store.keep(home, fresh, part.sha256)
    except WrongFileError as error:
        raise RefusedError(f"{bundle.wanted}: {part.path}: {error}") from None


def _blob(home: Path, repository: str, bundle: Bundle, row: File, allowance: Allowance, ca: str | None) -> Path:
    """A file of the repository, by its hash. NotNowError, RefusedError."""
    address = f"{repository}blobs/{row.sha256[:2]}/{row.sha256[2:]}"
    before = 0

    def told(done: int, total: int) -> None:
        nonlocal before
        came, before = max(0, done - before), done
        allowance.spend(came)

    try:
        if address.startswith("file:"):
            return store.put(home, Path(unquote(urlsplit(address).path)), row.sha256, row.bytes)
        part = store.scratch(home) / f"{row.sha256}.part"
        before = part.stat().st_size if part.is_file() else 0
        allowance.check()
        return download(home, address, row, told, ca)
    except WrongFileError as error:
        raise RefusedError(f"{bundle.wanted}: {row.name}: is not the file that was signed: {error}") from None
    except (FetchError, OSError) as error:
        why = re.sub(r"; .*", "", str(error)) if isinstance(error, FetchError) else reason(error)
        raise NotNowError(f"{bundle.wanted}: {row.name}: cannot be had now: {why}; it goes on later") from None
