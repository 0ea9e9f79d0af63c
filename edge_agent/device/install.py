"""The service laid and started, and taken away again.

Nothing that somebody else changed is overwritten, and what ran before runs on where the new does not come up.
"""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from edge_agent import files, paths
from edge_agent.device import laid, unit
from edge_agent.device import place as places
from edge_agent.device.laid import Done
from edge_agent.device.place import Place, Program
from edge_agent.errors import EdgeAgentError

SYSTEM = "/etc/systemd/system"
COMMAND = "/usr/local/bin/edge-agent"
STEADY_S = 5.0
"""seconds that the service has to run on after it has said that it is ready"""


class _Written:
    """Files for the service manager, and the link to the version that runs; what stood there can be put back."""

    def __init__(self, place: Place, done: Done) -> None:
        self._place, self._done = place, done
        self._before: dict[Path, str | None] = {}
        self.replaced = ""
        """the version that the link named"""
        self.link = Path()

    @property
    def changed(self) -> bool:
        """Whether anything is other than it was."""
        return bool(self._before or self.link.name)

    def write(self, path: str, text: str) -> None:
        """Kept as it is where somebody else changed it."""
        at, new = self._place.at(path), unit.marked(text)
        before = at.read_text(errors="replace") if at.is_file() else None
        if before is not None and not unit.ours(before):
            self._done.kept.append(f"{at}: somebody changed it, so it stays; for ours move it away and install again")
        elif before != new:
            self._before[at] = before
            files.write(at, new)
            self._done.did.append(f"wrote {at}")

    def point(self, link: Path, name: str) -> None:
        """Let the link name this version."""
        before = link.readlink().name if link.is_symlink() else ""
        if before != name:
            self.link, self.replaced = link, before
            _point(link, name)
            self._done.did.append(f"{link} names {name}" + (f", and no longer {before}" if before else ""))

    def put_back(self) -> bool:
        """What stood there before; False where nothing ran before."""
        if not self.replaced and None in self._before.values():
            return False
        for at, text in self._before.items():
            files.write(at, text) if text is not None else at.unlink(missing_ok=True)
        if self.replaced:
            _point(self.link, self.replaced)
        return True


def _point(link: Path, name: str) -> None:
    new = link.with_name(f".{link.name}")
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    new.replace(link)


def install(place: Place, given: Path | None = None) -> Done:
    """Lay the service, start it, and wait until it is ready. `given`: the config that it is to have.

    Raises an EdgeAgentError, one line, when it does not come up; what ran before runs again then.
    """
    done, program = Done(), places.program(place.root)
    if given is not None:
        laid.check_fits(place, given)
    owner = laid.make_user(place, done)
    laid.make_folders(place, owner, done)
    laid.lay_config(place, given, owner[1], done)
    written = _Written(place, done)
    _units(place, program, written)
    if _enable(place, unit.UNIT):
        done.did.append("it starts with the system")
    if place.run is None:
        if not place.at(program.python).exists():
            done.kept.append(f"{program.python}: is not in {place.root} yet; install the program there, in that place")
        if program.versions is not None:
            _command(place, program.versions, done)
        return done
    if written.changed or place.run("systemctl", "is-active", "--quiet", unit.UNIT)[0]:
        _start(place, written, done)
    else:
        done.did.append("it runs already, and nothing changed")
    done.state = "running"
    if program.versions is not None:
        _command(place, program.versions, done)
        _clear(program.versions, written.replaced)
    return done


def _units(place: Place, program: Program, written: _Written) -> None:
    """The units, the drop-ins, and the link to this version."""
    found, service = places.found(place, program.binds), laid.asked(place)
    for name, asked in ((unit.UNIT, service), (unit.TEMPLATE, unit.Asked())):
        text = unit.unit(paths.carried("systemd", name).read_text(), program.python, place.user)
        written.write(f"{SYSTEM}/{name}", text)
        written.write(f"{SYSTEM}/{name}.d/10-device.conf", unit.drop_in(found, asked))
    if program.versions is not None:
        written.point(program.versions / "current", program.prefix.name)
    if program.versions is not None and service.agent:
        for name in unit.UPDATES:
            text = unit.unit(paths.carried("systemd", name).read_text(), program.python, place.user)
            written.write(f"{SYSTEM}/{name}", text)
        _enable(place, unit.UPDATES[0])
    else:
        _take_updates(place, Done())


def _enable(place: Place, name: str) -> bool:
    """It starts with the system: what `systemctl enable` does, which an image has no use of; whether that is new."""
    link = place.at(f"{SYSTEM}/multi-user.target.wants/{name}")
    if link.is_symlink():
        return False
    files.folder(link.parent)
    link.symlink_to(f"{SYSTEM}/{name}")
    return True


def _start(place: Place, written: _Written, done: Done) -> None:
    """Start it anew. EdgeAgentError when it does not come up; what was there before runs again then."""
    why = _brought_up(place)
    if not why:
        assert place.run is not None
        place.run("systemctl", "try-restart", unit.TEMPLATE.replace("@", "@*"))
        if place.at(f"{SYSTEM}/{unit.UPDATES[0]}").exists():
            place.run("systemctl", "start", unit.UPDATES[0])
        done.did.append("it runs, and has said that it is ready")
        return
    see = "see: journalctl -u edge-agent -n 50"
    if not written.put_back():
        raise EdgeAgentError(f"the service does not come up: {why}; {see}")
    again = _brought_up(place)
    then = f"what was there before does not either: {again}" if again else "what was there before runs again"
    raise EdgeAgentError(f"the service does not come up: {why}; {then}; {see}")


def _brought_up(place: Place) -> str:
    """Why it does not run after a start, one line; "" when it does, and goes on to."""
    assert place.run is not None
    place.run("systemctl", "daemon-reload")
    place.run("systemctl", "reset-failed", unit.UNIT)
    code, said = place.run("systemctl", "restart", unit.UNIT)
    if code == 0:
        time.sleep(STEADY_S)
        said = place.run("systemctl", "show", "-p", "ActiveState,NRestarts", unit.UNIT)[1]
        if {"ActiveState=active", "NRestarts=0"} <= set(said.split()):
            return ""
    told = place.run("journalctl", "-t", "edge-agent", "-n", "9", "-o", "cat", "--no-pager")[1].splitlines()
    return " ".join((told or [said])[-1].split())


def _command(place: Place, versions: Path, done: Done) -> None:
    """`edge-agent` on everybody's PATH, where deploy/install.sh laid the program."""
    command = place.at(COMMAND)
    if not os.path.lexists(command):
        files.folder(command.parent)
        command.symlink_to(_as_seen(place, versions) / "current" / "bin" / "edge-agent")
        done.did.append(f"made {command}")


def _as_seen(place: Place, path: Path) -> Path:
    """A path of ours as the device sees it."""
    return Path("/") / path.relative_to(place.root) if path.is_relative_to(place.root) else path


def _clear(versions: Path, before: str) -> None:
    """Delete all versions but the one that serves and the one before it."""
    kept = {before, (versions / "current").readlink().name}
    for folder in versions.iterdir() if before else ():
        if folder.is_dir() and not folder.is_symlink() and folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


# ── away with it ─────────────────────────────────────────────────────────────────────────────────────────


def uninstall(place: Place, purge: bool = False) -> Done:
    """Stop it and take away what `install` laid, but for config and data; with `purge` these as well."""
    done, program = Done(state="removed"), places.program(place.root)
    if place.run is not None:
        place.run("systemctl", "stop", unit.UNIT, unit.TEMPLATE.replace("@", "@*"))
    place.at(f"{SYSTEM}/multi-user.target.wants/{unit.UNIT}").unlink(missing_ok=True)
    for name in (unit.UNIT, unit.TEMPLATE):
        drop_in = place.at(f"{SYSTEM}/{name}.d/10-device.conf")
        _take(drop_in, done)
        with suppress(OSError):  # somebody's own stands in it
            drop_in.parent.rmdir()
        _take(place.at(f"{SYSTEM}/{name}"), done)
    _take_updates(place, done)
    if place.run is not None:
        place.run("systemctl", "daemon-reload")
    _take_program(place, program, done)
    _take_user(place, done)
    for path in (place.at(paths.SERVICE_CONFIG).parent, place.at(paths.SERVICE_HOME)):
        if path.is_dir() and purge:
            shutil.rmtree(path)
            done.did.append(f"deleted {path}")
        elif path.is_dir():
            done.kept.append(f"{path}: stays, with what is in it")
    return done


def _take_updates(place: Place, done: Done) -> None:
    """The units that lay newer versions."""
    place.at(f"{SYSTEM}/multi-user.target.wants/{unit.UPDATES[0]}").unlink(missing_ok=True)
    if place.run is not None and place.at(f"{SYSTEM}/{unit.UPDATES[0]}").exists():
        place.run("systemctl", "stop", unit.UPDATES[0])
    for name in unit.UPDATES:
        _take(place.at(f"{SYSTEM}/{name}"), done)


def _take(path: Path, done: Done) -> None:
    if path.is_file() and not unit.ours(path.read_text(errors="replace")):
        done.kept.append(f"{path}: somebody changed it, so it stays")
    elif path.is_file():
        path.unlink()
        done.did.append(f"deleted {path}")


def _take_program(place: Place, program: Program, done: Done) -> None:
    """Where deploy/install.sh laid it; of pipx and others it is theirs to remove."""
    if program.versions is None:
        done.kept.append(f"{program.prefix}: the program stays; it is removed as it was installed (pipx, pip, uv)")
        return
    command = place.at(COMMAND)
    if command.is_symlink() and command.readlink().is_relative_to(_as_seen(place, program.versions)):
        command.unlink()
    shutil.rmtree(program.versions)
    done.did.append(f"deleted {program.versions}")


def _take_user(place: Place, done: Done) -> None:
    """The user, where we made it. What was his becomes root's: his number may be given to somebody else."""
    made = place.at(laid.SYSUSERS)
    if not made.is_file():
        return
    made.unlink()
    if os.geteuid() == 0:
        with suppress(EdgeAgentError):
            was = places.ids(place)
            laid.hand_over(place.at(paths.SERVICE_HOME), was[0], (0, 0))
            for path in place.at(paths.SERVICE_CONFIG).parent.iterdir():
                os.chown(path, 0, 0, follow_symlinks=False)
    if place.run is not None:
        code, said = place.run("userdel", place.user)
        (done.kept if code else done.did).append(f"user {place.user}: {said}" if code else f"deleted user {place.user}")
