"""Apprise, in a process of its own: it comes and goes with a message, and so does its memory.

The address is given on stdin, in no arguments; what goes back holds no word of a server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import resource
import sys
from typing import Any

MOST_MEMORY = 1 << 30
"""bytes of address space: what a server sends is read whole"""
LOGIN = (530, 534, 535)
"""codes of SMTP that are about who we are (RFC 4954)"""
_CODES = re.compile(r"error=(\d{3})\b|\((\d{3}), b'")
"""how Apprise logs what HTTP and SMTP servers answer"""


def main() -> None:
    """Send what stands on stdin (url, title, text, picture, or only look at the url where there is no text); print
    whether the url is one that Apprise knows, whether it was taken, and the server's code (see _Codes), 0 for none.
    """
    asked = json.loads(sys.stdin.readline())
    out, sys.stdout = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, ValueError):  # a service manager may not let us
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    import apprise

    told = _Codes()
    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [told], False
    logger.setLevel(logging.DEBUG)
    # without pictures on others' servers, to which a reader of the message would be led
    bare: dict[str, Any] = {"image_url_mask": "", "image_url_logo": "", "app_id": "edge-agent", "app_url": ""}
    asset = apprise.AppriseAsset(storage_mode="memory", http_redirects=False, plugin_paths=[], **bare)
    sender = apprise.Apprise(asset=asset)
    known = bool(sender.add(asked["url"]))
    taken = known and bool(asked.get("text")) and _send(sender, asked)
    print(json.dumps({"known": known, "taken": taken, "code": told.code, "status": told.status}), file=out, flush=True)


def _send(sender: object, asked: dict[str, str]) -> bool:
    import apprise

    assert isinstance(sender, apprise.Apprise)
    return bool(
        sender.notify(
            title=asked["title"],
            body=asked["text"],
            body_format=apprise.NotifyFormat.TEXT,
            attach=asked.get("picture") or None,
        )
    )


class _Codes(logging.Handler):
    """Remembers the last code of a server that is logged, and nothing else."""

    code = status = 0
    """as the server says it, and the one of HTTP that means as much"""

    def emit(self, record: logging.LogRecord) -> None:
        for of_http, of_smtp in _CODES.findall(record.getMessage()):
            self.code = self.status = int(of_http or of_smtp)
            if of_smtp:
                self.status = 401 if self.code in LOGIN else 400 if self.code >= 500 else 503
