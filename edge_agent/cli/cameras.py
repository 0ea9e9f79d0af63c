"""``edge-agent doctor --cameras``: what is on the network, and the addresses of its streams."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from edge_agent import files
from edge_agent.cli.say import note
from edge_agent.device import onvif
from edge_agent.errors import ConfigError
from edge_agent.redact import redact

MOST_LOGIN = 4096
"""bytes"""


def cameras(credentials: str | None, as_json: bool) -> int:
    """Print each camera that answers; 1 where none does. ConfigError for the file of the login."""
    login = _login(credentials) if credentials else None
    where = f"{onvif.GROUP[0]}:{onvif.GROUP[1]}"
    note(f"asking the networks of this device for cameras (ONVIF, UDP to {where}), {onvif.WAIT_S:g} s")
    try:
        found = list(onvif.every(login))
    except OSError as error:
        note(f"edge-agent doctor: nothing can be sent to {where}: {error.strerror or error}")
        return 1
    if as_json:
        print(json.dumps([_row(*one) for one in found]))
    else:
        print("".join(f"{line}\n" for one in found for line in _lines(*one)), end="")
    if not found:
        note("edge-agent doctor: no camera answered; is ONVIF switched on there, and UDP let in by the firewall here?")
    return 0 if found else 1


def _row(device: onvif.Device, streams: list[onvif.Stream], wrong: str) -> dict[str, object]:
    """One camera, for JSON."""
    return {
        **device._asdict(),
        "wrong": wrong,
        "streams": [{**one._asdict(), "uri": shown(one.uri)} for one in streams],
    }


def _lines(device: onvif.Device, streams: list[onvif.Stream], wrong: str) -> Iterator[str]:
    """One camera, for people."""
    yield f"{device.host}  {device.name or '(no name)'}{': ' if wrong else ''}{wrong}"
    for one in streams:
        yield f"  {shown(one.uri)}  {one.encoding} {one.width}x{one.height}  {one.profile}"


def shown(uri: str) -> str:
    """An address with its query, as it is of use only whole, but without what looks secret in it."""
    place, mark, query = uri.partition("?")
    return redact(place) + mark + redact(query)


def _login(path: str) -> onvif.Login:
    """``user:password``, one line of a file. ConfigError."""
    try:
        text = files.read_regular(Path(path), MOST_LOGIN).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--credentials {path}: {getattr(error, 'strerror', None) or error}; name a file of one line user:password"
        ) from None
    user, colon, password = text.partition(":")
    if not (user and colon) or "\n" in text:
        raise ConfigError(f"--credentials {path}: is not one line user:password")
    if Path(path).stat().st_mode & 0o044:
        note(f"--credentials {path} can be read by others; chmod 600 {path}")
    return onvif.Login(user, password)
