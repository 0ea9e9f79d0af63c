"""TLS to the broker: what it is to be, and why it failed, in a person's words."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from edge_agent.config import Mqtt
from edge_agent.errors import ConfigError
from edge_agent.files import read_regular

MOST_PEM = 2_000_000
"""bytes of a file of certificates"""

_OTHER_HOST = "host name does not match: the broker's certificate is not for {host}; write the name of it in mqtt.url"
_UNTRUSTED = {
    9: "the broker's certificate is not valid yet; is the clock of this device right?",
    10: "certificate expired: the broker's is to be renewed, unless the clock of this device is wrong",
    62: _OTHER_HOST,
    64: _OTHER_HOST,
}
"""OpenSSL's X509_V_ERR_* -> what to say"""
_UNKNOWN_CA = {2, 18, 19, 20, 21}
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER", "PACKET_LENGTH", "RECORD_TYPE")
_OURS = {
    "CERTIFICATE_REQUIRED": "the broker requires a client certificate: set mqtt.cert and mqtt.key",
    "CERTIFICATE_EXPIRED": "the broker refuses our certificate, mqtt.cert: certificate expired",
    "CERTIFICATE_REVOKED": "the broker refuses our certificate, mqtt.cert: it was revoked",
    "UNKNOWN_CA": "the broker refuses our certificate, mqtt.cert: it does not know the authority that signed it",
    "BAD_CERTIFICATE": "the broker refuses our certificate, mqtt.cert, as bad",
    "CERTIFICATE_UNKNOWN": "the broker refuses our certificate, mqtt.cert; it does not say why",
    "ALERT_HANDSHAKE_FAILURE": "the broker refuses the TLS handshake; where it requires a client certificate, set "
    "mqtt.cert and mqtt.key",
    "PROTOCOL": "the broker offers no TLS 1.2 or newer",
}
"""a part of OpenSSL's reason -> what to say"""


def context_of(mqtt: Mqtt) -> ssl.SSLContext:
    """ConfigError, which names the key, for a file that cannot be used."""
    for key in ("ca", "cert", "key"):
        if (name := getattr(mqtt, key)) is not None:
            try:
                read_regular(name, MOST_PEM)
            except OSError as error:
                raise ConfigError(f"mqtt.{key}: {name} cannot be read ({error.strerror}); check the path") from None
    try:
        context = ssl.create_default_context(cafile=mqtt.ca)
    except (OSError, ssl.SSLError):
        raise ConfigError(f"mqtt.ca: {mqtt.ca} is no PEM file of certificates; give the authority's") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # from Python 3.13 on authorities that people make themselves would be refused for a missing extension
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if mqtt.cert and mqtt.key:
        try:
            # where the key wants a passphrase nobody is asked for one
            context.load_cert_chain(mqtt.cert, mqtt.key, password="")
        except (OSError, ssl.SSLError):
            pair = f"{mqtt.cert} and {mqtt.key}"
            raise ConfigError(
                f"mqtt.cert, mqtt.key: {pair} are no PEM of a certificate and of the key that belongs to it"
            ) from None
    return context


def reason_of(error: ssl.SSLError, host: str, ca: str | None, plain: Callable[[], bool], no_tls: str) -> str:
    """Why TLS failed, and what to do. `plain` asks the port whether it speaks without; `no_tls`: what to say then."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, host, ca)
    reason = error.reason or ""
    if any(part in reason for part in _NO_TLS):
        return no_tls
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        if plain():
            return no_tls
        return "the broker ends the TLS handshake; does it speak TLS, and does it require a client certificate?"
    return in_words(reason) or f"TLS fails: {reason.lower().replace('_', ' ') or error}"


def in_words(reason: str) -> str:
    """What a reason of OpenSSL's means; "" where that is not known."""
    return next((text for part, text in _OURS.items() if part in reason), "")


def _untrusted(error: ssl.SSLCertVerificationError, host: str, ca: str | None) -> str:
    """Why the broker's certificate is not taken."""
    if error.verify_code in _UNKNOWN_CA:
        known = f"{ca} (mqtt.ca) holds others" if ca else "set mqtt.ca to its PEM file"
        return f"unknown CA: the authority that signed the broker's certificate is not known here; {known}"
    other = f"the broker's certificate is refused: {error.verify_message}"
    return _UNTRUSTED.get(error.verify_code, other).format(host=host)
