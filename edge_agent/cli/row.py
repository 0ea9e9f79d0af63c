"""One row of what the doctor says."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Row(NamedTuple):
    """One thing that was looked at."""

    what: str
    level: Literal["ok", "warn", "fix"]
    """fix: the agent does not work like this"""
    found: str
    mend: str = ""
    """the one command that mends it, where there is one"""


def ok(what: str, found: str) -> Row:
    """All is well."""
    return Row(what, "ok", found)


def warn(what: str, found: str, mend: str = "") -> Row:
    """It works, but not as well as it could."""
    return Row(what, "warn", found, mend)


def fix(what: str, found: str, mend: str = "") -> Row:
    """It does not work."""
    return Row(what, "fix", found, mend)
