"""Desired and reported: what a device is to be, what it is, and why the two differ.

Two retained, signed documents say what is wanted: one of the device's group and one of the device, which goes before.
Each has a serial that only grows, so that an old one that somebody sends again counts for nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.errors import RefusedError, UsageError
from edge_agent.events import UNREADABLE
from edge_agent.files import exchange, read_regular
from edge_agent.fleet.bundle import Wanted, wanted
from edge_agent.fleet.outcome import Outcome, Take

log = logging.getLogger("edge_agent")

NAME, MOST = "desired.json", 256_000
"""of the file, and bytes of a document"""
AGAIN_S = 300.0
"""seconds until a bundle that did not come is tried again"""


class Desired(msgspec.Struct, frozen=True):
    """What is wanted."""

    serial: Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]
    bundles: Annotated[list[str], msgspec.Meta(max_length=100)] = []
    """KIND/NAME or KIND/NAME/NUMBER"""
    profile: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """empty: whatever is active"""


class Difference(msgspec.Struct, frozen=True):
    """Something that is not as it is wanted."""

    what: str
    wanted: str
    now: Annotated[str, msgspec.Meta(description="empty: there is none")]
    why: str


class _Kept(msgspec.Struct):
    device: Desired = Desired(-1)
    group: Desired = Desired(-1)


class Follow:
    """Brings a device to what is wanted. `heard` is for any thread, `work` for one, and takes as long as an update."""

    def __init__(
        self, file: Path, take: Take, serves: Callable[[str], int], profile: Callable[[], str],
        turn: Callable[[str], object], clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """`serves`: KIND/NAME -> the number that serves, 0 for none; `turn` makes a profile the active one, and raises
        UsageError for one that is none.
        """
        self._file, self._take, self._serves, self._profile, self._turn = file, take, serves, profile, turn
        self._clock = clock
        self._kept = _read(file)
        self._why: dict[str, str] = {}
        """what differs -> why"""
        self._again: dict[str, float] = {}
        self.refused = 0

    @property
    def any(self) -> bool:
        """Whether anything was ever said."""
        return max(self._kept.device.serial, self._kept.group.serial) >= 0

    def heard(self, of_group: bool, signed: bytes) -> None:
        """A document that was verified. RefusedError for one that is older than one before, or cannot be read."""
        try:
            said = msgspec.json.decode(signed, type=Desired)
            for one in said.bundles:
                wanted(one)
        except UNREADABLE as error:
            raise RefusedError(f"the desired document cannot be read: {str(error)[:200]}") from None
        except UsageError as error:
            raise RefusedError(f"the desired document: {error}") from None
        before = self._kept.group if of_group else self._kept.device
        if said.serial < before.serial:
            raise RefusedError(f"the desired document has serial {said.serial}, and {before.serial} was here before")
        if said == before:
            return
        if said.serial == before.serial:
            raise RefusedError(f"another desired document of serial {said.serial} was here before")
        if of_group:
            self._kept.group = said
        else:
            self._kept.device = said
        self._again.clear()
        exchange(self._file, msgspec.json.encode(self._kept))

    def asks(self) -> tuple[dict[str, Wanted], str]:
        """KIND/NAME -> the bundle that is wanted, and the profile."""
        found: dict[str, Wanted] = {}
        for said in (self._kept.group, self._kept.device):
            found |= {one.key: one for one in map(wanted, said.bundles)}
        return found, self._kept.device.profile or self._kept.group.profile

    def differences(self) -> list[Difference]:
        """What is not as it is wanted, and why."""
        bundles, profile = self.asks()
        told = [self._bundle(key, one) for key, one in bundles.items()]
        if profile and profile != self._profile():
            told.append(Difference("profile", profile, self._profile(), self._why.get("profile", "not turned to yet")))
        return [one for one in told if one is not None]

    def _bundle(self, key: str, one: Wanted) -> Difference | None:
        number = self._serves(key)
        if number and one.number in (0, number):
            return None
        why = self._why.get(str(one), "not tried yet")
        return Difference(key, str(one.number or "the newest"), str(number or ""), why)

    def work(self, busy: bool = False) -> None:
        """Bring it nearer to what is wanted. `busy`: a job is at it, so no bundle is taken now."""
        bundles, profile = self.asks()
        if profile and profile != self._profile():
            try:
                self._turn(profile)
                self._why.pop("profile", None)
            except UsageError as error:
                self._why["profile"] = str(error)
        for key, one in bundles.items():
            if not busy and self._bundle(key, one) is not None and self._clock() >= self._again.get(str(one), 0.0):
                self._bring(str(one))

    def _bring(self, target: str) -> None:
        def told(outcome: Outcome) -> None:
            self._why[target] = f"{outcome.step}: {outcome.reason}".rstrip(": ")

        outcome = self._take(target, told)
        self._again[target] = self._clock() + AGAIN_S
        if outcome.state == "SUCCEEDED":
            self._why.pop(target, None)
        else:
            self._why[target] = f"{outcome.state.lower().replace('_', ' ')}: {outcome.reason or outcome.step}"


def reported(
    follow: Follow,
    device: str,
    group: str,
    serves: Mapping[str, str],
    models: Mapping[str, str],
    more: Mapping[str, object],
) -> dict[str, object]:
    """The reported document. `serves`: KIND/NAME -> number and version; `models`: name -> version that answers now."""
    bundles, profile = follow.asks()
    return {
        "v": 1,
        "device": device,
        "group": group,
        "bundles": dict(serves),
        "models": dict(models),
        "wanted": {"bundles": {key: str(one) for key, one in bundles.items()}, "profile": profile},
        "differs": [msgspec.to_builtins(one) for one in follow.differences()],
        **more,
    }


def _read(file: Path) -> _Kept:
    try:
        return msgspec.json.decode(read_regular(file, 2 * MOST), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except (OSError, *UNREADABLE) as error:
        log.warning("%s: %s; what is wanted is heard anew", file, error)
        return _Kept()
