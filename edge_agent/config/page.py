"""``[page]``: the page and the API beside it, over HTTP."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec

from edge_agent.errors import ConfigError

LISTEN = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}\Z"
_LISTEN = "HOST:PORT, such as 127.0.0.1:8484"
_Text = Annotated[str, msgspec.Meta(min_length=1)]
LOCAL = ("127.0.0.1", "localhost", "::1")


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[page]``: without it nothing listens."""

    listen: Annotated[str, msgspec.Meta(pattern=LISTEN, description=_LISTEN, examples=["127.0.0.1:8484"])] = (
        "127.0.0.1:8484"
    )
    """address and port; any other than this machine's own needs a password"""
    password_file: _Text | None = None
    """path, or credential:NAME, of the admin's password, who may do everything"""
    operator_file: _Text | None = None
    """the operator's, who may mark, try, teach and label, and change no config and no model"""
    viewer_file: _Text | None = None
    """the viewer's, who may look"""
    cert: _Text | None = None
    """PEM of a certificate: the page is served over https then"""
    key: _Text | None = None
    """PEM of its private key"""
    names: list[Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.-]{1,253}\Z")]] = []
    """other names under which browsers reach it, as a proxy's; addresses and the host's own name are known"""
    edit: bool = True
    """false: the page changes no config, as where a fleet's server writes it"""

    @property
    def at(self) -> Listen:
        """`listen`, taken apart."""
        host, _, port = self.listen.rpartition(":")
        return Listen(host.strip("[]"), int(port))

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.at.host in LOCAL


class Listen(NamedTuple):
    """Where a server listens."""

    host: str
    port: int
    """0: any that is free"""


FILES = ("password_file", "operator_file", "viewer_file", "cert", "key")
"""keys that name files"""


def checked_page(page: Page | None, base: Path) -> Page | None:
    """What goes together in it, and its paths made absolute from `base`. ConfigError."""
    if page is None:
        return None
    _check(page)
    given = {key: str(getattr(page, key)) for key in FILES if getattr(page, key) is not None}
    paths = {key: path for key, path in given.items() if not re.match("credential:", path)}
    return msgspec.structs.replace(page, **{key: str(base / Path(path).expanduser()) for key, path in paths.items()})


def _check(page: Page) -> None:
    if page.at.port > 65_535:
        raise ConfigError(f"page.listen: there is no port {page.at.port}; give one from 1 to 65535")
    if page.password_file is None:
        if not page.is_local:
            reached = f"{page.at.host} can be reached by others, which needs page.password_file"
            raise ConfigError(f"page.listen: {reached}; without it write 127.0.0.1")
        if page.operator_file or page.viewer_file:
            raise ConfigError("page: operator_file and viewer_file need password_file beside them")
    if (page.cert is None) != (page.key is None):
        raise ConfigError("page: cert and key come together; give both or none")
