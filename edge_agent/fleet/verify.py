"""Which bundle a repository has, verified: asked of a child (child.py), and held against what was seen before."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path

import msgspec

from edge_agent import files
from edge_agent.errors import ConfigError, NotNowError, RefusedError
from edge_agent.events import KNOWN_TIME, UNREADABLE, rfc3339
from edge_agent.fleet.bundle import MOST_INDEX, Bundle, Wanted, read
from edge_agent.fleet.child import Answer, Asked
from edge_agent.fleet.served import Served
from edge_agent.programs import environment, python

log = logging.getLogger("edge_agent")

CHILD_S = 180.0
"""seconds that a look may take"""
MOST_ROOT = 1_000_000
"""bytes of the root that is trusted"""
BACK_S = 86_400.0
"""seconds that a clock may be before the latest time that was ever known"""
NOTE_S = 3600.0
"""seconds between two notes of the time"""
SOON_S = 3 * 86_400.0
"""seconds before it expires from which on that is said"""


def found(
    asked: Wanted, repository: str, root: Path, group: str, served: Served, ca: str | None = None
) -> tuple[Bundle, bytes]:
    """The bundle that is asked for, and its index.

    `repository`: an address with / at its end; `root`: the file of what is trusted; `ca`: as of child.py.
    Raises NotNowError where nothing can be said now (no clock, no network), RefusedError for what may not be trusted,
    ConfigError without a root.
    """
    check_clock(served)
    try:
        trusted = files.read_regular(root, MOST_ROOT)
    except OSError as error:
        mend = "edge-agent enroll --repository ADDRESS --root FILE"
        raise ConfigError(f"update.root: {root}: cannot be read ({error.strerror}); {mend}") from None
    targets = (
        [f"{asked}.json"] if asked.number else [f"{asked.key}/{name}.json" for name in dict.fromkeys([group, "all"])]
    )
    folder = files.folder(served.folder / "tuf", files.PRIVATE)
    answer = _answer(Asked(repository, str(folder), trusted, targets, ca))
    if answer.unreachable:
        raise NotNowError(f"{repository}: {answer.unreachable}; it is tried again")
    if answer.refused:
        raise RefusedError(f"{repository}: {answer.refused}")
    _check_versions(answer, repository, served)
    if answer.raw is None:
        offered = "" if asked.number else f' to the group "{group}"'
        raise RefusedError(f"{asked}: is not offered{offered} in {repository}")
    if answer.expires - time.time() < SOON_S:
        log.warning("%s: is signed until %s; its publisher has to renew it", repository, rfc3339(answer.expires))
    bundle = read(answer.raw, asked)
    _remember(answer, bundle, served)
    return bundle, answer.raw


def _remember(answer: Answer, bundle: Bundle, served: Served) -> None:
    """Note what was seen, on disk where that is new."""
    kept, now = served.kept, time.time()
    versions = {**kept.versions, **answer.versions}
    newest = max(kept.newest, now, min(bundle.at, now + BACK_S))
    if versions != kept.versions or newest - kept.newest > NOTE_S:
        kept.versions, kept.newest = versions, newest
        served.save()


def check_clock(served: Served) -> None:
    """NotNowError where the clock is not set, or was set back: whether a signature still counts is not known then."""
    now = time.time()
    if now < KNOWN_TIME:
        raise NotNowError("the clock of this device is not set; what serves goes on, nothing new is taken before it is")
    if now < served.kept.newest - BACK_S:
        said = f"the clock says {rfc3339(now)}, but it was {rfc3339(served.kept.newest)} already"
        raise NotNowError(f"{said}; what serves goes on, nothing new is taken before it is right")


def _check_versions(answer: Answer, repository: str, served: Served) -> None:
    """RefusedError for metadata older than was seen before."""
    for role, version in answer.versions.items():
        if version < served.kept.versions.get(role, 0):
            seen = served.kept.versions[role]
            what = f"{role} is version {version}, and {seen} was seen here"
            raise RefusedError(f"{repository}: {what}: somebody put back an older repository; publish anew")


def _answer(asked: Asked) -> Answer:
    """What the child says. RefusedError where it ends otherwise."""
    command = [*python("edge_agent.fleet.child")]
    told = {**environment(), "MALLOC_ARENA_MAX": "2"}
    try:
        done = subprocess.run(
            command, input=msgspec.json.encode(asked), capture_output=True, env=told, cwd="/", timeout=CHILD_S
        )
    except subprocess.TimeoutExpired:
        raise NotNowError(f"{asked.repository}: did not answer within {CHILD_S:.0f} s; it is tried again") from None
    except OSError as error:
        raise NotNowError(f"{asked.repository}: could not be looked at ({os.strerror(error.errno or 0)})") from None
    try:
        if done.returncode == 0 and len(done.stdout) < 2 * MOST_INDEX:
            return msgspec.json.decode(done.stdout, type=Answer)
    except UNREADABLE:
        pass
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:200]
    if "No module named" in last:
        raise ConfigError(
            f"update.repository: needs the package tuf: pip install 'edge-agent-runtime[update]' ({last})"
        )
    raise RefusedError(f"{asked.repository}: looking at it failed: {last}")
