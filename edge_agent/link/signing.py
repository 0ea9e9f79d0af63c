"""Messages that only the holder of a key can make: acknowledgements and commands, signed with Ed25519.

A signed message is JSON {"signed": TEXT, "signature": BASE64}. The signature is that of TEXT's bytes (UTF-8), and TEXT
is JSON too: {"topic": the whole topic it is published on, "at": seconds since 1970, ...}, and with it what an unsigned
message would hold. So prefix, device, verb, id, body and time are signed, and nothing needs a canonical form.
"""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edge_agent.errors import ConfigError
from edge_agent.events import KNOWN_TIME, UNREADABLE
from edge_agent.files import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


MOST_FILE = 65_536
"""bytes of a file of keys"""
AHEAD_S = 300.0
"""seconds that a sender's clock may be ahead of ours"""
_BEGIN = b"-----BEGIN"


class Unsigned(Exception):
    """A message that is not signed by any of the keys, for this topic, in time; why, in one line."""


class _Signed(msgspec.Struct):
    signed: str
    signature: str


class _Text(msgspec.Struct):
    topic: str
    at: float


class Signers:
    """The public keys whose signatures count."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError when the file holds no keys, or `cryptography` is not here."""
        what = f"mqtt.signers: {path}"
        blocks = _read(path, "mqtt.signers").split(_BEGIN)[1:]
        self._keys: list[Ed25519PublicKey] = []
        for block in blocks:
            key = _load(_BEGIN + block, what, private=False)
            self._keys.append(key)
        if not self._keys:
            raise ConfigError(f"{what}: holds no public key; put the PEM of one or more there")

    def open(self, topic: str, payload: bytes, old_s: float) -> bytes:
        """The JSON that was signed for this topic at most `old_s` seconds ago. Raises Unsigned."""
        from cryptography.exceptions import InvalidSignature

        try:
            message = msgspec.json.decode(payload, type=_Signed)
            text = message.signed.encode()
            signature = base64.b64decode(message.signature, validate=True)
        except (*UNREADABLE, ValueError):
            raise Unsigned('is not signed; {"signed": ..., "signature": ...} is needed') from None
        for key in self._keys:
            try:
                key.verify(signature, text)
                break
            except InvalidSignature:
                continue
        else:
            raise Unsigned("is signed by none of the keys in mqtt.signers")
        try:
            said = msgspec.json.decode(text, type=_Text)
        except UNREADABLE:
            raise Unsigned("was signed without topic and time") from None
        if said.topic != topic:
            raise Unsigned("was signed for another topic")
        age = time.time() - said.at
        if time.time() < KNOWN_TIME:
            raise Unsigned("cannot be judged before the clock of this device is set")
        if not -AHEAD_S <= age <= old_s:
            raise Unsigned(f"was signed {age:.0f} s ago; at most {old_s:.0f} s are allowed")
        return text


class Signer:
    """A private key."""

    def __init__(self, path: str) -> None:
        """Raises ConfigError when the file holds none, or `cryptography` is not here."""
        self._key: Ed25519PrivateKey = _load(_read(path, "--sign"), f"--sign {path}", private=True)

    def sign(self, topic: str, body: dict[str, Any]) -> bytes:
        """What to publish on a topic."""
        text = msgspec.json.encode({**body, "topic": topic, "at": time.time()})
        signature = base64.b64encode(self._key.sign(text)).decode()
        return msgspec.json.encode(_Signed(text.decode(), signature))


def _read(path: str, what: str) -> bytes:
    try:
        return read_regular(Path(path), MOST_FILE)
    except OSError as error:
        raise ConfigError(f"{what}: {path} cannot be read ({error.strerror}); give a PEM file") from None


def _load(pem: bytes, what: str, private: bool) -> Any:
    """An Ed25519 key. ConfigError when it is none."""
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        mend = "pip install 'edge-agent-runtime[signed]'"
        raise ConfigError(f"{what}: needs the package cryptography: {mend}") from None
    mend = "make them with openssl genpkey -algorithm ed25519"
    try:
        key = serialization.load_pem_private_key(pem, None) if private else serialization.load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        kind = "private key without a passphrase" if private else "public key"
        raise ConfigError(f"{what}: is no PEM of a {kind}; {mend}") from None
    if not isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        raise ConfigError(f"{what}: is no Ed25519 key; {mend}")
    return key
