"""What a service needs before it starts: its user, its folders with their modes, a config."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent import config, files, paths
from edge_agent.device import place as places
from edge_agent.device import unit
from edge_agent.device.place import Place
from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.uri import parse_task, parse_uri

SYSUSERS = "/etc/sysusers.d/edge-agent.conf"
BEGIN = {"agent.toml": ("systemd", "agent.toml"), "intents.toml": ("deploy", "demo", "intents.toml")}
"""files of a config to begin with -> where they are carried"""


@dataclass(slots=True)
class Done:
    """What came of an installation."""

    did: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """what stays as somebody else left it, a line each"""
    state: str = "laid"
    """laid: it starts with the system; running; removed"""


# ── config ───────────────────────────────────────────────────────────────────────────────────────────────


def check_fits(place: Place, given: Path) -> None:
    """UsageError where the service has another config already, or would not see what this one names."""
    target = place.at(paths.SERVICE_CONFIG)
    if _differs(target, given):
        raise UsageError(f"{target} is there and differs from {given}: edit it, or move it away and install again")
    loaded, base = config.load(given), given.resolve().parent
    for pipe in loaded.pipeline:
        uri = parse_uri(pipe.source)
        if uri.scheme in ("files", "lines") and (uri.rest == "-" or _unseen(Path(uri.rest))):
            mend = f"give a path below {paths.SERVICE_HOME} or /srv"
            raise UsageError(f"{given}: pipeline {pipe.name}: source: {uri.rest} is not seen by the service; {mend}")
    for path in named(loaded):
        if not path.is_relative_to(base) and _unseen(path):
            raise UsageError(f"{given}: {path} is not seen by the service; put it beside the config, or below /etc")


def _differs(there: Path, path: Path) -> bool:
    return there.is_file() and there.read_bytes() != path.read_bytes()


def _unseen(path: Path) -> bool:
    return places.below(path, (*places.HIDDEN, *places.GONE))


def named(loaded: config.Config) -> Iterator[Path]:
    """The files that a config names for the broker, for receivers and for its tasks."""
    for where in _secrets(loaded):
        if not where.startswith("credential:"):
            yield Path(where)
    for task in (task for pipe in loaded.pipeline for task in pipe.tasks):
        uri = parse_task(task)
        yield from (Path(part) for part in (uri.options.get("labels", ""), uri.rest) if part.startswith("/"))


def _secrets(loaded: config.Config) -> list[str]:
    mqtt = loaded.mqtt
    named = [mqtt.password_file, mqtt.ca, mqtt.cert, mqtt.key, mqtt.signers]
    named += [where for one in loaded.notify for where in (one.url_file, one.ca)]
    named += [loaded.opinion.key_file, loaded.opinion.ca] if loaded.opinion else []
    return [where for where in named if where]


def lay_config(place: Place, given: Path | None, group: int, done: Done) -> None:
    """A config, if none is there: the given one with what it names beside it, or one to begin with."""
    target = place.at(paths.SERVICE_CONFIG)
    if target.exists():
        done.kept.append(f"{target}: is there, and stays as it is")
        for path in target.parent.iterdir():
            if path.is_file() and path.lstat().st_gid == 0:  # as `uninstall` leaves it, and as root writes it
                _own(path, (path.lstat().st_uid, group))
    elif given is not None:
        _copy_config(given, target, group)
        done.did.append(f"copied {given} to {target}, with what it names beside it")
    else:
        for name, carried in BEGIN.items():
            if not (target.parent / name).exists():
                _copy(paths.carried(*carried), target.parent / name, group)
        done.did.append(f"wrote {target}, to begin with")


def _copy_config(given: Path, to: Path, group: int) -> None:
    """A config, after what it names beside it."""
    base = given.resolve().parent
    for path in {path.resolve() for path in named(config.load(given))}:
        if path.is_relative_to(base) and path.exists():
            _copy(path, to.parent / path.relative_to(base), group)
    _copy(given, to, group)


def _copy(path: Path, to: Path, group: int) -> None:
    """A file, or those of a folder, for root to write and for the service to read."""
    if path.is_dir():
        for each in sorted(path.iterdir()):
            _copy(each, to / each.name, group)
        return
    if _differs(to, path):
        raise UsageError(f"{to} is there and differs from {path}; move it away and install again")
    _folder(to.parent, 0o750, (0, group))
    files.write_private(to, path.read_bytes())
    to.chmod(0o640)
    _own(to, (0, group))


def asked(place: Place) -> unit.Asked:
    """What the service's config asks of the service manager. ConfigError, also for a credential that is not there."""
    target = place.at(paths.SERVICE_CONFIG)
    loaded = config.load(target)
    names = {where.removeprefix("credential:") for where in _secrets(loaded) if where.startswith("credential:")}
    for name in names:
        secret = place.at(f"{unit.CREDENTIALS}/{name}")
        if not secret.is_file():
            raise UsageError(f"{target}: credential:{name}: write it into {secret}, for root alone (mode 0600)")
    agent = loaded.update is not None and loaded.update.agent is not None
    return unit.Asked(loaded.limits.memory_mb, loaded.limits.cpu_percent, sorted(names), agent)


# ── user and folders ─────────────────────────────────────────────────────────────────────────────────────


def make_user(place: Place, done: Done) -> tuple[int, int]:
    """The numbers of the user and its group; the user is made where there is none."""
    with suppress(EdgeAgentError):
        return places.ids(place)
    files.write(place.at(SYSUSERS), unit.sysusers(place.user, str(paths.SERVICE_HOME)))
    image = [] if place.root == Path("/") else [f"--root={place.root}"]
    code, said = places.run("systemd-sysusers", *image)
    if code:
        raise EdgeAgentError(f"the user {place.user} could not be made: systemd-sysusers: {said or code}")
    done.did.append(f"made the user {place.user}")
    return places.ids(place)


def make_folders(place: Place, owner: tuple[int, int], done: Done) -> None:
    """Those of the config, the credentials and the service's home, which may have been another user's."""
    _folder(place.at(paths.SERVICE_CONFIG).parent, 0o750, (0, owner[1]))
    _folder(place.at(unit.CREDENTIALS), 0o700, (0, 0))
    home = place.at(paths.SERVICE_HOME)
    _out_of_private(place, home, done)
    was = home.stat().st_uid if home.is_dir() else owner[0]
    _folder(home, files.PRIVATE, owner)
    if was != owner[0] and os.geteuid() == 0:
        hand_over(home, was, owner)
        done.did.append(f"gave {home} to {place.user}")


def _out_of_private(place: Place, home: Path, done: Done) -> None:
    """A home that systemd kept for a user without a name (DynamicUser) becomes a plain folder."""
    private = place.at("/var/lib/private") / home.name
    if home.is_symlink() and private.is_dir():
        if place.run is not None:
            place.run("systemctl", "stop", unit.UNIT)
        home.unlink()
        private.rename(home)
        done.did.append(f"moved {private} to {home}")


def _folder(path: Path, mode: int, owner: tuple[int, int]) -> None:
    files.folder(path, mode)
    path.chmod(mode)
    _own(path, owner)


def _own(path: Path, owner: tuple[int, int]) -> None:
    """Only root can give files away. Without it, an image's files stay the builder's; the packing tool sets owners."""
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)


def hand_over(folder: Path, was: int, owner: tuple[int, int]) -> None:
    """Give what belonged to `was` to the owner. A file with two names may be one of the system: it stays."""
    os.chown(folder, *owner, follow_symlinks=False)
    for _, folders, names, at in os.fwalk(folder):
        for name in (*folders, *names):
            found = os.stat(name, dir_fd=at, follow_symlinks=False)
            if found.st_uid == was and (found.st_nlink == 1 or name in folders):
                os.chown(name, *owner, dir_fd=at, follow_symlinks=False)
