"""Which models may serve on this device: by licence, age, signature, and by files that are known to be bad.

That a file came signed is noted in HOME/signed.json once its bundle was verified, before it serves anywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from edge_agent import files
from edge_agent.config import Policy
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.events import UNREADABLE
from edge_agent.paths import carried, home
from edge_agent.registry import catalogue, store
from edge_agent.registry.files import Located

MOST = 4_000_000
"""bytes of the note"""
AGES_S = 3600.0
"""seconds between two looks at how old the models are that serve"""

log = logging.getLogger("edge_agent")


class Signed(msgspec.Struct, frozen=True):
    """From where a file came signed."""

    bundle: str
    """KIND/NAME/NUMBER"""
    at: float
    """when that was published, seconds since 1970"""


def note_signed(home: Path, sha256s: Iterable[str], bundle: str, at: float) -> None:
    """Note that these files came signed. Those that are no longer here are forgotten. OSError."""
    known = {sha256: one for sha256, one in signed(home).items() if store.blob(home, sha256).exists()}
    raw = msgspec.json.encode({**known, **dict.fromkeys(sha256s, Signed(bundle, at))})
    files.exchange(home / "signed.json", raw)


def signed(home: Path) -> Mapping[str, Signed]:
    """SHA-256 -> from where; nothing where that cannot be read."""
    try:
        return msgspec.json.decode(files.read_regular(home / "signed.json", MOST), type=dict[str, Signed])
    except (OSError, *UNREADABLE):
        return {}


def check(policy: Policy, located: Located, home: Path) -> None:
    """RefusedError, one line, for a model that may not serve."""
    if policy == Policy():
        return
    name, rows = located.manifest.name, located.manifest.file
    check_terms(policy, name, located.manifest.licence, [row.sha256 for row in rows])
    if carried("models") in located.folder.parents:
        return  # the program names each of its files by hash
    known = signed(home)
    came = [known.get(row.sha256) for row in rows]
    if policy.signed and None in came:
        unsigned = rows[came.index(None)].name
        raise RefusedError(f"{name}: {unsigned} did not come signed, and [policy] signed = true; publish it")
    check_age(policy, name, max((one.at for one in came if one is not None), default=_added(located.folder)))


def _added(folder: Path) -> float:
    """When a model was put there, seconds since 1970; of a bare file, its folder."""
    manifest = folder / "manifest.toml"
    return (manifest if manifest.is_file() else folder).stat().st_mtime


class Named(Protocol):
    """A pipeline, by the models that serve there."""

    uses: list[dict[str, str]]


class Ages:
    """Whether the models that serve are too old by now; looked at once an hour, and said."""

    def __init__(self, policy: Policy, lines: Sequence[Named]) -> None:
        """`lines`: the pipelines at work, also later."""
        self._policy, self._lines = policy, lines
        self._due_at, self._said = 0.0, "ok"

    def about(self) -> str:
        """Which are, one line; "ok" for none."""
        if time.monotonic() >= self._due_at:
            self._due_at = time.monotonic() + AGES_S
            names = sorted({name for line in self._lines for uses in line.uses for name in uses})
            old = "; ".join(filter(None, map(self._old, names)))
            if old and old != self._said:
                log.warning("%s: it serves until the agent starts anew", old)
            self._said = old or "ok"
        return self._said

    def _old(self, name: str) -> str:
        try:
            check(self._policy, catalogue.locate(name), home())
        except EdgeAgentError as error:
            return str(error)
        return ""


def check_terms(policy: Policy, name: str, licence: str, sha256s: Iterable[str]) -> None:
    """RefusedError for a licence that is not among those that may be, or a file that is known to be bad."""
    for sha256 in sha256s:
        if sha256 in policy.refuse:
            raise RefusedError(f"{name}: one of its files ({sha256[:12]}…) stands in [policy] refuse")
    if policy.licences is not None and licence.casefold() not in {one.casefold() for one in policy.licences}:
        may = ", ".join(policy.licences) or "none"
        raise RefusedError(f"{name}: is under {licence or 'no licence that is known'}; [policy] licences are {may}")


def check_age(policy: Policy, name: str, at: float) -> None:
    """RefusedError for what was published longer ago than may be."""
    if policy.most_age_s is not None and (old := time.time() - at) > policy.most_age_s:
        raise RefusedError(f"{name}: is {old / 86_400:.0f} days old; [policy] max_age is {policy.max_age}")
