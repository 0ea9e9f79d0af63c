"""The private keys of a publisher: one PEM file each, for its owner alone, with a passphrase where one was given.

They lie in a folder of their own, never in the repository, which is given away. A key is known by the id that TUF
makes of its public half, which lies beside it as NAME.pub.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import UsageError
from edge_agent.files import PRIVATE, folder, others_may, read_regular, write, write_private

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, SSlibKey

MOST_FILE = 65_536
"""bytes of a key"""
Passphrase = Callable[[str], bytes]
"""gives the passphrase of a key, asked for by its name; b"" for none"""


def need() -> None:
    """UsageError where the packages are missing."""
    try:
        import cryptography
        import tuf
    except ImportError as error:
        missing = error.name or "tuf"
        raise UsageError(f"this needs the package {missing}: pip install 'edge-agent-runtime[update]'") from None
    del cryptography, tuf


class Keys:
    """Those in one folder."""

    def __init__(self, place: Path, passphrase: Passphrase = lambda name: b"") -> None:
        need()
        self.place, self._passphrase = place, passphrase
        self._known: dict[str, bytes] = {}

    def make(self, name: str) -> SSlibKey:
        """A new Ed25519 key NAME.pem. UsageError where there is one, or the name is none."""
        from cryptography.hazmat.primitives import serialization as as_pem
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = self.path(name)
        if path.exists():
            raise UsageError(f"{path}: is there already; move it away, or give another folder by --keys")
        words, key = self._asked(name), Ed25519PrivateKey.generate()
        locked: Any = as_pem.BestAvailableEncryption(words) if words else as_pem.NoEncryption()
        folder(self.place, PRIVATE)
        write_private(path, key.private_bytes(as_pem.Encoding.PEM, as_pem.PrivateFormat.PKCS8, locked), confirm=True)
        public = key.public_key().public_bytes(as_pem.Encoding.PEM, as_pem.PublicFormat.SubjectPublicKeyInfo)
        write(path.with_suffix(".pub"), public.decode())
        return public_key(path.with_suffix(".pub"))

    def path(self, name: str) -> Path:
        """Where the key of a name is."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name):
            raise UsageError(f'"{name}" is no name of a key; use small letters, digits and -')
        return self.place / f"{name}.pem"

    def here(self) -> dict[str, Path]:
        """Id -> private key, of all in the folder. UsageError for one that others may read."""
        found = {}
        for path in sorted(self.place.glob("*.pem")) if self.place.is_dir() else ():
            if any(others_may(path)):
                raise UsageError(f"{path}: others may read it; chmod 600 {path}")
            if path.with_suffix(".pub").exists():
                found[public_key(path.with_suffix(".pub")).keyid] = path
        return found

    def signer(self, path: Path) -> CryptoSigner:
        """What signs with a key. UsageError for a wrong passphrase, or a file that is no key."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        from securesystemslib.signer import CryptoSigner

        pem = _read(path)
        try:
            words = self._asked(path.stem) if b"ENCRYPTED" in pem else None
            return CryptoSigner(load_pem_private_key(pem, words or None))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            mend = (
                "the passphrase is another one; give it by --passphrase-file" if b"ENCRYPTED" in pem else "no PEM key"
            )
            raise UsageError(f"{path}: {mend}") from None

    def _asked(self, name: str) -> bytes:
        if name not in self._known:
            self._known[name] = self._passphrase(name)
        return self._known[name]


def public_key(path: Path) -> SSlibKey:
    """A public key of a file. UsageError where it holds none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        return SSlibKey.from_crypto(load_pem_public_key(_read(path)))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{path}: is no PEM of a public key; give the .pub file that `repository key` made") from None


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, MOST_FILE)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
