"""``[opinion]``: a larger model, somewhere else, is asked about pictures of alerts."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from edge_agent.config.notify import Choice, Filled, Pipes, check_choice, check_known, check_text, with_paths
from edge_agent.errors import ConfigError, within
from edge_agent.events import EVENTS, Pictured

PROMPT = 'A camera says: "{words}". Is that so in this picture? Answer yes, no or unsure, and then in one sentence why.'
END = "/chat/completions"
Value = str | int | float | bool


class Opinion(Choice, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[opinion]``: the address of an interface as OpenAI's, and what goes there."""

    url: Annotated[str, msgspec.Meta(min_length=1, examples=["http://192.168.1.5:11434/v1"])]
    """of the interface, to which /chat/completions is added"""
    model: Filled
    """by the name that it has there"""
    key_file: Filled | None = None
    """path, or credential:NAME: of the key"""
    prompt: Filled = PROMPT
    """with names in braces, as in a message of [[notify]]"""
    options: dict[str, Value] = msgspec.field(default_factory=lambda: {"max_tokens": 200})
    """more fields of the request"""
    bytes_per_day: Annotated[int, msgspec.Meta(ge=100_000, le=10**12)] = 5_000_000
    """that may be sent and received a day (UTC)"""
    limit: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 30
    """questions an hour at most"""
    expire_hours: Annotated[float, msgspec.Meta(gt=0, le=1e4)] = 1.0
    """what could not be asked for so long is not asked any more"""
    ca: Filled | None = None
    """PEM of the authority that signed the server's certificate; the system's own otherwise"""

    @property
    def address(self) -> str:
        """Where questions go."""
        return self.url if self.url.endswith(END) else self.url.rstrip("/") + END


def checked_opinion(
    opinion: Opinion | None,
    pipes: Pipes,
    rules: Collection[str],
    snapshots: bool,
    path: Callable[[str, str], str],
) -> Opinion | None:
    """It with absolute paths; parameters as of `checked_notify`. ConfigError."""
    if opinion is None:
        return None
    with within("opinion"):
        _check_url(opinion.url)
        pictured = ["rule", *(kind for kind, event in EVENTS.items() if issubclass(event, Pictured))]
        check_known("kinds", opinion.kinds, pictured)
        check_choice(opinion, pipes, rules)
        check_text("prompt", opinion.prompt)
        if not snapshots:
            raise ConfigError("there is no picture to ask about; write snapshots = true under [samples]")
    return with_paths(opinion, ("key_file", "ca"), "opinion.", path)


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or not url.isprintable() or " " in url:
        raise ConfigError("url: is no address; write http://host:port/v1 or https://host/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError("url: holds a user, a key or options; write the key into a file, and its path as key_file")
