"""Cameras of the network that speak ONVIF: which are there (WS-Discovery), and the addresses of their streams.

With the standard library alone. It sends packets to the network, so only where somebody asked for it. What answers may
lie: each answer has a size, a time and no entities, and a device can send us to no other host. Formats: WS-Discovery
1.0 (2005/04), ONVIF Core (GetSystemDateAndTime, GetCapabilities), Media (GetProfiles, GetStreamUri), WS-Security
UsernameToken 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from edge_agent.device.soap import ENVELOPE, WORDS, OnvifError, ask, clean, elements, find, parsed, text_of

GROUP = ("239.255.255.250", 3702)
"""where a probe goes (WS-Discovery, 2.4)"""
WAIT_S = 3.0
"""seconds that answers are waited for"""
LONGEST = 65_535
"""bytes of an answer to the probe"""
MOST_DEVICES, MOST_STREAMS = 64, 16

_PROBE = (
    '<Probe xmlns="http://schemas.xmlsoap.org/ws/2005/04/discovery">'
    '<Types xmlns:n="http://www.onvif.org/ver10/network/wsdl">n:NetworkVideoTransmitter</Types></Probe>'
)
_ADDRESSED = (
    '<a:Action xmlns:a="{0}">http://schemas.xmlsoap.org/ws/2005/04/discovery/Probe</a:Action>'
    '<a:MessageID xmlns:a="{0}">uuid:{1}</a:MessageID>'
    '<a:To xmlns:a="{0}">urn:schemas-xmlsoap-org:ws:2005:04:discovery</a:To>'
)
_ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
_DEVICE, _MEDIA = "http://www.onvif.org/ver10/device/wsdl", "http://www.onvif.org/ver10/media/wsdl"
_SECURITY = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-"
_TOKEN = (
    f'<w:Security xmlns:w="{_SECURITY}wssecurity-secext-1.0.xsd" xmlns:u="{_SECURITY}wssecurity-utility-1.0.xsd">'
    "<w:UsernameToken><w:Username>{user}</w:Username>"
    f'<w:Password Type="{_SECURITY.replace("wss-", "wss-username-token-profile-1.0")}#PasswordDigest">{{digest}}'
    f'</w:Password><w:Nonce EncodingType="{_SECURITY}soap-message-security-1.0#Base64Binary">{{nonce}}</w:Nonce>'
    "<u:Created>{created}</u:Created></w:UsernameToken></w:Security>"
)


class Stream(NamedTuple):
    """One profile of a camera."""

    profile: str
    encoding: str
    width: int
    height: int
    uri: str
    """without user and password"""


class Device(NamedTuple):
    """What answered a probe."""

    host: str
    name: str
    service: str
    """address of its device service; "" where it gives none of its own host"""


class Login(NamedTuple):
    """A user of the cameras."""

    user: str
    password: str


# ── discovery ─────────────────────────────────────────────────────────────────────────────────────────


def devices() -> list[Device]:
    """Ask on every network of this machine, once and once more; those that answer, by host. OSError."""
    probe = ENVELOPE.format(_ADDRESSED.format(_ADDRESSING, uuid.uuid4()), _PROBE).encode()
    found: dict[str, Device] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _send(sock, probe)
        end, again = time.monotonic() + WAIT_S, time.monotonic() + WAIT_S / 4
        while (now := time.monotonic()) < end and len(found) < MOST_DEVICES:
            if now >= again:
                _send(sock, probe)
                again = end
            sock.settimeout(max(0.01, min(end, again) - now))
            with suppress(TimeoutError):
                data, (host, _) = sock.recvfrom(LONGEST)
                with suppress(OnvifError):
                    found.setdefault(host, _device(data, host))
    return [found[host] for host in sorted(found, key=socket.inet_aton)]


def _send(sock: socket.socket, probe: bytes) -> None:
    """The probe out of each interface that there is. OSError where it could be sent on none."""
    failed: list[OSError] = []
    names = socket.if_nameindex()
    for index, _ in names:
        try:
            # struct ip_mreqn of ip(7)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("4s4si", b"", b"", index))
            sock.sendto(probe, GROUP)
        except OSError as error:
            failed.append(error)
    if len(failed) == len(names):
        raise failed[0] if failed else OSError("there is no network")


def _device(data: bytes, host: str) -> Device:
    """What an answer says. OnvifError for one that is none."""
    root = parsed(data)
    if find(root, "ProbeMatch") is None:
        raise OnvifError("is no answer to a probe")
    named = [part.rpartition("/")[2] for part in text_of(root, "Scopes").split() if "/name/" in part]
    own = (place for place in text_of(root, "XAddrs").split() if _is_of(place, host))
    return Device(host, clean("".join(named[:1]).replace("%20", " ")), next(own, ""))


def _is_of(place: str, host: str) -> bool:
    """Whether an address is plain HTTP of that host."""
    try:
        parts = urlsplit(place)
        return parts.scheme == "http" and parts.hostname == host and (parts.port or 80) > 0
    except ValueError:
        return False


# ── what it offers ───────────────────────────────────────────────────────────────────────────────────────


def streams(device: Device, login: Login | None = None) -> list[Stream]:
    """The streams of a device, as it lists them. OnvifError."""
    if not device.service:
        raise OnvifError("gives no address of its own over http")
    skew = _skew(device) if login else timedelta()

    def asked(place: str, space: str, name: str, body: str = "") -> ElementTree.Element:
        header = _token(login, skew) if login else ""
        return ask(place, header, f'<{name} xmlns="{space}">{body}</{name}>')

    offers = asked(device.service, _DEVICE, "GetCapabilities", "<Category>Media</Category>")
    media = find(offers, "Media")
    place = "" if media is None else text_of(media, "XAddr")
    if not _is_of(place, device.host):
        raise OnvifError("names no media service of its own")
    found = []
    for profile in elements(asked(place, _MEDIA, "GetProfiles"), "Profiles")[:MOST_STREAMS]:
        setup = '<Stream xmlns="{0}">RTP-Unicast</Stream><Transport xmlns="{0}"><Protocol>RTSP</Protocol></Transport>'
        token = f"<ProfileToken>{escape(profile.get('token', '')[:WORDS])}</ProfileToken>"
        setup = f"<StreamSetup>{setup.format('http://www.onvif.org/ver10/schema')}</StreamSetup>"
        found.append(_stream(profile, asked(place, _MEDIA, "GetStreamUri", setup + token)))
    return found


def _stream(profile: ElementTree.Element, answer: ElementTree.Element) -> Stream:
    encoder = find(profile, "VideoEncoderConfiguration")
    of = profile if encoder is None else encoder
    sides = [text_of(of, side) for side in ("Width", "Height")]
    width, height = (int(side) if re.fullmatch("[0-9]{1,5}", side) else 0 for side in sides)
    uri = re.sub(r"(?<=://)[^/]*@", "", clean(text_of(answer, "Uri")))
    return Stream(clean(text_of(profile, "Name")), clean(text_of(of, "Encoding")), width, height, uri)


def every(login: Login | None = None) -> Iterator[tuple[Device, list[Stream], str]]:
    """Each device with its streams, or why there are none. OSError where nothing can be sent."""

    def asked(device: Device) -> tuple[Device, list[Stream], str]:
        try:
            return device, streams(device, login), ""
        except OnvifError as error:
            return device, [], str(error)

    with ThreadPoolExecutor(8) as pool:
        yield from pool.map(asked, devices())


def _skew(device: Device) -> timedelta:
    """How far the device's clock is ahead of ours: it refuses a token of another time. Zero where it does not say."""
    with suppress(OnvifError, ValueError, OverflowError):
        root = ask(device.service, "", f'<GetSystemDateAndTime xmlns="{_DEVICE}"/>')
        utc = find(root, "UTCDateTime")
        if utc is not None:
            year, month, day, hour, minute, second = (
                int(text_of(utc, name)[:4]) for name in ("Year", "Month", "Day", "Hour", "Minute", "Second")
            )
            return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc) - _now()
    return timedelta()


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _token(login: Login, skew: timedelta) -> str:
    """UsernameToken with a digest: Base64(SHA-1(nonce + created + password))."""
    nonce, created = os.urandom(16), (_now() + skew).strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha1(nonce + created.encode() + login.password.encode(), usedforsecurity=False).digest()
    told = {"digest": base64.b64encode(digest).decode(), "nonce": base64.b64encode(nonce).decode()}
    return _TOKEN.format(user=escape(login.user), created=created, **told)
