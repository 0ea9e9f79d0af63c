"""One request of SOAP 1.2 to a device that may lie: its answer has a size, a time, and no entities.

With the standard library alone.
"""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from urllib.parse import urlsplit
from xml.etree import ElementTree

MOST_ANSWER = 512 << 10
"""bytes of an answer over HTTP"""
ASK_S = 5.0
"""seconds that one request may take, whatever trickles in"""
WORDS = 300
"""characters of a name or an address"""
ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope">'
    "<s:Header>{}</s:Header><s:Body>{}</s:Body></s:Envelope>"
)


class OnvifError(Exception):
    """A device gives no answer, or none that is taken; one line."""


def ask(place: str, header: str, body: str) -> ElementTree.Element:
    """One request. OnvifError."""
    parts = urlsplit(place)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port or 80, timeout=ASK_S)
    told = {"Content-Type": "application/soap+xml; charset=utf-8", "Connection": "close"}
    late = threading.Event()
    try:
        connection.connect()
        watch = threading.Timer(ASK_S, _cut, (connection.sock, late))
        watch.start()
        try:
            sent = ENVELOPE.format(header, body).encode()
            connection.request("POST", parts.path or "/", sent, told)
            answer = connection.getresponse()
            data, status = answer.read(MOST_ANSWER + 1), answer.status
        finally:
            watch.cancel()
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = f"no whole answer within {ASK_S:g} s" if late.is_set() else getattr(error, "strerror", None)
        raise OnvifError(str(why or "answers with something that is no HTTP")) from None
    finally:
        connection.close()
    if late.is_set():
        raise OnvifError(f"no whole answer within {ASK_S:g} s")
    return _answered(data, status)


def _cut(sock: socket.socket, late: threading.Event) -> None:
    late.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _answered(data: bytes, status: int) -> ElementTree.Element:
    """The answer, where it is no refusal. OnvifError."""
    if len(data) > MOST_ANSWER:
        raise OnvifError(f"answers with more than {MOST_ANSWER >> 10} KiB")
    if status == 401 or b"NotAuthorized" in data or b"FailedAuthentication" in data:
        raise OnvifError("wants a user and password, or others than these")
    root = parsed(data)
    if status != 200 or find(root, "Fault") is not None:
        raise OnvifError(f"refuses with status {status}: {clean(text_of(root, 'Text'))}".rstrip(": "))
    return root


def parsed(data: bytes) -> ElementTree.Element:
    """A document of UTF-8 without a document type, so without entities. OnvifError for any other."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise OnvifError("answers with something that is no UTF-8") from None
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise OnvifError("answers with a document type, which is not taken")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise OnvifError("answers with something that is no XML") from None


def elements(root: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    """The elements of that name, whatever their namespace, in the order of the document."""
    return [one for one in root.iter() if isinstance(one.tag, str) and one.tag.rpartition("}")[2] == name]


def find(root: ElementTree.Element, name: str) -> ElementTree.Element | None:
    """The first of them; None for none."""
    return next(iter(elements(root, name)), None)


def text_of(root: ElementTree.Element, name: str) -> str:
    """The text of the first element of that name; "" for none."""
    found = find(root, name)
    return "" if found is None else (found.text or "").strip()


def clean(text: str) -> str:
    """What a stranger wrote, fit for a terminal: printable, and not too long."""
    return "".join(sign if sign.isprintable() else "?" for sign in text.strip()[:WORDS])
