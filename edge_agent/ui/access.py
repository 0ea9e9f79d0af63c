"""Who may do what: passwords, sessions, tokens, and what slows down guessing.

A password is held as scrypt's hash alone. A session is a cookie that this device signed; another password ends it. A
token is 32 random bytes, of which the store holds SHA-256. Without a password, the user that runs the agent and root
may do everything and other users of this machine may look: the kernel says whose a connection is (/proc/net/tcp,
proc(5)).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

import msgspec

from edge_agent import config
from edge_agent.errors import ConfigError
from edge_agent.events import UNREADABLE
from edge_agent.files import folder, read_regular, write_private
from edge_agent.ui.calls import Refused, Role

COOKIE, SESSION_S = "edge_agent_page", 30 * 86400
SHORTEST, LONG = 8, 32
"""characters of a password, and of a token that a file holds: nothing slows down guessing it"""
N, R, P = 2**14, 8, 1
"""scrypt's: 16 MB, and about 50 ms on this box"""
SLOWEST_S, REMEMBERED = 60.0, 1000
"""seconds at most between two tries of one address, and addresses that are remembered"""
MOST_TOKENS = 100


class Token(msgspec.Struct, frozen=True):
    """One that was given out."""

    name: str
    role: Role
    sha256: str
    made: float
    """seconds since 1970 UTC"""


class Access:
    """The passwords, sessions and tokens of one page. May be used from any thread."""

    def __init__(self, page: config.Page, place: Path) -> None:
        """`place`: a folder of the store for its key and tokens. Raises ConfigError, OSError."""
        self._place = folder(place, 0o700)
        self._key = self._kept_key()
        files = {"admin": page.password_file, "operator": page.operator_file, "viewer": page.viewer_file}
        self._hashes: dict[Role, bytes] = {
            cast(Role, role): self._hash(_password(file, "password_file" if role == "admin" else f"{role}_file"), role)
            for role, file in files.items()
            if file is not None
        }
        self._file = place / "tokens.json"
        self.tokens = self._kept_tokens()
        self._shared: list[Token] = []
        self._tries: dict[str, tuple[int, float]] = {}
        """address -> tries that failed in a row, and when the next one counts (monotonic)"""
        self._trying = threading.Lock()

    def _kept_key(self) -> bytes:
        """The key that sessions are signed with."""
        file = self._place / "key"
        with suppress(OSError):
            if len(key := read_regular(file, 64)) == 32:
                return key
        key = os.urandom(32)
        write_private(file, key, confirm=True)
        return key

    def _kept_tokens(self) -> list[Token]:
        try:
            return msgspec.json.decode(read_regular(self._file, 100_000), type=list[Token])
        except (OSError, *UNREADABLE):
            return []

    @property
    def has_password(self) -> bool:
        """Whether a visitor has to log in."""
        return bool(self._hashes)

    # ── the caller ─────────────────────────────────────────────────────────────────────────────────────────

    def who(self, authorization: str, cookie: str, user: int | None) -> Role:
        """The role of a caller with these headers; `user`: the user of the connection, None where it is not known."""
        if authorization:
            return self._of_token(_token_in(authorization))
        if self.has_password:
            return self._of_session(cookie)
        return "admin" if user in (0, os.geteuid()) else "viewer"

    def _of_token(self, token: str) -> Role:
        digest = hashlib.sha256(token.encode()).hexdigest()
        return next((one.role for one in [*self.tokens, *self._shared] if hmac.compare_digest(one.sha256, digest)), "")

    def _of_session(self, cookie: str) -> Role:
        given, _, mac = cookie.rpartition(".")
        role, _, until = given.partition(".")
        if role not in self._hashes or not hmac.compare_digest(mac, self._mac(given, role)):
            return ""
        return role if until.isdigit() and time.time() < int(until) else ""

    def _mac(self, text: str, role: Role) -> str:
        return hmac.new(self._key + self._hashes[role], text.encode(), "sha256").hexdigest()

    def _hash(self, password: str, role: str) -> bytes:
        """Of a password; the salt is this device's and the role's, so that sessions outlive a restart."""
        return hashlib.scrypt(password.encode(), salt=self._key + role.encode(), n=N, r=R, p=P, dklen=32)

    def log_in(self, password: str, address: str) -> tuple[Role, str]:
        """The role of a password, and the cookie of a session. Refused for a wrong one, and for one too soon after it.

        One at a time, as each takes memory.
        """
        if not self._hashes:
            raise Refused(409, "there is no password here, and no need to log in")
        with self._trying:
            failed, due = self._tries.get(address, (0, 0.0))
            if (left := due - time.monotonic()) > 0:
                raise Refused(429, f"wait {left:.0f} s, then try again", {"Retry-After": str(int(left) + 1)})
            for role, known in self._hashes.items():
                if hmac.compare_digest(self._hash(password, role), known):
                    self._tries.pop(address, None)
                    given = f"{role}.{int(time.time()) + SESSION_S}"
                    return role, f"{given}.{self._mac(given, role)}"
            wait = min(SLOWEST_S, 0.25 * 2**failed)
            self._tries.pop(address, None)
            self._tries[address] = failed + 1, time.monotonic() + wait
            if len(self._tries) > REMEMBERED:
                del self._tries[next(iter(self._tries))]
        raise Refused(401, "this is not the password")

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────

    def make_token(self, name: str, role: Role) -> str:
        """One for a program; it is told once. Refused."""
        if any(one.name == name for one in self.tokens) or len(self.tokens) >= MOST_TOKENS:
            raise Refused(409, f"there is a token {name!r} already, or too many; take one away first")
        token = secrets.token_urlsafe(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        self._keep([*self.tokens, Token(name, role, digest, time.time())])
        return token

    def share(self, file: str, key: str) -> None:
        """Take the token in a file, too: of an operator, the same for all replicas behind a balancer. ConfigError."""
        token = config.secret(file, key)
        if len(token) < LONG:
            raise ConfigError(f"{key}: {file}: a token has {LONG} characters and more, as `openssl rand -hex 32` gives")
        self._shared.append(Token("shared", "operator", hashlib.sha256(token.encode()).hexdigest(), time.time()))

    def drop_token(self, name: str) -> None:
        """It counts no more. Refused."""
        left = [one for one in self.tokens if one.name != name]
        if len(left) == len(self.tokens):
            raise Refused(404, f"there is no token {name[:40]!r}")
        self._keep(left)

    def _keep(self, tokens: list[Token]) -> None:
        fresh = self._file.with_suffix(".new")
        write_private(fresh, msgspec.json.encode(tokens), confirm=True)
        fresh.replace(self._file)
        self.tokens = tokens


def _password(file: str, key: str) -> str:
    """The password in a file. ConfigError."""
    password = config.secret(file, f"page.{key}")
    if len(password) < SHORTEST:
        raise ConfigError(f"page.{key}: {file}: a password has {SHORTEST} characters and more; write a longer one")
    return password


def _token_in(authorization: str) -> str:
    """That of a Bearer, or the password of Basic, for programs that know no other way."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "basic":
        with suppress(binascii.Error, UnicodeDecodeError):
            return base64.b64decode(given, validate=True).decode().partition(":")[2]
    return given.strip()


def user_of(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The user at the other end of a connection within this machine; None where that cannot be told."""
    for table, mapped in (("tcp", False), ("tcp6", ":" not in peer[0])):
        with suppress(OSError, ValueError, IndexError), Path("/proc/self/net", table).open() as lines:
            wanted = [f"{_hex(host, mapped)}:{port:04X}" for host, port in (peer, own)]
            for line in lines:
                fields = line.split()
                if fields[1:3] == wanted:
                    return int(fields[7])
    return None


def _hex(host: str, mapped: bool) -> str:
    """An address as /proc has it: words of 32 bits in the machine's own order; `mapped`: of IPv4 as IPv6."""
    raw = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    raw = bytes(10) + b"\xff\xff" + raw if mapped else raw
    words = [raw[at : at + 4] for at in range(0, len(raw), 4)]
    return b"".join(word[::-1] if sys.byteorder == "little" else word for word in words).hex().upper()
