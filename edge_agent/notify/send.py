"""A message on its way to one address: a POST of ours, or what Apprise does."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from edge_agent.config import Notify, secret
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.events import Event
from edge_agent.files import read_regular
from edge_agent.notify.message import Note
from edge_agent.notify.post import Answer, post
from edge_agent.programs import environment, python

CHILD_S = 60.0
"""seconds that Apprise has for one message"""
MOST_PICTURE = 200_000
"""bytes"""
AGAIN = (0, 408, 425, 429)
"""codes that say nothing against the message or us; and 500 to 599"""
OURSELVES = (401, 402, 403, 404, 407, 410)
"""codes by which another message would fare no better"""


class Sent(NamedTuple):
    """What became of a message."""

    how: Literal["taken", "later", "closed", "refused", "gone"]
    """closed: the receiver does not take ours; refused: it does not take this one; gone: there is nothing to send"""
    why: str = ""
    wait: float = 0.0
    """seconds that the receiver asks for"""


class Address(NamedTuple):
    """Where a receiver is."""

    url: str
    headers: dict[str, str]

    @property
    def is_web(self) -> bool:
        """A webhook, for which Apprise is not needed."""
        return self.url.startswith(("http://", "https://"))

    @property
    def shown(self) -> str:
        """What may be said of it: tokens stand anywhere behind the scheme, but for the host of a webhook."""
        scheme = self.url.partition(":")[0]
        return f"{scheme}://{urlsplit(self.url).hostname}" if self.is_web else scheme


def address_of(config: Notify) -> Address:
    """Where a receiver is, as its file says now. ConfigError, which shows nothing of it."""
    key = f"notify {config.name}: url_file"
    lines = [line.strip() for line in secret(config.url_file, key).splitlines() if line.strip()]
    url, headers = lines[0] if lines else "", dict[str, str]()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s]+", url):
        raise ConfigError(f"{key}: {config.url_file}: its first line is no address; write e.g. https://… or ntfy://…")
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9-]+", name) or not re.fullmatch(r"[\x20-\x7e]*", value):
            raise ConfigError(f'{key}: {config.url_file}: below the address stand headers only, as "Name: value"')
        headers[name] = value.strip()
    address = Address(url, headers)
    _check(address, key, config)
    return address


def _check(address: Address, key: str, config: Notify) -> None:
    check_ca(f"notify {config.name}", config.ca)
    if not address.is_web:
        if address.headers:
            raise ConfigError(f"{key}: headers are for http:// and https:// only; delete them")
        if importlib.util.find_spec("apprise") is None:
            mend = 'type pip install "edge-agent-runtime[notify]", or give an https:// address'
            raise ConfigError(f"{key}: {address.shown}:// needs Apprise, which is not installed; {mend}")
        return
    try:
        host, _ = urlsplit(address.url).hostname, urlsplit(address.url).port
    except ValueError:
        host = None
    if not host:
        raise ConfigError(f"{key}: {config.url_file}: the address names no host")
    if not address.url.isascii():
        raise ConfigError(f"{key}: {config.url_file}: the address holds more than ASCII; write %C3%BC for ü")


def check_ca(where: str, ca: str | None) -> None:
    """ConfigError for a PEM of an authority that cannot be had."""
    try:
        ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or "no PEM of a certificate"
        raise ConfigError(f"{where}: ca: {ca} cannot be read ({why}); check the path") from None


def send(config: Notify, note: Note) -> Sent:
    """Send it. Never raises."""
    try:
        address = address_of(config)
    except EdgeAgentError as error:
        return Sent("closed", str(error))
    if not address.is_web:
        return _by_apprise(config, address, note)
    sent = _posted(config, address, note)
    if sent.why == "HTTP 413" and note.picture:
        sent = _posted(config, address, note._replace(picture=None))
    return sent


def checked(config: Notify) -> str:
    """Where a receiver is, in words; ConfigError where Apprise takes its address for none. Nothing is sent."""
    address = address_of(config)
    told = None if address.is_web else _asked(config, {"url": address.url})
    if told is not None and not told["known"]:
        raise ConfigError(f"notify {config.name}: url_file: {_unknown(address)}")
    return address.shown


def tried(config: Notify, device: str) -> tuple[bool, str]:
    """Send a message of no event; whether it was taken, and a line about it."""
    sent = send(config, Note(f"{device}: a test", f"edge-agent check --notify: {config.name} is reached"))
    return sent.how == "taken", f"notify {config.name}: {sent.why or 'took a test message'}"


def _posted(config: Notify, address: Address, note: Note) -> Sent:
    """A webhook: JSON, with a key by which a receiver knows what it has had before."""
    body: dict[str, object] = {"v": 1, "notify": config.name, "title": note.title, "message": note.text}
    event: Event | None = note.events[-1] if note.events else None
    body["event"] = event
    body["held"] = [one.id for one in note.events[:-1]]
    if note.picture is not None:
        try:
            data = read_regular(note.picture, MOST_PICTURE)
            body["snapshot"] = {"type": "image/jpeg", "base64": base64.b64encode(data).decode()}
        except OSError:
            pass
    headers = {"Content-Type": "application/json", "User-Agent": "edge-agent"}
    if event is not None and event.id:
        headers["Idempotency-Key"] = f"{event.id}/{config.name}"
    return judged(post(address.url, msgspec.json.encode(body), {**headers, **address.headers}, ca=config.ca))


def judged(answer: Answer) -> Sent:
    """What an answer means for a message."""
    if 200 <= answer.status < 300:
        return Sent("taken")
    if answer.status in AGAIN or answer.status >= 500:
        return Sent("later", answer.why, answer.wait)
    return Sent("closed" if answer.status in OURSELVES else "refused", answer.why)


def _by_apprise(config: Notify, address: Address, note: Note) -> Sent:
    asked = {"url": address.url, "title": note.title, "text": note.text}
    if note.picture is not None:
        asked["picture"] = str(note.picture)
    told = _asked(config, asked)
    if told is None:
        return Sent("later", f"Apprise gave no answer in {CHILD_S:.0f} s, or died")
    if not told["known"]:
        return Sent("closed", _unknown(address))
    if told["taken"]:
        return Sent("taken")
    code = told["code"]
    return judged(Answer(told["status"], f"{address.shown} answers {code}" if code else "it cannot be reached"))


def _unknown(address: Address) -> str:
    return f"Apprise takes it for no address of {address.shown}; see what it says on that service"


def _asked(config: Notify, asked: dict[str, str]) -> dict[str, int] | None:
    """The child's answer; None where it gave none in time."""
    more = {"REQUESTS_CA_BUNDLE": config.ca, "SSL_CERT_FILE": config.ca} if config.ca else {}
    try:
        done = subprocess.run(
            python("edge_agent.notify.child"),
            input=json.dumps(asked).encode() + b"\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment(), **more},
            timeout=CHILD_S,
            start_new_session=True,
        )
        told: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
        return told
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def is_there(picture: Path | None) -> Path | None:
    """A picture, while it is there."""
    return picture if picture is not None and picture.is_file() else None
