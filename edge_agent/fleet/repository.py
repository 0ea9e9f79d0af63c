"""A repository of bundles, as files that any server, bucket, folder or USB stick carries; nothing of ours runs there.

::

    metadata/                         what is signed (roles.py)
    targets/KIND/NAME/HASH.3.json     an index (bundle.py); as HASH.GROUP.json for each group that it is offered
    blobs/AB/REST                     files and their smaller forms, by SHA-256
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from edge_agent import files
from edge_agent.errors import UsageError
from edge_agent.fleet import forms
from edge_agent.fleet.bundle import GROUP, MOST_INDEX, Bundle, Form, Method, Part, Wanted, read
from edge_agent.fleet.keys import Keys
from edge_agent.fleet.pack import Packed
from edge_agent.fleet.roles import Roles, put, unsaved
from edge_agent.registry import store

LATER = 3
"""earlier numbers to which differences are made"""


class Published(NamedTuple):
    """What came of it."""

    bundle: Bundle
    lacks: list[str]
    """what has to be done before devices see it, a line each"""


class Offered(NamedTuple):
    """A bundle of the repository."""

    bundle: Bundle
    groups: list[str]
    team: str
    """who published it; targets: the owner of the repository"""


class Repository:
    """One that is written to with the keys of a folder."""

    def __init__(self, place: Path, keys: Keys, days: int | None = None) -> None:
        """`days`: until snapshot and timestamp have to be renewed."""
        self.place, self.roles = place, Roles(place, keys, days)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time writes. UsageError where another one does, or nobody may."""
        try:
            files.folder(self.place)
            handle = os.open(self.place / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"{self.place}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UsageError(f"{self.place}: another process publishes there; wait for it") from None
        except OSError as error:
            raise UsageError(f"{self.place}: cannot be written ({error.strerror})") from None
        finally:
            os.close(handle)

    def publish(
        self, packed: Packed, name: str, groups: Sequence[str], *, team: str = "", agreement: float | None = None
    ) -> Published:
        """Sign a bundle as the next number of its name, offered to these groups. UsageError."""
        role = team or "targets"
        metadata, key = self._targets(role), Wanted(packed.kind, name).key
        before = {bundle.number: bundle for bundle in self._bundles(metadata.signed, key)}
        number = max(before, default=0) + 1
        earlier = [before[at] for at in sorted(before)[-LATER:]]
        parts = [self._part(path, data, earlier) for path, data in sorted(packed.files.items())]
        bundle = Bundle(
            kind=packed.kind,
            name=name,
            number=number,
            version=packed.version or str(number),
            at=round(time.time(), 3),
            files=parts,
            origin=packed.origin,
            agreement=agreement,
        )
        raw = msgspec.json.encode(bundle)
        if len(raw) > MOST_INDEX:
            raise UsageError(f"{key}: names {len(parts)} files, which is more than an index holds")
        read(raw, bundle.wanted)  # as a device reads it
        self._target(metadata.signed, role, f"{bundle.wanted}.json", raw)
        for group in groups:
            self._point(metadata.signed, role, key, group, raw)
        return Published(bundle, self.roles.save(role, metadata))

    def offer(self, bundle: Wanted, groups: Sequence[str], team: str = "") -> list[str]:
        """Let groups have a bundle that is published. Returns what is missing, a line each. UsageError."""
        role = team or "targets"
        metadata = self._targets(role)
        raw = self._raw(metadata.signed, f"{bundle}.json")
        for group in groups:
            self._point(metadata.signed, role, bundle.key, group, raw)
        return self.roles.save(role, metadata)

    def withdraw(self, bundle: Wanted, team: str = "") -> list[str]:
        """Offer a bundle to nobody any more; devices on which it serves keep it. UsageError."""
        role = team or "targets"
        metadata = self._targets(role)
        raw = self._raw(metadata.signed, f"{bundle}.json")
        sha256 = hashlib.sha256(raw).hexdigest()
        targets = metadata.signed.targets
        for path in [path for path in targets if path.startswith(f"{bundle.key}/")]:
            if targets[path].hashes["sha256"] == sha256:
                del targets[path]
        return self.roles.save(role, metadata)

    def listing(self) -> list[Offered]:
        """All that is published, the newest of each name first."""
        found = []
        for role in ("targets", *self.roles.teams()):
            signed = self._targets(role).signed
            for key in sorted({path.rpartition("/")[0] for path in signed.targets}):
                for bundle in sorted(self._bundles(signed, key), key=lambda one: -one.number):
                    sha256 = signed.targets[f"{bundle.wanted}.json"].hashes["sha256"]
                    groups = [
                        path.rpartition("/")[2].removesuffix(".json")
                        for path, target in signed.targets.items()
                        if path.startswith(f"{key}/") and target.hashes["sha256"] == sha256
                    ]
                    found.append(Offered(bundle, [one for one in groups if not one.isdigit()], role))
        return found

    # ── targets ──────────────────────────────────────────────────────────────────────────────────────────

    def _targets(self, role: str) -> Any:
        from tuf.api.metadata import Targets

        if role != "targets" and role not in self.roles.teams():
            raise UsageError(f'--team "{role}": nothing is delegated to it; edge-agent repository delegate {role}')
        try:
            return self.roles.load(role)
        except UsageError:
            if role == "targets":
                raise
            return unsaved(Targets())  # a team's first

    def _bundles(self, signed: Any, key: str) -> list[Bundle]:
        """All numbers of KIND/NAME."""
        paths = [path for path in signed.targets if path.rpartition("/")[0] == key]
        numbers = [path for path in paths if path.rpartition("/")[2].removesuffix(".json").isdigit()]
        return [msgspec.json.decode(self._raw(signed, path), type=Bundle) for path in numbers]

    def _raw(self, signed: Any, path: str) -> bytes:
        if path not in signed.targets:
            raise UsageError(f"{path.removesuffix('.json')}: is not published; see edge-agent repository list")
        place = self._place(path, signed.targets[path].hashes["sha256"])
        try:
            raw = files.read_regular(place, MOST_INDEX)
        except OSError as error:
            raise UsageError(f"{place}: cannot be read ({error.strerror})") from None
        if hashlib.sha256(raw).hexdigest() != signed.targets[path].hashes["sha256"]:
            raise UsageError(f"{place}: is not the file that was signed")
        return raw

    def _place(self, path: str, sha256: str) -> Path:
        folder, _, name = path.rpartition("/")
        return self.place / "targets" / folder / f"{sha256}.{name}"

    def _point(self, signed: Any, role: str, key: str, group: str, raw: bytes) -> None:
        if not re.fullmatch(GROUP, group) or group.isdigit():
            raise UsageError(f'--group "{group}": is no name of a group; use small letters, digits, - and _')
        self._target(signed, role, f"{key}/{group}.json", raw)

    def _target(self, signed: Any, role: str, path: str, raw: bytes) -> None:
        from tuf.api.metadata import TargetFile

        if role != "targets":
            row = self.roles.load("targets").signed.delegations.roles[role]
            if not row.is_delegated_path(path):
                raise UsageError(f"{path.removesuffix('.json')}: {role} may publish {', '.join(row.paths)} only")
        target = TargetFile.from_data(path, raw, ["sha256"])
        signed.targets[path] = target
        put(self._place(path, target.hashes["sha256"]), raw)

    # ── files ────────────────────────────────────────────────────────────────────────────────────────────

    def _part(self, path: str, given: Path | bytes, earlier: Sequence[Bundle]) -> Part:
        """A file as a blob, with the smaller forms that pay."""
        try:
            data = given if isinstance(given, bytes) else files.read_regular(given, store.MOST_BYTES)
        except OSError as error:
            raise UsageError(f"{given!s}: cannot be read ({error.strerror})") from None
        sha256 = self._blob(data)
        before = [part for bundle in earlier for part in bundle.files if part.path == path]
        for part in before:
            if part.sha256 == sha256:
                return part
        made = () if path.endswith(".whl") else self._smaller(data, {part.sha256 for part in before})  # it is packed
        return Part(path, sha256, len(data), sorted(made, key=lambda form: form.bytes))

    def _smaller(self, data: bytes, bases: set[str]) -> Iterator[Form]:
        """The smaller forms that pay."""
        if not 1000 < len(data) <= forms.MOST:
            return
        made: list[tuple[Method, str, bytes]] = [("xz", "", forms.packed(data))]
        for base in sorted(bases):
            old = self._place_of(base)
            if old.is_file() and old.stat().st_size <= forms.MOST:
                made.append(("bsdiff", base, forms.difference(files.read_regular(old, forms.MOST), data)))
        for method, base, form in made:
            if len(form) <= forms.PAYS * len(data):
                yield Form(method, self._blob(form), len(form), base)

    def _blob(self, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        place = self._place_of(sha256)
        if not (place.is_file() and place.stat().st_size == len(data)):
            put(place, data)
        return sha256

    def _place_of(self, sha256: str) -> Path:
        return self.place / "blobs" / sha256[:2] / sha256[2:]
