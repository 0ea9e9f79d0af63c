"""A newer version of the program, laid by root: what the agent hands over is copied, verified anew, laid, and watched.

systemd/edge-agent-update.path starts it once something is handed over (program.py); it has no network. Whoever has got
into the agent may have written what lies in its home, and may change it at any time: nothing there counts but
signatures, no link in it is followed, and all is copied before it is looked at. Who may sign is said by files that root
alone may write: the service's config and its root.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edge_agent import config, files, paths
from edge_agent.config.times import seconds
from edge_agent.device import place as places
from edge_agent.device.unit import UNIT
from edge_agent.errors import ConfigError, EdgeAgentError, NotNowError, RefusedError, UsageError
from edge_agent.events import UNREADABLE
from edge_agent.fleet import policy, verify
from edge_agent.fleet.below import Below
from edge_agent.fleet.bundle import MOST_INDEX, Bundle, wanted
from edge_agent.fleet.program import HANDED, MOST, OWN, READY, Done, Request
from edge_agent.fleet.served import Known, Laid, Served
from edge_agent.fleet.steps import line

MOST_ROLE, MOST_ROLES = 5_000_000, 200
"""bytes of a role's metadata; files of it"""
MOST_TRIES = 3
"""times that the same is begun: what ends the device each time is given up"""
ROLE = re.compile(r"([a-z0-9-]{1,64})\.json")
WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,200}\.whl")
LOOK_S = 5.0
"""seconds between two looks whether it still runs"""

Lay = Callable[[Path, str, float], None]
"""(folder of wheels, version, seconds that it is watched); raises EdgeAgentError where the version before runs again"""


def main() -> None:
    """Of the unit: one line of how it ended."""
    os.umask(0o022)
    print(answered(paths.SERVICE_HOME, OWN, paths.SERVICE_CONFIG, laid))


def answered(home: Path, own: Path, given: Path, lay: Lay) -> str:
    """Lay what is handed over in the service's home, where it may be, and answer; how it ended, one line.

    `own`: root's folder; `given`: the service's config. OSError where nothing can be read or written.
    """
    below = Below(home)
    try:
        request = msgspec.json.decode(below.read(HANDED, MOST), type=Request)
    except (OSError, *UNREADABLE) as error:
        return _plain(f"what is handed over cannot be read: {error}")
    else:
        done = _done(below, request, own, given, lay)
        files.write(own / "outcome.json", msgspec.json.encode(done).decode())
        return _plain(f"{request.target}: {done.state}: {done.reason or done.version}")
    finally:
        below.remove(READY)
        below.close()


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode().replace("\n", " ")


def _done(below: Below, request: Request, own: Path, given: Path, lay: Lay) -> Done:
    """What came of it, whatever goes wrong."""
    tries = own / "tries"
    before = [one for one in (tries.read_text().split() if tries.is_file() else []) if one == request.token]
    try:
        if len(before) >= MOST_TRIES:
            raise EdgeAgentError(f"the device ended {MOST_TRIES} times while it was laid")
        files.write(tries, " ".join([*before, request.token]))
        return Done(request.token, "SUCCEEDED", version=_laid(below, request, own, given, lay))
    except (RefusedError, NotNowError, UsageError) as error:
        return Done(request.token, "REJECTED", str(error))
    except (EdgeAgentError, OSError) as error:
        return Done(request.token, "FAILED", line(error))


def _laid(below: Below, request: Request, own: Path, given: Path, lay: Lay) -> str:
    """The version that runs now. Raises an EdgeAgentError, OSError."""
    update, rules = _trusted(given)
    asked = wanted(request.target)
    if asked.key != f"agent/{update.agent}" or not asked.number:
        raise RefusedError(f"{asked}: is not what [update] agent of {given} names")
    served, repo = Served(own / "fleet"), own / "repository"
    known = served.kept.bundles.setdefault(asked.key, Known())
    if asked.number < known.highest:
        raise RefusedError(f"{asked}: is older than number {known.highest}, which was laid here")
    shutil.rmtree(repo, ignore_errors=True)
    _copy_roles(below, repo / "metadata")
    raw = below.read(f"fleet/index/{asked.key.replace('/', '.')}.{asked.number}.json", MOST_INDEX)
    sha256 = hashlib.sha256(raw).hexdigest()
    files.folder(repo / "targets" / asked.key)
    (repo / "targets" / asked.key / f"{sha256}.{asked.number}.json").write_bytes(raw)
    bundle, _ = verify.found(asked, f"file://{repo}/", Path(update.root), update.group, served)
    policy.check_terms(config.Policy(refuse=rules.refuse), str(asked), "", [part.sha256 for part in bundle.files])
    policy.check_age(rules, str(asked), bundle.at)
    wheels = _copy_wheels(below, bundle, own / "wheels")
    try:
        lay(wheels, bundle.version, seconds(update.health))
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
    known.highest = bundle.number
    known.serves = Laid(bundle.number, bundle.version, sha256, time.time())
    served.save()
    return bundle.version


def _trusted(given: Path) -> tuple[config.Update, config.Policy]:
    """What root says may be laid. ConfigError where it says nothing, or others may write it."""
    part = config.part(given, "update", "policy")
    update = part.update
    if update is None or update.agent is None:
        raise ConfigError(f'{given}: [update] names no agent = "NAME", so no version of the program is taken')
    for path in (given, Path(update.root)):
        for each in (path.resolve(), *path.resolve().parents):
            if each.stat().st_uid not in (0, os.geteuid()) or files.others_may(each)[1]:
                raise ConfigError(f"{each}: others than root may write it, and it says what root lays here")
    return update, part.policy


# ── what is handed over ──────────────────────────────────────────────────────────────────────────────────


class _Signed(msgspec.Struct):
    version: int


class _Role(msgspec.Struct):
    """Of a role's metadata: what it is called by in a repository. Verified later."""

    signed: _Signed


def _copy_roles(below: Below, to: Path) -> None:
    """The metadata that TUF's client keeps, as a repository has it. RefusedError, OSError."""
    files.folder(to)
    roots = [(f"root_history/{name}", "root") for name in below.names("fleet/tuf/root_history")]
    roles = [(name, ROLE.fullmatch(name)) for name in below.names("fleet/tuf")]
    every = roots + [(name, role[1]) for name, role in roles if role and role[1] not in ("root", "index")]
    if len(every) > MOST_ROLES:
        raise RefusedError(f"{len(every)} files of metadata were handed over; {MOST_ROLES} at most are read")
    for name, role in every:
        raw = below.read(f"fleet/tuf/{name}", MOST_ROLE)
        try:
            version = msgspec.json.decode(raw, type=_Role).signed.version
        except UNREADABLE as error:
            raise RefusedError(f"{name}: is no metadata: {error}") from None
        (to / ("timestamp.json" if role == "timestamp" else f"{version}.{role}.json")).write_bytes(raw)


def _copy_wheels(below: Below, bundle: Bundle, to: Path) -> Path:
    """The files of a bundle that was verified. RefusedError for one that is none, or no wheel."""
    shutil.rmtree(to, ignore_errors=True)
    files.folder(to, files.PRIVATE)
    for part in bundle.files:
        if not WHEEL.fullmatch(part.path):
            raise RefusedError(f"{bundle.wanted}: holds {part.path!a}, which is no wheel")
        hasher, left = hashlib.sha256(), part.bytes + 1
        place = f"blobs/sha256/{part.sha256[:2]}/{part.sha256[2:]}"
        with below.open(place) as there, (to / part.path).open("wb") as copy:
            while left and (piece := there.read(min(1 << 20, left))):
                hasher.update(piece)
                copy.write(piece)
                left -= len(piece)
        if left != 1 or hasher.hexdigest() != part.sha256:
            raise RefusedError(f"{bundle.wanted}: {part.path} is not the file that was signed")
    return to


# ── laid ─────────────────────────────────────────────────────────────────────────────────────────────────


def laid(wheels: Path, version: str, watched: float) -> None:
    """As `Lay`: by deploy/install.sh, which builds it beside what runs and goes back where it does not come up."""
    versions = places.program(Path("/")).versions
    if versions is None:
        raise RefusedError(
            "the program was not laid by deploy/install.sh: it is updated as it was installed (pipx, pip)"
        )
    before = (versions / "current").resolve()
    runtime = before / ".runtime"
    own = runtime.read_text().strip() if runtime.is_file() else ""
    given = ["--wheels", str(wheels), "--version", version, "--prefix", str(versions)]
    given += ["--python", str(Path(sys.executable).resolve())]
    given += ["--runtime", str(wheels / own) if own.endswith(".whl") else own] if own else []
    user = ["--", "--user", _owner()]
    _run("sh", str(paths.carried("deploy", "install.sh")), *given, *user)
    if why := _ended(watched):
        _run(str(before / "bin" / "python"), "-I", "-m", "edge_agent", "install", *user[1:])
        raise EdgeAgentError(f"version {version} ended within {watched:.0f} s: {why}; {before.name} runs again")


def _owner() -> str:
    import pwd

    return pwd.getpwuid(paths.SERVICE_HOME.stat().st_uid).pw_name


def _run(*command: str) -> None:
    """EdgeAgentError, with what it said last, where it ends with an error."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise EdgeAgentError(said[-1][:500])


def _ended(watched: float) -> str:
    """Why the service does not run on for so many seconds; "" where it does."""
    until = time.monotonic() + watched
    while True:
        said = places.run("systemctl", "show", "-p", "ActiveState,NRestarts", UNIT)[1].split()
        if "NRestarts=0" not in said or {"ActiveState=failed", "ActiveState=inactive"} & set(said):
            return " ".join(said)
        if time.monotonic() >= until:
            return ""
        time.sleep(min(LOOK_S, watched))


if __name__ == "__main__":
    main()
