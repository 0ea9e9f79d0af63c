"""What of this machine fits, and what is missing: one row each, with the one command that mends it.

With the standard library alone, and every library asked in a process of its own: what is looked for may be missing, or
kill the process that imports it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edge_agent import __version__, files, paths, programs
from edge_agent.cli.libraries import libraries
from edge_agent.cli.row import Row, fix, ok, warn
from edge_agent.device import board, media

DISTRIBUTION, OWN = "edge-agent-runtime", "edge_agent/__init__.py"
"""what is ours on a package index (edge-agent is somebody else's there), and the file that makes it importable"""
SYSTEMD = Path("/run/systemd/system")
"""is there where systemd is the service manager"""
FREE = 500_000_000
"""bytes that should be free where models and events are kept"""
LOOK_S = 150.0
"""seconds that one look may take: a driver or a disk may not answer at all"""
ASK_S = 120.0
"""seconds that a config has to be tried"""


def examine(config: str | None = None) -> list[Row]:
    """Look at everything the agent needs; nothing raises. `config`: the file that is to work here."""
    looks: list[Callable[[], Iterable[Row]]] = [
        _python, _machine, _name, libraries, _home, _disk, _telemetry, _sandbox, _clock, _board, _cameras, _microphones,
        _rights, _service, lambda: _config(config),
    ]  # fmt: skip
    with ThreadPoolExecutor(4) as pool:
        return [row for rows in pool.map(_looked, looks) for row in rows]


def _looked(look: Callable[[], Iterable[Row]]) -> list[Row]:
    """The rows of one look, or one that says why there are none."""
    what, rows = look.__name__.strip("_<>"), list[Row]()

    def run() -> None:
        try:
            rows.extend(look())
        except Exception as error:  # whatever is wrong here is what the doctor is asked for
            rows.append(warn(what, f"could not be looked at: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LOOK_S)
    return rows if not thread.is_alive() else [fix(what, f"no answer within {LOOK_S:.0f} s; a driver or disk hangs")]


def _python() -> Iterator[Row]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):
        yield warn("python", f"{version}: ONNX Runtime stays at 1.23.2, in which holes are known; 3.11 has none")
    else:
        yield ok("python", version)


def _machine() -> Iterator[Row]:
    bits, machine, cores = struct.calcsize("P") * 8, os.uname().machine, len(os.sched_getaffinity(0))
    told = " ".join(f"{board.model()} {machine}, {bits} bit, {cores} cores".split())
    if bits != 64:
        yield fix("machine", f"{told}; there are no 32-bit wheels of the runtimes: install a 64-bit system")
    elif not board.libc():
        yield fix("machine", f"{told}; its C library is not glibc (musl?), for which there are no wheels: take Debian")
    else:
        yield ok("machine", f"{told}, {board.libc()}")
    good, means = board.means(machine, board.flags())
    yield (ok if good else warn)("processor", means)


def _name() -> Iterator[Row]:
    """Another distribution may hold an ``edge_agent`` too: which of the two is imported is chance."""
    from importlib.metadata import distributions

    here = paths.PACKAGE.parent.as_uri()
    for found in distributions():
        name = re.sub(r"[-_.]+", "-", found.metadata["Name"] or "").lower()
        if name == DISTRIBUTION or not (name == "edge-agent" or any(str(f) == OWN for f in found.files or ())):
            continue
        if json.loads(found.read_text("direct_url.json") or "{}").get("url") == here:
            continue  # this checkout, from when it bore that name
        mend = f"pip uninstall -y {name} && pip install --force-reinstall {DISTRIBUTION}"
        yield fix("name", f"{name} {found.version} is another program that is imported as edge_agent", mend)
        return
    yield ok("name", f"edge_agent {__version__} from {paths.PACKAGE}")


def _home() -> Iterator[Row]:
    home = paths.home()
    try:
        files.folder(home)
        with tempfile.NamedTemporaryFile(dir=home):
            pass
        free, owner = shutil.disk_usage(home).free, home.stat().st_uid
        for path in (home, *home.rglob("*")):
            at = path.lstat()
            if at.st_uid != owner and not at.st_mode & 0o004:
                found = f"{path} cannot be read by the owner of {home}, such as the service"
                yield fix("store", found, f"sudo chown -R --reference={home} {home}/")
                return
    except OSError as error:
        yield fix("store", f"{home}: {error.strerror}; set EDGE_AGENT_HOME or --home to a writable folder")
        return
    yield (ok if free > FREE else fix)("store", f"{home}, {free / 1e9:.1f} GB free")


def _disk() -> Iterator[Row]:
    """Of the home's disk: what a store needs of its file system, and how long it lives."""
    found = board.disk(paths.home())
    told = f"{found.kind} on {found.device}"
    told += f", {found.written_gb_day:.1f} GB a day written since the start" if found.written_gb_day else ""
    told += f", {(found.life - 1) * 10} to {found.life * 10} % of its life gone" if found.life else ""
    if found.read_only:
        yield fix("disk", f"{told}; mounted read-only, as after errors", "sudo fsck -n " + found.device)
    elif found.life >= board.SPENT:
        yield fix("disk", f"{told}: its life is over; copy what it holds and take another one")
    elif found.life >= board.WORN or found.kind in board.WEAK:
        yield warn("disk", f"{told}{'; no file system for a store: keep it on ext4' if not found.life else ': worn'}")
    elif found.kind in board.VOLATILE:
        yield warn("disk", f"{told}: what is kept there may be gone at the next start")
    else:
        yield ok("disk", told)


def _telemetry() -> Iterator[Row]:
    """ONNX Runtime from 1.32 on reports to its maker, unless it is told not to (see edge_agent/__init__.py)."""
    if os.environ.get("ORT_DISABLE_TELEMETRY") != "1":
        yield fix("telemetry", "ONNX Runtime's is on: something took ORT_DISABLE_TELEMETRY=1 out of the environment")
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111, which raises
    left = cache / "Microsoft" / "DeveloperTools" / ".onnxruntime"
    if left.exists():
        found = f"off, also that of ONNX Runtime; another program's use of it left an id of this device: delete {left}"
        yield warn("telemetry", found, f"rm -r {left}")
    else:
        yield ok("telemetry", "off, also that of ONNX Runtime")


def _sandbox() -> Iterator[Row]:
    """What stands around the process that tries a model; the agent works without."""
    from edge_agent.device import sandbox  # needs msgspec

    lacks = sandbox.missing()
    if not lacks:
        yield ok("sandbox", "a model is tried where it can read no other file, write none and reach nobody")
        return
    mend = "take a kernel from 5.13 (TCP: 6.7) on, with landlock in its lsm= parameter"
    yield warn("sandbox", f"this kernel has no {', no '.join(lacks)}: a model is tried under limits; {mend}")


def _clock() -> Iterator[Row]:
    """A board without a battery starts in 1970 or at its last shutdown; certificates and times are wrong until NTP."""
    good, told = board.clock()
    if not good:
        yield fix("clock", f"{told}; wait for the time, or set it", "sudo timedatectl set-ntp true")
    elif board.synced() is False:
        yield warn("clock", f"{told}, and follows no time server", "sudo timedatectl set-ntp true")
    else:
        yield ok("clock", told)


def _board() -> Iterator[Row]:
    now, before = board.troubles()
    heat = board.warmest()
    if now or before:
        told = ", ".join(now + before)
        mend = "a power supply and cable of the maker's" if "voltage" in told else "more air, or a heat sink"
        yield (fix if now else warn)("power, heat", f"{told}; give it {mend}")
    else:
        yield ok("power, heat", f"{heat:.0f} °C at most" if heat else "this board says nothing of it")


def _cameras() -> Iterator[Row]:
    found = list(media.cameras())
    for one in found:
        if one.wrong:
            yield warn("camera", f"{one.path}: {one.wrong}")
        else:
            yield ok("camera", f"camera:{one.path.name.removeprefix('video')}  {one.name}: {', '.join(one.formats)}")
    if not found:
        yield ok("camera", "none at /dev/video*; cameras of the network are named by their address")


def _microphones() -> Iterator[Row]:
    found = media.microphones()
    for one in found or ():
        level = "" if one.level is None else f", {one.level:.0f} dB{' (silence)' if one.level <= -90 else ''}"
        yield (warn if one.wrong else ok)(
            "microphone", f"{one.name}, {one.rate:.0f} Hz{level}{one.wrong and f': {one.wrong}'}"
        )
    if not found:
        yield ok("microphone", "none" if found is not None else "not known without sounddevice")


def _rights() -> Iterator[Row]:
    """Devices that are here and not for this user."""
    import getpass

    groups: dict[str, list[str]] = {}
    for pattern in ("video*", "media*", "snd/pcm*", "ttyUSB*", "ttyACM*", "dri/render*"):
        for node, group in board.unreachable(pattern):
            groups.setdefault(group, []).append(str(node))
    for group, nodes in groups.items():
        mend = f"sudo usermod -aG {group} {getpass.getuser()}" if group not in ("", "root") else ""
        yield warn("rights", f"this user may not use {', '.join(nodes[:4])}{' …' if len(nodes) > 4 else ''}", mend)
    if not groups:
        yield ok("rights", "this user may use every camera, sound and serial device that is here")


def _service() -> Iterator[Row]:
    program = programs.which("systemctl")
    if program is None or not SYSTEMD.is_dir():
        yield ok("service", "systemd does not run here")
        return
    asked = [program, "show", "-p", "LoadState,ActiveState,NRestarts", "edge-agent"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout
    told = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    if told.get("LoadState") != "loaded":
        yield ok("service", "not installed; sudo edge-agent install makes it one")
    elif told.get("ActiveState") != "active":
        yield fix("service", f"it is {told.get('ActiveState')}", "journalctl -u edge-agent -n 50")
    else:
        yield ok("service", f"it runs, started anew {told.get('NRestarts', '?')} times since it was started by hand")


def _config(given: str | None) -> Iterator[Row]:
    """Whether the config works: keys, and what its broker lets this device do; in a process of its own."""
    place = given or paths.service_config()
    if place is None:
        yield ok("config", "none; give one with -c, or sudo edge-agent install")
        return
    if not os.access(place, os.R_OK):
        yield warn("config", f"{place} may not be read by this user", f"sudo {sys.executable} -m edge_agent doctor")
        return
    command = [*programs.python("edge_agent.cli.tried"), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S)
    lines = [line for line in done.stdout.splitlines() if line.startswith("#[")]
    for good, told in json.loads(lines[-1][1:]) if lines else [(False, done.stderr.strip().rpartition("\n")[2])]:
        yield Row("config", "ok" if good else "fix" if good is False else "warn", told, "")
