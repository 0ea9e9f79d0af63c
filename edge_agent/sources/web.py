"""One GET of a camera: its login (Basic, Digest), its certificate, and no way off its host."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import ssl
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from edge_agent.errors import SourceError

STEPS = 8
"""answers on the way to the picture: redirections, and what asks for a login"""
REDIRECTIONS = (301, 302, 303, 307, 308)
HASHES = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
"""of RFC 7616, the strongest first -> hashlib's names"""

Challenge = dict[str, str]
"""the parameters of one challenge, its scheme under "", lower case but for the values"""


def challenges(headers: Iterable[str]) -> list[Challenge]:
    """What WWW-Authenticate headers ask for, several in one or in several (RFC 9110, 11.6.1)."""
    found: list[Challenge] = []
    for header in headers:
        for one in re.finditer(r'([\w-]+)\s*(?:=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?', header[:8192]):
            name, quoted, bare = one.groups()
            if quoted is None and bare is None:
                found.append({"": name.lower()})
            elif found:
                found[-1].setdefault(name.lower(), bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
    return found


class Login:
    """The user and password of an address, and what the camera asked for last."""

    def __init__(self, parts: SplitResult) -> None:
        self.user = None if parts.username is None else unquote(parts.username)
        self._password = unquote(parts.password or "")
        self._asked: Challenge = {}
        self._refused: set[str] = set()
        self._count = 0

    def begin(self) -> None:
        """A new attempt: what was refused before may be tried again."""
        self._refused.clear()

    def learn(self, headers: Iterable[str], refused: bool) -> bool:
        """Take the strongest challenge that was not answered in vain; False where there is none.

        `refused`: the request had an answer to the one before. One that came too late for its nonce is given again.
        """
        if self.user is None:
            return False
        asked = [one for one in challenges(headers) if _rank(one)]
        if refused and self._in_vain(asked):
            self._refused.add(_kind(self._asked))
        left = [one for one in asked if _kind(one) not in self._refused]
        if left:
            self._asked, self._count = max(left, key=_rank), 0
        return bool(left)

    def _in_vain(self, asked: list[Challenge]) -> bool:
        """Whether the answer that was given is wrong, and not only too late for its nonce."""
        same = next((one for one in asked if _kind(one) == _kind(self._asked)), {})
        # a nonce that was good a while ago is good no more: in so many words, or only by giving another
        another = self._count > 1 and same.get("nonce") != self._asked.get("nonce")
        return not another and same.get("stale", "").lower() != "true"

    def header(self, method: str, target: str) -> dict[str, str]:
        """The Authorization header for one request, {} before a challenge."""
        self._count += 1
        if not self._asked:
            return {}
        answer = self._basic() if self._asked[""] == "basic" else self._digest(method, target)
        return {"Authorization": answer}

    def _basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user or ''}:{self._password}".encode()).decode()

    def _digest(self, method: str, target: str) -> str:
        """RFC 7616, section 3.4."""
        asked, user = self._asked, self.user or ""
        name = asked.get("algorithm", "MD5").upper()
        kind, of_session = HASHES[name.removesuffix("-SESS")], name.endswith("-SESS")

        def digest(*of: str) -> str:
            return hashlib.new(kind, ":".join(of).encode(), usedforsecurity=False).hexdigest()

        realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
        count, own = f"{self._count:08x}", secrets.token_hex(16)
        secret = digest(user, realm, self._password)
        secret = digest(secret, nonce, own) if of_session else secret
        quality = _quality(asked)
        what = digest(method, target, *([digest("")] if quality == "auth-int" else []))
        hidden = asked.get("userhash", "").lower() == "true"
        quoted = {
            "username": digest(user, realm) if hidden else user,
            "realm": realm,
            "nonce": nonce,
            "uri": target,
            "response": digest(secret, *((nonce, count, own, quality) if quality else (nonce,)), what),
            "opaque": asked.get("opaque"),
            "cnonce": own if quality or of_session else None,
        }
        plain = {
            "algorithm": asked.get("algorithm"),
            "qop": quality or None,
            "nc": count if quality else None,
            "userhash": "true" if hidden else None,
        }
        return "Digest " + ", ".join([*_fields(quoted, '{}="{}"'), *_fields(plain, "{}={}")])


def _fields(values: dict[str, str | None], form: str) -> list[str]:
    """Those of the fields that are given, as they are written."""
    return [form.format(key, _escaped(value)) for key, value in values.items() if value is not None]


def _quality(asked: Challenge) -> str:
    """The quality of protection that is answered with, "" for that of the older RFC 2069."""
    offered = [word.strip().lower() for word in asked.get("qop", "").split(",")]
    return next((word for word in ("auth", "auth-int") if word in offered), "")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _kind(asked: Challenge) -> str:
    return f"{asked.get('', '')} {asked.get('algorithm', 'MD5').upper()}"


def _rank(asked: Challenge) -> int:
    """0: cannot be answered; the more the better."""
    if asked.get("") == "basic":
        return 1
    name = asked.get("algorithm", "MD5").upper().removesuffix("-SESS")
    if asked.get("") != "digest" or HASHES.get(name) not in hashlib.algorithms_available:
        return 0
    return 1 + len(HASHES) - list(HASHES).index(name)


def get(parts: SplitResult, login: Login, tls: ssl.SSLContext | None, limit: float, what: str) -> HTTPResponse:
    """GET, straight, as cameras stand behind no proxy. The user and the password go out only when they are asked for.

    Its `url` is where it came from in the end. `what`: the address as it may be shown; `limit`: seconds for each read.
    SourceError with the reason; also where it leads to another host, or from https to http.
    """
    login.begin()
    for _ in range(STEPS):
        answer, told = _asked(parts, login, tls, limit, what)
        if answer.status == 200:
            answer.url = parts.geturl()
            return answer
        answer.close()
        if answer.status == 401 and login.learn(answer.headers.get_all("WWW-Authenticate") or (), told):
            continue
        place = answer.headers.get("Location")
        if answer.status not in REDIRECTIONS or not place:
            hint = _hint(login, told) if answer.status == 401 else ""
            raise SourceError(f"{what}: HTTP {answer.status} {answer.reason}{hint}")
        parts = led(parts, place, what)
    raise SourceError(f"{what}: leads in a circle")


def _asked(
    parts: SplitResult, login: Login, tls: ssl.SSLContext | None, limit: float, what: str
) -> tuple[HTTPResponse, bool]:
    """The answer to one request, and whether the login was sent with it."""
    host, port = str(parts.hostname), parts.port
    line: HTTPConnection
    if parts.scheme == "https":
        line = HTTPSConnection(host, port, timeout=limit, context=tls or ssl.create_default_context())
    else:
        line = HTTPConnection(host, port, timeout=limit)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    told = login.header("GET", target)
    try:
        line.request("GET", target, headers={"User-Agent": "edge-agent", "Connection": "close", **told})
        return line.getresponse(), bool(told)
    except (OSError, HTTPException, ValueError) as error:
        line.close()
        raise SourceError(f"{what}: {reason(error)}") from None


def _hint(login: Login, told: bool) -> str:
    """What to do about a login that is asked for."""
    if login.user is None:
        return "; put user:password@ before the host"
    return "; the user or the password is wrong" if told else "; it asks for a kind of login that is unknown here"


def led(parts: SplitResult, place: str, what: str) -> SplitResult:
    """Where a redirection leads. SourceError for another host: a camera must not choose what else is talked to."""
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    try:
        to = urlsplit(urljoin(bare.geturl(), place))
        host, _ = to.hostname, to.port
    except ValueError:
        raise SourceError(f"{what}: leads to an address that is none") from None
    plain, safe = parts.scheme.removesuffix("s"), parts.scheme.removesuffix("s") + "s"
    if host != parts.hostname or to.scheme not in (plain, safe):
        raise SourceError(f"{what}: leads to another host; give that one's address if you trust it")
    if parts.scheme == safe and to.scheme == plain:
        raise SourceError(f"{what}: leads from {safe} to {plain}; give the {plain} address if that is meant")
    login, at, _ = parts.netloc.rpartition("@")
    return to._replace(netloc=login + at + to.netloc.rpartition("@")[2], fragment="")


def reason(error: Exception) -> str:
    """An error of a connection in words."""
    inner = getattr(error, "reason", error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); see the options ca and verify"
    if isinstance(error, ssl.SSLError):
        return f"does not speak TLS as it should ({inner})"
    return getattr(inner, "strerror", None) or str(inner) or type(error).__name__
