"""The verb enroll: a key and a request for its certificate, that certificate, or a token; into files and the config."""

from __future__ import annotations

import argparse
import hashlib
import re
import ssl
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from edge_agent import files, paths
from edge_agent.cli import laying
from edge_agent.cli.given import config_of
from edge_agent.cli.laying import MOST_FILE, keep, read, write
from edge_agent.cli.say import note
from edge_agent.config import Config, edit, level, load, parse, parse_broker
from edge_agent.errors import EdgeAgentError, InputError, UsageError

LOOK_S = 60.0
"""seconds that a camera is shown the code"""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_SECURE = r"^(mqtts|wss)://[A-Za-z0-9.\-]{1,253}(:[0-9]{1,5})?(/[\w.\-/]*)?\Z"
_LINE = r"^[\x21-\x7e]+\Z"


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a QR code says, as JSON. It is a stranger's until somebody looked at where it leads."""

    url: Annotated[str, msgspec.Meta(pattern=_SECURE, max_length=300)]
    """only with TLS: a token that goes over the network in plain is everybody's"""
    ca: Annotated[str, msgspec.Meta(max_length=3000)] | None = None
    """PEM of the broker's authority"""
    token: Annotated[str, msgspec.Meta(pattern=_LINE, max_length=1024)] | None = None
    username: Annotated[str, msgspec.Meta(pattern=_LINE, max_length=128)] | None = None


class Places:
    """Where the credentials of a device go: secrets into a folder of their own, what is none beside the config."""

    def __init__(self, config: Path, name: str) -> None:
        self.config, self.name = config, name
        self.secrets = config.parent / "credentials"
        self.key, self.token = self.secrets / f"{name}.key", self.secrets / "mqtt"
        self.cert, self.ca, self.request = (config.parent / end for end in (f"{name}.pem", "ca.pem", f"{name}.csr"))

    def named(self, path: Path) -> str:
        """A file as the config names it."""
        if path.parent != self.secrets:
            return path.name
        return f"credential:{path.name}" if self.config == paths.SERVICE_CONFIG else f"credentials/{path.name}"


def enroll(args: argparse.Namespace) -> int:
    """Write what was given or made, and print what is to stand in [mqtt], or write that, too."""
    path = Path(config_of(args)).absolute()
    loaded = load(path, pipelines=False)
    places = Places(path, level(loaded.device.id))
    if args.repository:
        return _follows(args, places)
    told = _invited(args)
    _check_broker(told, loaded)
    _check(args, told)
    keys = {"url": told.url} if told.url and not isinstance(loaded.mqtt.url, list) else {}
    if told.ca is not None:
        keep(places.ca, told.ca.encode(), 0o644)
        keys["ca"] = places.named(places.ca)
    if told.token is not None:
        keep(places.token, told.token.encode() + b"\n")
        keys |= {"username": told.username or loaded.device.id, "password_file": places.named(places.token)}
    else:
        keys |= _certified(args, places)
    _say("mqtt", keys, args.write, places)
    return 0


def _follows(args: argparse.Namespace, places: Places) -> int:
    """Take the root of a fleet's repository, and print or write what is to stand in [update]."""
    if not args.root:
        mend = "give the metadata/1.root.json of the repository, as its owner gave it to you"
        raise UsageError(f"--repository: needs --root FILE, by which everything from there is trusted: {mend}")
    raw = read(args.root, "--root")
    try:
        version = msgspec.json.decode(raw, type=_Root).signed.version
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise UsageError(f"--root {args.root}: is no root of a repository; give its metadata/1.root.json") from None
    note(f"root {version}, SHA-256 {hashlib.sha256(raw).hexdigest()}: compare it with what its owner says")
    keep(places.config.parent / "root.json", raw, 0o644)
    keys = {"repository": args.repository, "root": "root.json"}
    _say("update", {**keys, **({"group": args.group} if args.group else {})}, args.write, places)
    return 0


class _Role(msgspec.Struct):
    kind: Literal["root"] = msgspec.field(name="_type")
    version: int


class _Root(msgspec.Struct):
    """What tells a root of TUF from another file; it is verified when it is used."""

    signed: _Role


class _Told(msgspec.Struct):
    url: str | None = None
    ca: str | None = None
    token: str | None = None
    username: str | None = None


def _invited(args: argparse.Namespace) -> _Told:
    """What the options and the code say together: an option counts before the code."""
    told = _Told(args.url, None, None, args.username)
    if args.qr:
        found = invitation(_code(args.qr))
        host = urlsplit(found.url).netloc
        note(f"the code leads to {host}" + (f", whose authority is {_print_of(found.ca)}" if found.ca else ""))
        told = _Told(args.url or found.url, found.ca, found.token, args.username or found.username)
    if args.ca:
        told.ca = read(args.ca, "--ca").decode("ascii", "replace")
    if args.token:
        raw = sys.stdin.buffer.readline(MOST_FILE) if args.token == "-" else read(args.token, "--token")
        told.token = raw.decode("ascii", "replace").strip()
    return told


def _check(args: argparse.Namespace, told: _Told) -> None:
    """Nothing is written before all of it is right. UsageError."""
    if told.token is not None:
        if args.cert:
            raise UsageError("give a token or a certificate: --cert does not go with a token")
        if not re.fullmatch(_LINE, told.token):
            raise UsageError(
                "the token is empty, or holds more than printable characters; give the file that holds it alone"
            )
    if told.ca is not None:
        try:
            ssl.create_default_context(cadata=told.ca)
        except (ssl.SSLError, ValueError):
            raise UsageError("the authority is no PEM of certificates; give what starts with -----BEGIN") from None


def _check_broker(told: _Told, loaded: Config) -> None:
    """UsageError for a broker other than the config's, and for a token that would go there in plain."""
    at = loaded.mqtt.url or told.url or []
    known = [at] if isinstance(at, str) else at
    if told.url and told.url not in known:
        raise UsageError("mqtt.url is there and leads to another broker; take it out first")
    if told.token is not None and not all(map(_is_closed, known)):
        raise UsageError(
            "a token goes over the network only with TLS; give an address that begins with mqtts:// or wss://"
        )


def _is_closed(url: str) -> bool:
    """Whether nobody on the way hears what is said to an address."""
    address = parse_broker(url)
    return address.secure or address.host in LOOPBACK


def invitation(text: str) -> Invitation:
    """What a code says. InputError, which does not repeat it: it may hold a token."""
    try:
        return msgspec.json.decode(text.encode(), type=Invitation)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeEncodeError, RecursionError) as error:
        where = re.search(r"\$[.\w]*", str(error))
        wrong = f" ({where[0]} is wrong)" if where and isinstance(error, msgspec.ValidationError) else ""
        form = '{"url": "mqtts://...", "ca": PEM, "token": ..., "username": ...}'
        raise InputError(f"the code is no invitation{wrong}; it is to hold {form}") from None


def _code(where: str) -> str:
    """The text of the code in a picture, or before a camera. InputError where there is none."""
    from edge_agent.pictures.qr import text_of
    from edge_agent.pictures.read import read_picture

    if not where.startswith("camera:"):
        try:
            text = text_of(read_picture(Path(where)).image)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    else:
        text = _before(where)
    if not text:
        raise InputError(f"{where}: no QR code can be read there; show it flat, whole and in good light")
    return text


def _before(camera: str) -> str:
    """What the camera is shown within LOOK_S; "" where that is no code."""
    from edge_agent.pictures.qr import text_of
    from edge_agent.sources import open_source
    from edge_agent.types import Frame
    from edge_agent.uri import parse_uri

    stop, until = threading.Event(), time.monotonic() + LOOK_S
    note(f"show {camera} the code")
    for got in open_source(parse_uri(camera)).run(stop):
        text = text_of(got.image) if isinstance(got, Frame) else ""
        if text or time.monotonic() > until:
            return text
    return ""


def _certified(args: argparse.Namespace, places: Places) -> dict[str, str]:
    """The key, and its certificate where one is given, else a request for one; what [mqtt] is to say."""
    from edge_agent.link.request import make_key, request

    if args.key:
        keep(places.key, read(args.key, "--key"))
    if not args.cert:
        if not places.key.exists():
            keep(places.key, make_key(args.kind))
        try:
            write(places.request, request(read(str(places.key), "the key"), places.name))
        except EdgeAgentError as error:
            raise type(error)(f"{places.key}: {error}") from None
        note(f"have your authority sign {places.request}, then: edge-agent enroll --cert FILE --ca FILE --write")
        return {}
    if not places.key.exists():
        raise UsageError(f"--cert: there is no key {places.key} that it could be for; give one by --key FILE")
    raw = read(args.cert, "--cert")
    part = places.cert.with_name(f".{places.cert.name}.new")
    try:
        files.write_private(part, raw)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(part, places.key, password="")
    except ssl.SSLError:
        raise UsageError(f"--cert {args.cert}: is no PEM of a certificate for the key {places.key}") from None
    finally:
        part.unlink(missing_ok=True)
    write(places.cert, raw)
    return {"cert": places.named(places.cert), "key": places.named(places.key)}


def _say(section: str, keys: dict[str, str], write: bool, places: Places) -> None:
    if not keys:
        return
    lines = edit.lines_of(keys)
    if not write:
        print("\n".join([f"[{section}]", *lines]))
        note(f"add these lines to {places.config}, or type it again with --write")
        return
    text = places.config.read_text(encoding="utf-8")
    try:
        changed = edit.with_keys(text, section, keys)
    except UsageError as error:
        raise UsageError(f"{places.config}: {error}: {'; '.join(lines)}") from None
    if changed != text:
        parse(changed, places.config.parent, pipelines=False)
        was = places.config.stat()
        laying.write(places.config, changed.encode(), was.st_mode & 0o7777, (was.st_uid, was.st_gid))
    again = "sudo edge-agent install && " if places.config == paths.SERVICE_CONFIG else ""
    then = "edge-agent update" if section == "update" else "edge-agent check --connect"
    note(f"{places.config} names them; now: {again}{then}")


def _print_of(pem: str) -> str:
    """A fingerprint that people can compare."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.strip())
    except ValueError:
        return "no certificate"
    return f"SHA-256 {hashlib.sha256(der).hexdigest()}"


def add_arguments(of: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    of.add_argument("-c", "--config", help="TOML file (default: that of the service)")
    of.add_argument(
        "--kind", choices=("p256", "ed25519"), default="p256", help="of the key that is made (default: p256)"
    )
    of.add_argument("--cert", metavar="PEM", help="the certificate that was made for this device's key")
    of.add_argument("--key", metavar="PEM", help="a key that was made elsewhere")
    of.add_argument("--ca", metavar="PEM", help="the authority that signed the broker's certificate")
    of.add_argument("--url", help="the broker's address, as in mqtts://broker.local")
    of.add_argument("--token", metavar="FILE", help="what holds a token to log in with; -: a line of stdin")
    of.add_argument("--username", help="with a token: who logs in (default: device.id)")
    of.add_argument(
        "--qr", metavar="WHERE", help="take broker, authority and token from a QR code: a picture, or camera:0"
    )
    of.add_argument("--write", action="store_true", help="add the lines to the config, too")
    of.add_argument("--repository", metavar="ADDRESS", help="take updates from this fleet's repository: URL or folder")
    of.add_argument("--root", metavar="FILE", help="with --repository: its metadata/1.root.json, from its owner")
    of.add_argument("--group", metavar="NAME", help="with --repository: whose offers are taken (default: all)")
