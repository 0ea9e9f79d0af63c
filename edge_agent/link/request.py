"""A device's own key, and the request for a certificate of it (PKCS #10)."""

from __future__ import annotations

from edge_agent.errors import ConfigError, EdgeAgentError

KINDS = ("p256", "ed25519")
"""of keys; the first is known to every broker, the second is not to some clouds"""


def make_key(kind: str) -> bytes:
    """A new private key of one of KINDS as PEM (PKCS #8), without a passphrase. ConfigError without `cryptography`."""
    _needs_cryptography()
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request(key_pem: bytes, name: str) -> bytes:
    """The request, as PEM, for a client's certificate whose common name is `name`.

    EdgeAgentError where the PEM is no private key that can sign one, ConfigError without `cryptography`.
    """
    _needs_cryptography()
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    try:
        key = serialization.load_pem_private_key(key_pem, password=None)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder(subject)
        client = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        made = made.add_extension(client, critical=False)
        signed = made.sign(key, None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256())  # type: ignore[arg-type]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise EdgeAgentError(
            "is no private key without a passphrase that can sign; move it away to have one made"
        ) from None
    return signed.public_bytes(serialization.Encoding.PEM)


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        mend = "pip install 'edge-agent-runtime[signed]'"
        raise ConfigError(f"a key and a request are made with cryptography; type: {mend}") from None
