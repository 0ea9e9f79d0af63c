"""Names of entities: identities that never change and are ASCII, and what stands for a label in a template."""

from __future__ import annotations

import json
import re
import unicodedata

LONGEST = 80
"""characters of a label in a name that people read"""


def ascii_of(label: str) -> str:
    """A label as a part of an identity: another one for each label, of letters, digits and ``_.-%``."""
    return re.sub(r"[^A-Za-z0-9_.\-]", lambda found: f"%{ord(found[0]):x}%", label)


def identity(*parts: str) -> str:
    """The identity of an entity within its device. The parts, none of which holds a colon, give it back."""
    return ":".join(parts)


def slug(*parts: str) -> str:
    """What an entity may be called at first, behind its domain: a-z, 0-9 and ``_``."""
    plain = unicodedata.normalize("NFKD", "_".join(part for part in parts if part)).casefold()
    return re.sub(r"[^a-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_") or "edge"


def shown(*parts: str) -> str:
    """A name for people."""
    return " ".join(part[:LONGEST] for part in parts if part)


def quoted(text: str) -> str:
    """A text as a literal of Jinja, whatever stands in it."""
    # of an escaped pair of surrogates Jinja makes two characters
    return json.dumps(text, ensure_ascii=False)
