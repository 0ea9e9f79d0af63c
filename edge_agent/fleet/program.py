"""The program's own bundles: the agent, which is no root, verifies one and hands it over; as_root.py lays it.

::

    HOME/fleet/handed.json      what is handed over: Request
    HOME/fleet/handed.ready     there until root has answered; systemd/edge-agent-update.path looks for it
    OWN/outcome.json            root's answer: Done

The wheels stay in HOME/blobs and the metadata in HOME/fleet/tuf, from where root copies them. The new version, or the
one that root went back to, reads the answer once it runs, and says how it ended.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from edge_agent import __version__, files, paths
from edge_agent.errors import EdgeAgentError, NotNowError, RefusedError
from edge_agent.events import UNREADABLE
from edge_agent.fleet.bundle import Bundle
from edge_agent.fleet.served import Laid
from edge_agent.fleet.steps import Figures

HANDED, READY = "fleet/handed.json", "fleet/handed.ready"
"""below HOME"""
OWN = Path("/var/lib/edge-agent-update")
"""root's own: what it copied and verified, and its answer, which everybody may read"""
UNIT = Path("/etc/systemd/system/edge-agent-update.path")
MOST = 10_000
"""bytes of what is handed over, and of the answer"""
LAY_S = 2 * 3600.0
"""seconds that root may take: a slow card unpacks 400 MB, and the new version is watched"""
LOOK_S = 0.5
BY_HAND = "by hand: sudo deploy/install.sh --wheels DIR"


class Request(msgspec.Struct, frozen=True):
    """What is handed over."""

    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
    """of this try; the answer has it"""
    target: Annotated[str, msgspec.Meta(max_length=200)]
    """agent/NAME/NUMBER"""


class Done(msgspec.Struct, frozen=True):
    """Root's answer."""

    token: str
    state: Literal["SUCCEEDED", "FAILED", "REJECTED"]
    reason: str = ""
    version: str = ""


Read = TypeVar("Read", Request, Done)


def check(bundle: Bundle, home: Path, named: str | None) -> None:
    """RefusedError where nothing on this device would lay it. `named`: what [update] agent says."""
    if bundle.name != named:
        mend = f'write agent = "{bundle.name}" under [update], then: sudo edge-agent install'
        raise RefusedError(f"{bundle.wanted}: the config names no such agent; {mend}")
    if home != paths.SERVICE_HOME or not UNIT.exists():
        mend = f"type: sudo edge-agent install, where deploy/install.sh laid the program; or {BY_HAND}"
        raise RefusedError(f"{bundle.wanted}: nothing on this device lays it ({UNIT.name} is missing); {mend}")


class ProgramWay:
    """As `Way`: it is switched to by handing it over, and watched until root has answered."""

    def __init__(self, home: Path, stops: Callable[[float], bool], own: Path = OWN) -> None:
        """`stops` waits for so many seconds at most, and says whether the agent stops; `own`: root's folder."""
        self._home, self._stops, self._own = home, stops, own

    def lay(self, bundle: Bundle) -> None:
        """Its wheels lie in the store."""

    def prove(self, bundle: Bundle) -> Figures:
        """It is tried by root: built beside what runs, started, watched."""
        return {}

    def canary(self, bundle: Bundle) -> Figures:
        """As `prove`."""
        return {}

    def switch(self, bundle: Bundle) -> None:
        """Hand it over."""
        request = Request(secrets.token_hex(8), str(bundle.wanted))
        files.write_private(self._home / HANDED, msgspec.json.encode(request), confirm=True)
        files.write_private(self._home / READY, b"", confirm=True)

    def serves(self, bundle: Bundle) -> bool:
        """Whether it was handed over, and runs where root has laid it."""
        request = _read(self._home / HANDED, Request)
        if request is None or request.target != str(bundle.wanted):
            return False
        done = self._answer(request)
        return done is None or done.state != "SUCCEEDED" or __version__ == bundle.version

    def window(self, bundle: Bundle) -> None:
        """Until root has answered. EdgeAgentError where it does not run, NotNowError where the agent stops meanwhile,
        as it does when the new version takes over.
        """
        request = _read(self._home / HANDED, Request)
        if request is None:
            raise EdgeAgentError("what was handed over is gone")
        since = (self._home / HANDED).stat().st_mtime
        while (done := self._answer(request)) is None:
            if not 0 <= time.time() - since < LAY_S:
                raise EdgeAgentError(f"root's unit has not answered; see: journalctl -u {UNIT.stem}; {BY_HAND}")
            if self._stops(LOOK_S):
                raise NotNowError("the agent stops; it goes on with the next start, of the new version or of this one")
        if done.state != "SUCCEEDED":
            raise EdgeAgentError(done.reason)

    def back(self, bundle: Bundle, before: Laid | None) -> None:
        """Root went back already; what it has not taken yet it shall not take."""
        (self._home / READY).unlink(missing_ok=True)

    def _answer(self, request: Request) -> Done | None:
        done = _read(self._own / "outcome.json", Done)
        return done if done is not None and done.token == request.token else None


def _read(path: Path, type_: type[Read]) -> Read | None:
    """What stands in a small file; None where there is none, or it cannot be read."""
    try:
        return msgspec.json.decode(files.read_regular(path, MOST), type=type_)
    except (OSError, *UNREADABLE):
        return None
