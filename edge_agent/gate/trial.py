"""What is asked of the child process, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from edge_agent.manifest import File, Manifest

GAIN = 0.95
"""of what a file takes is what another one may take to be clearly faster"""


class Limits(msgspec.Struct, frozen=True):
    """What a trial may use."""

    seconds: float = 60.0
    """on the clock, and more where other work has the processors; processor time may be as much on every core"""
    memory: int = 4 << 30
    """bytes of address space, beside eight times the files' size"""


LIMITS = Limits()


class Variant(msgspec.Struct, frozen=True):
    """One network file of a model."""

    file: File
    path: str


class Trial(msgspec.Struct, frozen=True):
    """What the child is asked."""

    what: Literal["load", "prove", "read", "agree", "heads", "race", "derive"]
    variants: list[Variant]
    threads: int
    limits: Limits
    manifest: Manifest | None = None
    parts: dict[str, str] = {}
    """role -> file, for vocabulary and tokenizer"""
    parent: Manifest | None = None
    """of the second variant, which the first is held against; None: the two are files of one model"""
    parent_parts: dict[str, str] = {}
    seconds: float = 3.0
    """of a race"""
    bare: bool = False
    """race: time a default session of the original as well"""
    skip: list[str] = []
    """race: keys of the variants that do not take part, as they were refused"""
    out: str = ""
    """derive: where the faster form is to be written"""
    told: dict[str, str] = {}
    """read: what the user says of the input: scale, mean, std, channels"""

    def places(self) -> tuple[Path, Path]:
        """derive: `out`, and where the same form goes whose products of int8 may saturate."""
        return Path(self.out), Path(f"{self.out}.saturating")


class Result(msgspec.Struct, frozen=True):
    """What the child found."""

    passed: bool
    reason: str = ""
    """why it is refused, one line"""
    notes: list[str] = []
    """what was seen, one line each"""
    figures: dict[str, Any] = {}


class Verdict(msgspec.Struct, frozen=True):
    """A Result as it is remembered."""

    model: str
    files: list[str]
    sha256: list[str]
    """of each file; behind it the size, where a row has its own (File.key)"""
    runtimes: dict[str, str]
    cpu: str
    at: str
    """RFC 3339 UTC"""
    seconds: float
    result: Result
