"""Where a service is laid: on this device, or in an image that is being built; and what is found there."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edge_agent import paths, programs
from edge_agent.device.unit import GROUPS, Found
from edge_agent.errors import EdgeAgentError, UsageError

Run: TypeAlias = Callable[..., tuple[int, str]]
"""a program and its arguments -> exit code, what it printed; 127 where there is no such program"""
HIDDEN, GONE = ("/home", "/root", "/run/user"), ("/tmp", "/var/tmp")
"""folders that a service under ProtectHome does not see, and those that PrivateTmp gives it empty"""
COMPILING = ("ctranslate2",)
"""engines that write code and run it: by oneDNN, which creates no primitive where that is denied"""
VERSIONS = ".edge-agent-versions"
"""a file in the folder that deploy/install.sh lays versions in, a folder each, beside the link `current`"""


class Place(NamedTuple):
    """Where the service is laid."""

    root: Path
    """/, or the folder of an image"""
    user: str
    run: Run | None
    """asks the service manager; None: it does not run here, and what is laid starts at the next start"""

    def at(self, path: str | Path) -> Path:
        """A path of the device."""
        return self.root / str(path).lstrip("/")


class Program(NamedTuple):
    """Where the program lies, as the device sees it."""

    python: Path
    prefix: Path
    binds: list[Path]
    """its folders in somebody's home"""
    versions: Path | None = None
    """the folder of its versions, where deploy/install.sh laid it"""


def run(*command: str) -> tuple[int, str]:
    """A `Run` of this system."""
    program = programs.which(command[0])
    if program is None:
        return 127, f"there is no {command[0]}"
    done = subprocess.run([program, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip()


def place(root: Path, user: str) -> Place:
    """This device, or an image. UsageError where it is none, or the name is none of a user."""
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", user) or user == "root":
        raise UsageError(f'--user "{user}": give a name of small letters, digits, _ or -, and not root')
    if not root.is_dir():
        raise UsageError(f"--root {root}: is no folder; give the one that the image is built in")
    live = root == Path("/") and Path("/run/systemd/system").is_dir()
    return Place(root, user, run if live else None)


def program(root: Path) -> Program:
    """This very program. UsageError where a service could not run it."""
    inside = paths.PACKAGE.parent
    folders = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent, inside}
    prefix, python = Path(sys.prefix), Path(sys.executable)
    versioned = prefix.is_relative_to(root) and (prefix.parent / VERSIONS).is_file()
    if versioned:
        python = prefix.parent / "current" / "bin" / "python"
        prefix = prefix.parent / prefix.resolve().name  # it may run as `current`
    if root != Path("/") and prefix.is_relative_to(root):
        folders = {_inside(one, root) for one in folders if one.is_relative_to(root)}
        python = _inside(python, root)
    for one in sorted({python, *folders}):
        _check_path(one)
    binds = _hidden(folders)
    if root == Path("/"):
        _enterable(Path(sys.executable), binds)
    return Program(python, prefix, binds, prefix.parent if versioned else None)


def _inside(path: Path, root: Path) -> Path:
    return Path("/") / path.relative_to(root)


def _check_path(path: Path) -> None:
    """UsageError where a service cannot run what lies there."""
    if not re.fullmatch(r"[\w./+@=,-]+", str(path), re.ASCII):
        raise UsageError(f"{path}: a unit cannot name this folder; install into one of letters, digits and - _ . only")
    if below(path, GONE):
        raise UsageError(f"{path}: the service would not see it, and the next start empties it; install into /opt")


def _hidden(folders: set[Path]) -> list[Path]:
    """Those that ProtectHome hides, by name, without what lies in another of them."""
    seen = [one for one in sorted(folders) if below(one, HIDDEN)]
    return [one for one in seen if not any(one != other and one.is_relative_to(other) for other in seen)]


def below(path: Path, folders: tuple[str, ...]) -> bool:
    """Whether it lies in one of them."""
    return any(path.is_relative_to(folder) for folder in folders)


def _enterable(python: Path, binds: list[Path]) -> None:
    """UsageError for a folder on the way to it that other users may not enter."""
    for folder in python.parents:
        within = [bind for bind in binds if bind.is_relative_to(folder) and bind != folder]
        if not within and not folder.stat().st_mode & stat.S_IXOTH:
            raise UsageError(f"{folder}: the service's user may not enter it; chmod o+x {folder}, or install into /opt")


def found(place: Place, binds: list[Path]) -> Found:
    """What a drop-in is to say of this device; of an image what is known before it runs."""
    groups = place.at("/etc/group")
    names = {line.partition(":")[0] for line in groups.read_text().splitlines()} if groups.is_file() else set()
    nodes = sorted(str(node) for node in Path("/dev").glob("nv*") if is_nvidia(node)) if place.root == Path("/") else []
    compiles = any(find_spec(name) is not None for name in COMPILING)
    return Found([name for name in GROUPS if name in names], nodes, binds, _systemd(place.root), compiles)


def is_nvidia(node: Path) -> bool:
    """Whether it is a device of NVIDIA's, and no disk (nvme) or memory of the board (nvram)."""
    return not node.name.startswith(("nvme", "nvram")) and stat.S_ISCHR(node.stat().st_mode)


def _systemd(root: Path) -> int:
    """The version of systemd that is installed there; 0: not known."""
    folders = ("usr/lib/systemd", "usr/lib/*/systemd", "lib/systemd")
    libraries = [each for folder in folders for each in root.glob(f"{folder}/libsystemd-shared-*.so")]
    versions = [re.search(r"shared-(\d+)", each.name) for each in libraries]
    return max((int(version[1]) for version in versions if version), default=0)


def ids(place: Place) -> tuple[int, int]:
    """Numbers of the user and its group. EdgeAgentError where there is none."""
    users = place.at("/etc/passwd")
    for line in users.read_text().splitlines() if users.is_file() else ():
        name, _, user, group, *_ = [*line.split(":"), "", "", ""]
        if name == place.user and user.isdecimal() and group.isdecimal():
            return int(user), int(group)
    raise EdgeAgentError(f"{users}: has no user {place.user}; make one, or give another by --user")
