"""What is published: a bundle is a small signed index that names its files by hash; the files lie beside it as blobs.

A bundle of kind model is a model's folder; config: agent.toml with what it names; files: label sets and other files;
agent: the wheels of the program. It is called KIND/NAME/NUMBER; numbers grow by one, and KIND/NAME alone is the newest
that the device's group is offered.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, get_args

import msgspec

from edge_agent.errors import RefusedError, UsageError
from edge_agent.events import UNREADABLE
from edge_agent.manifest import SHA256
from edge_agent.toml import Name

Kind = Literal["model", "config", "files", "agent"]
Method = Literal["xz", "bsdiff"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MOST_INDEX = 1_000_000
"""bytes of an index"""
MOST_FILES = 2000
MOST_BYTES = 1 << 31
"""of all files of a bundle"""
GROUP = r"^[a-z0-9][a-z0-9_-]{0,63}$"
"""of a group's name; a number alone is none"""
_TARGET = re.compile(rf"({'|'.join(KINDS)})/([A-Za-z0-9][A-Za-z0-9_.-]{{0,63}})(?:/([1-9][0-9]{{0,8}}))?")
Hash = Annotated[str, msgspec.Meta(pattern=SHA256)]
Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Said = Annotated[str, msgspec.Meta(max_length=2000)]


class Wanted(msgspec.Struct, frozen=True):
    """Which bundle."""

    kind: Kind
    name: str
    number: int = 0
    """0: the newest that the group is offered"""

    @property
    def key(self) -> str:
        """KIND/NAME."""
        return f"{self.kind}/{self.name}"

    def __str__(self) -> str:
        return f"{self.key}/{self.number}" if self.number else self.key


def wanted(target: str) -> Wanted:
    """KIND/NAME or KIND/NAME/NUMBER as people and jobs write it. UsageError."""
    found = _TARGET.fullmatch(target)
    if found is None or ".." in target:
        shown = ascii(target[:80])
        raise UsageError(f"{shown}: is no bundle; write model/NAME, config/NAME, files/NAME or agent/NAME[/NUMBER]")
    kind: Any = found[1]
    return Wanted(kind, found[2], int(found[3] or 0))


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A smaller form of a file; see forms.py."""

    method: Method
    sha256: Hash
    bytes: Bytes
    base: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    """of the file that a difference is to"""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    path: Annotated[str, msgspec.Meta(max_length=300)]
    """below the bundle's folder, with /"""
    sha256: Hash
    bytes: Bytes
    forms: Annotated[list[Form], msgspec.Meta(max_length=8)] = []
    """smaller ones, the smallest first"""


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where it comes from."""

    licence: Said = ""
    parent: Said = ""
    """name and version of what it was made from; empty for what was made from nothing else"""
    parent_sha256: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")] = ""
    data: Said = ""
    """what it was made with, in words or as a hash"""
    steps: Said = ""
    """what was done, one line"""


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An index: what the signed file says."""

    kind: Kind
    name: Name
    number: Annotated[int, msgspec.Meta(ge=1, lt=1_000_000_000)]
    version: Said
    """as its makers call it"""
    at: Annotated[float, msgspec.Meta(ge=0, le=1e11)]
    """when it was published, seconds since 1970"""
    files: Annotated[list[Part], msgspec.Meta(min_length=1, max_length=MOST_FILES)]
    origin: Origin = Origin()
    agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """of a model: how far its answers have to agree with those before it, as the publisher expects"""

    @property
    def wanted(self) -> Wanted:
        """This very bundle."""
        return Wanted(self.kind, self.name, self.number)

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(part.bytes for part in self.files)


def read(raw: bytes, asked: Wanted) -> Bundle:
    """An index that was verified. RefusedError, one line, for one that is none, or of something else than was asked
    for, or names files outside of its folder or more than a device takes.
    """
    try:
        bundle = msgspec.json.decode(raw, type=Bundle)
    except UNREADABLE as error:
        raise RefusedError(f"{asked}: its index cannot be read: {str(error)[:200]}") from None
    if bundle.wanted.key != asked.key or asked.number not in (0, bundle.number):
        raise RefusedError(f"{asked}: its index is that of {bundle.wanted}")
    seen: set[str] = set()
    for part in bundle.files:
        check_path(asked, part.path)
        if part.path.lower() in seen:
            raise RefusedError(f"{asked}: names {part.path!a} twice")
        seen.add(part.path.lower())
        if any(form.bytes > part.bytes for form in part.forms):
            raise RefusedError(f"{asked}: a smaller form of {part.path!a} is larger than it")
    if bundle.bytes > MOST_BYTES:
        raise RefusedError(
            f"{asked}: has {bundle.bytes / 1e9:.1f} GB; a device takes {MOST_BYTES / 1e9:.1f} GB at most"
        )
    return bundle


def check_path(asked: object, path: str) -> None:
    """RefusedError for a file that does not lie below the bundle's folder, or has a name of other characters."""
    parts = PurePosixPath(path).parts
    plain = re.fullmatch(r"[\w][\w .+@=-]*(/[\w][\w .+@=-]*)*", path)
    if not plain or path.endswith(" ") or any(part in ("..", ".") or part.endswith(".") for part in parts):
        raise RefusedError(
            f"{asked}: names the file {path[:80]!a}, which does not lie in its folder, or has no plain name"
        )
