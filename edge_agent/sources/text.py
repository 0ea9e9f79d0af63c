"""Bytes from outside become a line of text."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Callable

from edge_agent.errors import tenfold

LONGEST = 32 * 1024
"""bytes of a line that are kept"""

CONTROLS = {
    code: " " if code in (0x0B, 0x0C, 0x0D, 0x85) else None
    for code in (*range(0x20), *range(0x7F, 0xA0))
    if code != 0x09
}
"""C0 and C1 controls but the tab, for str.translate; those that begin a new line part words, so a space"""

ANSI = re.compile(
    r"(?:\x1b\[|#033\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours and the like; #033 is what rsyslog writes for escape
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # a window's title, a link
    r"|\x1b[PX^_][^\x1b]*\x1b\\"
    r"|\x1b[ -/]*[0-Z\\-~]"
)
"""what is meant for a terminal (ECMA-48)"""

log = logging.getLogger("edge_agent")


def cleaner(name: str) -> Callable[[bytes, int], str]:
    """-> clean(raw, lost): raw bytes (at most LONGEST are used; `lost` more were dropped before) as NFC text.

    Invalid UTF-8 becomes U+FFFD; a carriage return within the line, a vertical tab, form feed or next line becomes a
    space; colours and other orders to a terminal, other control characters but the tab, and a leading byte order mark
    are taken out; what is only white space comes back as "". The 1st, 10th, 100th, ... long or invalid line of `name`
    is logged.
    """
    seen: Counter[str] = Counter()

    def complain(what: str) -> None:
        seen[what] += 1
        if tenfold(seen[what]):
            log.warning("%s: %s (%d so far)", name, what, seen[what])

    def clean(raw: bytes, lost: int) -> str:
        if lost or len(raw) > LONGEST:
            complain(f"a line of more than {LONGEST} bytes was cut")
            raw = _whole_characters(raw[:LONGEST])
        raw = raw.removesuffix(b"\r")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            complain("a line is not UTF-8; U+FFFD stands for what could not be read")
            text = raw.decode(errors="replace")
        text = unicodedata.normalize("NFC", ANSI.sub("", text).translate(CONTROLS)).removeprefix("\ufeff")
        return "" if text.isspace() else text

    return clean


def _whole_characters(raw: bytes) -> bytes:
    """Without the first bytes of a UTF-8 character that was cut off at the end (RFC 3629, section 3)."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return raw if back >= length else raw[:-back]
    return raw
