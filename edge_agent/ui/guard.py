"""What every request meets before anything else: whose it can be, and what browsers may do with the answer."""

from __future__ import annotations

import ipaddress
import socket

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_agent import config
from edge_agent.ui.calls import wrong

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
"""of each answer. No text can become HTML: browsers that know trusted types refuse it, whatever our scripts do"""


class Guard:
    """An ASGI app around another one."""

    def __init__(self, app: ASGIApp, page: config.Page) -> None:
        self._app = app
        host = socket.gethostname().lower()
        self._names = {"localhost", host, f"{host}.local", page.at.host.lower(), *map(str.lower, page.names)}
        self._has_password = page.password_file is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        headers = Headers(scope=scope)
        if why := self._refused(scope, headers):
            await wrong(*why)(scope, receive, send_guarded)
        else:
            await self._app(scope, receive, send_guarded)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        """Status and reason; None where nothing is wrong."""
        if not self._knows(headers.get("host", "")):
            return 421, "this host's name is not known here: write it into page.names"
        if not self._has_password and any(name in headers for name in ("forwarded", "x-forwarded-for", "via")):
            return 403, "behind a proxy the page needs page.password_file"
        if is_foreign(scope["method"], headers):
            return 403, "another site may not ask this"
        return None

    def _knows(self, host: str) -> bool:
        """Whether a Host header can be meant for us. A name that a stranger makes point at us is none of ours (DNS
        rebinding); of addresses there is nothing to make.
        """
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True


def is_foreign(method: str, headers: Headers) -> bool:
    """Whether a page of another site asks (Fetch Metadata, RFC 6454): it may lead here, and nothing else.

    What sends neither header is no browser, or sends no cookie of ours: a program.
    """
    if headers.get("authorization"):
        return False  # no page of another site can send that unasked
    site, mode = headers.get("sec-fetch-site", ""), headers.get("sec-fetch-mode", "")
    if site in ("cross-site", "same-site"):
        return not (method == "GET" and mode == "navigate")
    origin = headers.get("origin")
    theirs = origin is not None and origin.partition("://")[2] != headers.get("host", "")
    return theirs and method not in ("GET", "HEAD")
