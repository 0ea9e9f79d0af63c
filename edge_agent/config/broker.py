"""The broker's address in a config."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


class BrokerAddress(NamedTuple):
    """Where a broker listens."""

    host: str
    port: int
    secure: bool
    """TLS"""
    path: str | None
    """of MQTT over WebSockets; None: plain MQTT"""


def shown_url(url: str | list[str] | None) -> str:
    """``mqtt.url`` as it is said to people."""
    return ", ".join(url or ()) if not isinstance(url, str) else url


def parse_brokers(url: str | list[str]) -> list[BrokerAddress]:
    """``mqtt.url``: one address, or those of a cluster's nodes."""
    found = [parse_broker(one) for one in ([url] if isinstance(url, str) else url)]
    if not found:
        raise ConfigError("mqtt.url: the list is empty; write an address, or take the line out")
    if len(set(found)) < len(found):
        raise ConfigError("mqtt.url: an address stands twice in the list; give each node its own")
    # a device whose TLS somebody keeps back must not go on in plain to the next
    if len({at.secure for at in found}) > 1:
        raise ConfigError("mqtt.url: addresses with TLS and without it stand in one list; give all mqtts:// or wss://")
    return found


def parse_broker(url: str) -> BrokerAddress:
    """``mqtt[s]://host[:port]`` or ``ws[s]://host[:port]/path``."""
    parts, port = _split(url)
    if "@" in url:
        raise ConfigError("mqtt.url: no user or password in the address; use mqtt.username and mqtt.password_file")
    if parts.scheme not in PORTS or not parts.hostname or port == 0 or _holds_more(parts):
        whole = "mqtt://host[:port], mqtts://host[:port], ws://host/path or wss://host/path"
        mend = "; write mqtts:// for TLS" if parts.scheme in ("ssl", "tls") else "; write mqtt:// before the host"
        raise ConfigError(f'mqtt.url: "{url}" is not {whole}{"" if parts.scheme in PORTS else mend}')
    secure = parts.scheme in ("mqtts", "wss")
    return BrokerAddress(parts.hostname, port or PORTS[parts.scheme], secure, _path(parts) if _is_web(parts) else None)


def _split(url: str) -> tuple[SplitResult, int | None]:
    """The parts of an address, and its port."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError as error:
        shown = "the address" if "@" in url else f'"{url}"'  # what stands before an @ may be a password
        raise ConfigError(f"mqtt.url: {shown}: {error}; write mqtt://host[:port]") from None


def _is_web(parts: SplitResult) -> bool:
    return parts.scheme in ("ws", "wss")


def _path(parts: SplitResult) -> str:
    return (parts.path or "/mqtt") + (parts.query and f"?{parts.query}")


def _holds_more(parts: SplitResult) -> bool:
    """Whether something stands in it that has no meaning there."""
    if parts.fragment or re.search(r"\s", parts.netloc + parts.path):
        return True
    return not _is_web(parts) and (parts.path not in ("", "/") or bool(parts.query))
