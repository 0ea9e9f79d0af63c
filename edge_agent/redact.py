"""Takes out of a text what nobody else may read: users, passwords and tokens in addresses.

One function, at every outlet: each of our errors (errors.py), the log and what the command line says about its work
(cli/), the states and replies of the agent. Events are data and go out as they are.
"""

from __future__ import annotations

import re

HIDDEN = "***"

# names and addresses have bounds here: a text may be made to take long

# up to the last @ that a host may follow: a password may hold what should have been percent-encoded, / # ? and spaces
_USER = re.compile(r"(?<=://)(?:(?!://)[^\n])*\S@(?=[\w\[.*-])")
# an address that lacks its scheme or a slash
_BARE_USER = re.compile(
    r"(?<![^\s\"'(/])(?:[^\s\"'/:@]+:(?:(?!//)[^\s\"'@]){1,999}@(?=[\w\[.-])|[^\s\"'/:@]+@(?=[\w.-]{1,99}/))"
)
_QUERY = re.compile(r"(://[^\s\"?#]{0,999})\?[^\s\"#]*[^\s\"#:;,.)'`]")
_FRAGMENT = re.compile(r"(://[^\s\"#]{0,999})#([^\s\"]*[^\s\":;,.)'`])")
_OPTIONS = re.compile(r"[\w-]+=[^&]*(&[\w-]+=[^&]*)*")
_NAMES = (
    r"(?:pass(?:wor[dt]|wd|phrase|code)?|pwd|pw|psw|token|jwt|secret|signature|sig|sign|credentials?|session(?:[-_]?id)?"
    r"|sid|auth|key|user(?:name)?|usr|login)"
)
_SECRET = re.compile(
    rf"(?<![A-Za-z])((?:[\w.-]{{0,40}}[-_.])?{_NAMES}|[A-Za-z]{{0,40}}(?-i:Key|Token|Secret|Password|Signature))="
    r"(\*\*\*|\"[^\"]*\"|'[^']*'|[^\s&;,\"']+)",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"\b((?:Proxy-)?Authorization:\s*\w+|Bearer|Cookie:|X-[\w-]{0,40}(?:Key|Token):)\s+[^\s\"',;]+", re.IGNORECASE
)


def redact(text: str) -> str:
    """`text` without the user part, the query and the secret-looking fragment of each address in it, and without the
    value of each ``password=``, ``token=`` and the like. What is redacted once stays as it is.
    """
    if "@" in text:
        text = _USER.sub(f"{HIDDEN}@", text)
        text = _BARE_USER.sub(f"{HIDDEN}@", text)
    if "://" in text:
        text = _QUERY.sub(r"\1?…", text)
        text = _FRAGMENT.sub(lambda found: found[1] + "#" + (found[2] if _OPTIONS.fullmatch(found[2]) else "…"), text)
    if "=" in text:
        text = _SECRET.sub(rf"\1={HIDDEN}", text)
    return _HEADER.sub(rf"\1 {HIDDEN}", text) if ":" in text or " " in text else text


def source_for_people(source: str) -> str:
    """A source of the config, redacted; of a program only its name, as its arguments may hold anything."""
    scheme, colon, rest = source.partition(":")
    return f"pipe:{redact(''.join(rest.split()[:1]))} …" if scheme + colon == "pipe:" else redact(source)
