"""The signed metadata of a repository (The Update Framework 1.0): which keys count, what there is, and until when.

metadata/ holds N.root.json, N.targets.json, N.TEAM.json, N.snapshot.json and timestamp.json. What lacks signatures lies
in pending/ until `sign` has brought them with another folder of keys: no device sees it before.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError
from edge_agent.files import folder, sync
from edge_agent.fleet.keys import Keys

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey
    from tuf.api.metadata import Metadata

TOP = ("root", "targets", "snapshot", "timestamp")
DAYS = {"root": 730, "targets": 365, "snapshot": 30, "timestamp": 30}
"""days until a role has to be signed anew; a team's: as targets"""


class Roles:
    """Those of one repository, signed with the keys of one folder."""

    def __init__(self, place: Path, keys: Keys, days: int | None = None) -> None:
        """`days`: in place of those of snapshot and timestamp."""
        self.keys, self.days = keys, {**DAYS, **({"snapshot": days, "timestamp": days} if days else {})}
        self.place, self.pending = place / "metadata", place / "pending"

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────

    def load(self, role: str, pending: bool = True) -> Metadata[Any]:
        """The newest of a role, one that waits for signatures before the others. UsageError."""
        from tuf.api.exceptions import RepositoryError
        from tuf.api.metadata import Metadata

        path = self._newest(self.pending, role) if pending else None
        path = path or self._newest(self.place, role)
        if path is None:
            what = "no repository is there; make one: edge-agent repository init" if role == "root" else f"no {role}"
            raise UsageError(f"{self.place.parent}: {what}")
        try:
            return Metadata.from_file(str(path))
        except RepositoryError as error:
            raise UsageError(f"{path}: is no signed metadata ({error})") from None

    def _newest(self, place: Path, role: str) -> Path | None:
        if role == "timestamp":
            path = place / "timestamp.json"
            return path if path.exists() else None
        found = [path for path in place.glob(f"*.{role}.json") if path.name.partition(".")[0].isdigit()]
        return max(found, key=lambda path: int(path.name.partition(".")[0]), default=None)

    def teams(self) -> list[str]:
        """The roles that targets are delegated to."""
        delegations = self.load("targets").signed.delegations
        return list(delegations.roles) if delegations is not None and delegations.roles else []

    def missing(self, role: str, metadata: Metadata[Any]) -> int:
        """Signatures that it lacks."""
        if role == "root":
            before = self.load("root", pending=False).signed if metadata.signed.version > 1 else None
            result = metadata.signed.get_root_verification_result(before, metadata.signed_bytes, metadata.signatures)
            return int(max(result.first.missing, result.second.missing))
        owner = self.load("root" if role in TOP else "targets", pending=False)
        try:
            result = owner.signed.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
        except ValueError:  # the role that may sign it waits for signatures itself
            return 1
        return int(result.missing)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, names: dict[str, int]) -> None:
        """A new repository; `names`: role -> keys that it has, of which as many have to sign. UsageError."""
        from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

        root = Root(consistent_snapshot=True)
        for role in TOP:
            count = names.get(role, 1)
            for at in range(count):
                root.add_key(self.keys.make(role if at == 0 else f"{role}-{at + 1}"), role)
            root.roles[role].threshold = count
        first: dict[str, Any] = {"root": root, "targets": Targets(), "snapshot": Snapshot(), "timestamp": Timestamp()}
        for role, signed in first.items():
            self.save(role, unsaved(signed), settle=False)
        self.settle()

    def save(self, role: str, metadata: Metadata[Any], settle: bool = True) -> list[str]:
        """Write a role as its next version, signed with those of its keys that are here; then `settle`. Returns what is
        missing, a line each. UsageError where none of its keys is here.
        """
        signed = metadata.signed
        waiting = self._newest(self.pending, role)
        if waiting is None or int(waiting.name.partition(".")[0]) != signed.version:
            signed.version += 1
        signed.expires = _in_days(self.days.get(role, DAYS["targets"]))
        metadata.signatures.clear()
        if not self._sign(role, metadata):
            raise UsageError(f"{self.keys.place}: holds no key of {role}; give the folder that does by --keys")
        self._write(role, metadata)
        return self.settle() if settle else []

    def _sign(self, role: str, metadata: Metadata[Any]) -> bool:
        """Add the signatures of the keys that are here; whether there was one."""
        owners = [self.load("root", pending=False)] if (role in TOP and self._newest(self.place, "root")) else []
        if role == "root":
            owners.append(metadata)
        elif role not in TOP:
            owners.append(self.load("targets"))
        ids = {keyid for owner in owners for keyid in owner.signed.get_delegated_role(role).keyids}
        mine = {keyid: path for keyid, path in self.keys.here().items() if keyid in ids}
        for path in mine.values():
            metadata.sign(self.keys.signer(path), append=True)
        return bool(mine)

    def _write(self, role: str, metadata: Metadata[Any]) -> None:
        """Where devices see it, once it has all of its signatures; else where they do not."""
        name = "timestamp.json" if role == "timestamp" else f"{metadata.signed.version}.{role}.json"
        complete = self.missing(role, metadata) == 0 if role == "root" or self._newest(self.place, "root") else True
        for old in self.pending.glob(f"*.{role}.json"):
            old.unlink()
        put(self.place / name if complete else self.pending / name, metadata.to_bytes())

    def sign(self) -> list[str]:
        """Add the signatures of the keys that are here to all that waits for some; then `settle`. Returns what is still
        missing, a line each.
        """
        for role in self._waiting():
            metadata = self.load(role)
            if self._sign(role, metadata):
                self._write(role, metadata)
        return self.settle()

    def _waiting(self) -> list[str]:
        names = [path.name.split(".")[-2] for path in sorted(self.pending.glob("*.json"))]
        return sorted(names, key=lambda role: TOP.index(role) if role in TOP else 1)

    def settle(self) -> list[str]:
        """Let devices see what is complete, by a snapshot and a timestamp, where their keys are here. Returns what is
        missing, a line each.
        """
        from tuf.api.metadata import MetaFile

        lacks = list(self._lacks())
        snapshot = self.load("snapshot")
        known = {role: self._newest(self.place, role) for role in ("targets", *self._complete_teams())}
        snapshot.signed.meta = {
            f"{role}.json": MetaFile(int(path.name.partition(".")[0]))
            for role, path in known.items()
            if path is not None
        }
        try:
            self.save("snapshot", snapshot, settle=False)
            if not self.missing("snapshot", self.load("snapshot")):
                timestamp = self.load("timestamp")
                timestamp.signed.snapshot_meta = MetaFile(self.load("snapshot", pending=False).signed.version)
                self.save("timestamp", timestamp, settle=False)
        except UsageError as error:
            return [*lacks, f"devices do not see it yet: {error}; then: edge-agent repository renew"]
        return list(dict.fromkeys([*lacks, *self._lacks()]))

    def _complete_teams(self) -> list[str]:
        delegations = self.load("targets", pending=False).signed.delegations
        return list(delegations.roles) if delegations is not None and delegations.roles else []

    def _lacks(self) -> Iterator[str]:
        for role in self._waiting():
            count = self.missing(role, self.load(role))
            if count:
                more = f"{count} more signature{'s' * (count > 1)}"
                yield f"{role} lacks {more}: edge-agent repository sign, with the keys of those that have to agree"

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────

    def rotate(self, role: str, new: SSlibKey, old: str = "") -> list[str]:
        """Let `new` count for a role, in place of the key whose id begins with `old` ("" : of none). UsageError."""
        owner, of = self._owner(role)
        keyids = list(owner.signed.get_delegated_role(role).keyids)
        gone = [keyid for keyid in keyids if old and keyid.startswith(old)]
        if old and len(gone) != 1:
            raise UsageError(f'{role}: "{old}" is the beginning of {len(gone)} of its keys: {", ".join(keyids)}')
        owner.signed.add_key(new, role)
        for keyid in gone:
            owner.signed.revoke_key(keyid, role)
        return self._resigned(role, of, owner)

    def threshold(self, role: str, count: int) -> list[str]:
        """How many of its keys have to sign a role. UsageError where it has not so many."""
        owner, of = self._owner(role)
        row = owner.signed.get_delegated_role(role)
        if not 1 <= count <= len(row.keyids):
            raise UsageError(f"{role}: has {len(row.keyids)} keys, so from 1 to {len(row.keyids)} can have to sign")
        row.threshold = count
        return self._resigned(role, of, owner)

    def _owner(self, role: str) -> tuple[Metadata[Any], str]:
        if role not in (*TOP, *self.teams()):
            raise UsageError(f'"{role}" is no role; there are {", ".join((*TOP, *self.teams()))}')
        of = "root" if role in TOP else "targets"
        return self.load(of), of

    def _resigned(self, role: str, of: str, owner: Metadata[Any]) -> list[str]:
        """Write who counts for a role, then the role itself, signed by those."""
        lacks = self.save(of, owner, settle=False)
        if role in ("root", of) or self.missing_owner(of):
            return lacks + self.settle()
        if role in ("snapshot", "timestamp"):
            return self.settle()
        return self.save(role, self.load(role))

    def missing_owner(self, of: str) -> bool:
        """Whether what says who counts waits for signatures."""
        return self._newest(self.pending, of) is not None

    def delegate(self, team: str, paths: list[str], key: SSlibKey) -> list[str]:
        """Let a team publish what its paths (``model/shop-*/*``) match. UsageError."""
        from tuf.api.metadata import DelegatedRole, Delegations, Targets

        targets = self.load("targets")
        roles = targets.signed.delegations.roles if targets.signed.delegations is not None else {}
        if team in TOP or team in (roles or {}):
            raise UsageError(f'"{team}" is a role already; choose another name')
        if targets.signed.delegations is None:
            targets.signed.delegations = Delegations({}, {})
        full = [path if path.endswith(".json") else f"{path}.json" for path in paths]
        targets.signed.delegations.roles[team] = DelegatedRole(team, [], 1, False, full)
        targets.signed.add_key(key, team)
        lacks = self.save("targets", targets, settle=False)
        if key.keyid in self.keys.here():
            return lacks + self.save(team, unsaved(Targets()))
        return [
            *lacks,
            *self.settle(),
            f"{team} has published nothing yet: edge-agent publish … --team {team}, with its key",
        ]


def unsaved(signed: Any) -> Metadata[Any]:
    """Metadata of which `save` makes version 1."""
    from tuf.api.metadata import Metadata

    signed.version = 0
    return Metadata(signed)


def _in_days(days: int) -> datetime.datetime:
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    return now + datetime.timedelta(days=days)


def put(path: Path, data: bytes) -> None:
    """Write a file of the repository, for all to read, whole or not at all."""
    folder(path.parent)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.chmod(0o644)
    sync(part)
    part.replace(path)
    sync(path.parent)
