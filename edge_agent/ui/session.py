"""Who is here: logging in and out, and tokens for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from starlette.responses import Response

from edge_agent import __version__
from edge_agent.ui.access import COOKIE, SESSION_S
from edge_agent.ui.calls import Ask, Call, Role, json

if TYPE_CHECKING:
    from edge_agent.ui.server import Page

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")]


class Session(msgspec.Struct, frozen=True):
    """Who asks."""

    role: Annotated[Role, msgspec.Meta(description="empty: has to log in")]
    password: Annotated[bool, msgspec.Meta(description="whether there is one")]
    version: str
    device: str


class Login(msgspec.Struct, frozen=True):
    """A password."""

    password: Annotated[str, msgspec.Meta(max_length=1000)]


class Wanted(msgspec.Struct, frozen=True):
    """A token that is to be made."""

    name: _Name
    role: Literal["viewer", "operator", "admin"] = "viewer"


class Made(msgspec.Struct, frozen=True):
    """A token, told this once."""

    name: str
    token: str


class TokenRow(msgspec.Struct, frozen=True):
    """A token, without what it is."""

    name: str
    role: Role
    made: Annotated[float, msgspec.Meta(description="seconds since 1970 UTC")]


class Done(msgspec.Struct, frozen=True):
    """What was done, in words."""

    done: str


def calls(page: Page) -> list[Call]:
    """Those of sessions and tokens."""

    def session(ask: Ask) -> Session:
        device = page.agent.config.device.id if page.agent and ask.role else ""
        return Session(ask.role, page.access.has_password, __version__ if ask.role else "", device)

    def log_in(ask: Ask) -> Response:
        host = ask.request.client.host if ask.request.client else ""
        role, cookie = page.access.log_in(ask.body.password, host)
        answer = json(Done(f"logged in as {role}"))
        secure = ask.request.url.scheme == "https"
        answer.set_cookie(COOKIE, cookie, max_age=SESSION_S, httponly=True, samesite="strict", secure=secure)
        return answer

    def log_out(ask: Ask) -> Response:
        answer = json(Done("logged out"))
        answer.delete_cookie(COOKIE)
        return answer

    def tokens(ask: Ask) -> list[TokenRow]:
        return [TokenRow(one.name, one.role, one.made) for one in page.access.tokens]

    def make(ask: Ask) -> Made:
        return Made(ask.body.name, page.access.make_token(ask.body.name, ask.body.role))

    def drop(ask: Ask) -> Done:
        page.access.drop_token(ask.path("name"))
        return Done("it counts no more")

    return [
        Call("GET", "/api/v1/session", "", "Who asks, and whether a password is needed.", session, Session),
        Call("POST", "/api/v1/session", "", "Log in: the answer sets a cookie.", log_in, Done, Login),
        Call("DELETE", "/api/v1/session", "", "Log out.", log_out, Done),
        Call("GET", "/api/v1/tokens", "admin", "The tokens of programs.", tokens, list[TokenRow]),
        Call("POST", "/api/v1/tokens", "admin", "Make a token; it is told this once.", make, Made, Wanted),
        Call("DELETE", "/api/v1/tokens/{name}", "admin", "Take a token away.", drop, Done),
    ]
