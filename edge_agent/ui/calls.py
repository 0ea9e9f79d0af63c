"""One call of the API: who may make it, what goes in, what comes out. A table of them becomes routes and OpenAPI."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import anyio
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edge_agent.errors import EdgeAgentError
from edge_agent.redact import redact

log = logging.getLogger("edge_agent")

ROLES = ("viewer", "operator", "admin")
"""each may do what those before it may"""
Role = Literal["", "viewer", "operator", "admin"]
MOST_BODY = 1_000_000
"""bytes of a request that is no file"""
BODY_S, LINGER_S = 20.0, 2.0
"""seconds that it has to come, and that one which is too large is passed over before it is refused"""


class Refused(Exception):
    """A request that is not answered as it asks."""

    def __init__(self, status: int, why: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


@dataclass(slots=True)
class Ask:
    """A request: what it names in its path and query, and its body as the call's type."""

    request: Request
    role: Role
    body: Any = None

    def path(self, name: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str, default: str = "") -> str:
        """An option behind the question mark."""
        return str(self.request.query_params.get(name, default))

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """One that is a whole number, brought within bounds. Refused."""
        given = self.query(name) or str(default)
        try:
            return max(low, min(high, int(given)))
        except ValueError:
            raise Refused(400, f"{name}: {given[:40]!r} is no whole number") from None


Answer: TypeAlias = "Callable[[Ask], Any] | Callable[[Ask], Awaitable[Any]]"


@dataclass(frozen=True, slots=True)
class Call:
    """A row of the API."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    role: Role
    """who may, and those above; empty: everybody that reaches the page"""
    does: str
    """one sentence"""
    answer: Answer
    """gives a value of `gives`, or a Response; runs in a thread unless it is async. Raises Refused, EdgeAgentError"""
    gives: Any = None
    """the type of what comes back as JSON; None: `media`"""
    takes: Any = None
    """the type of the body, JSON; None: none, or what `answer` reads by itself"""
    query: Mapping[str, str] = field(default_factory=dict)
    """option -> what it is for"""
    media: str = "application/json"


def json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as JSON."""
    return Response(msgspec.json.encode(value), status, {"Cache-Control": "no-store", **(headers or {})},
                    "application/json")  # fmt: skip


def wrong(status: int, why: str, headers: Mapping[str, str] | None = None) -> Response:
    """Why there is no answer, one line."""
    return json({"error": redact(" ".join(why.split()))}, status, headers)


class Stream(Response):  # type: ignore[misc]
    """An answer that goes on until the client goes away or `body` ends; `body` is closed then, at once."""

    def __init__(self, body: Callable[[], AsyncGenerator[bytes, None]], media: str) -> None:
        super().__init__(None, 200, {"Cache-Control": "no-store"}, media)
        del self.headers["content-length"]
        self._parts = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with anyio.create_task_group() as group:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                group.cancel_scope.cancel()

            group.start_soon(until_gone)
            async with aclosing(self._parts()) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            group.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def allowed(role: Role, needed: Role) -> bool:
    """Whether a role may do what another one may."""
    return not needed or (role != "" and ROLES.index(role) >= ROLES.index(needed))


async def read_body(request: Request, most: int = MOST_BODY) -> bytes:
    """The body, within bounds of size and time. Refused."""
    if int(request.headers.get("content-length") or 0) > most:
        await _pass_over(request)
        raise Refused(413, f"more than {most // 1000} kB", {"Connection": "close"})
    parts, size = list[bytes](), 0
    with anyio.move_on_after(BODY_S):
        async for part in request.stream():
            size += len(part)
            if size > most:
                await _pass_over(request)
                raise Refused(413, f"more than {most // 1000} kB", {"Connection": "close"})
            parts.append(part)
        return b"".join(parts)
    raise Refused(408, f"the request did not come within {BODY_S:.0f} s", {"Connection": "close"})


async def _pass_over(request: Request) -> None:
    """What is too large, for a while: a client that is still sending when we close does not hear why."""
    if "expect" in request.headers:  # a client that asks first sends nothing
        return
    with anyio.move_on_after(LINGER_S):
        async for _ in request.stream():
            pass


def route(call: Call, who: Callable[[Request], Role]) -> Route:
    """The route of a call; `who`: the role of the caller."""

    async def endpoint(request: Request) -> Response:
        try:
            return await _answer(call, request, who(request))
        except Refused as error:
            return wrong(error.status, str(error), error.headers)
        except (EdgeAgentError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return wrong(400, str(error) or type(error).__name__)
        except ClientDisconnect:
            return wrong(400, "the request was broken off")
        except OSError as error:
            return wrong(507, f"the disk does not take it: {error.strerror or error}")
        except Exception as error:  # a bug: the client is told, and the agent goes on
            log.exception("%s %s could not be answered", call.method, call.path)
            return wrong(500, f"not answered: {type(error).__name__}")

    return Route(call.path, endpoint, methods=[call.method], name=f"{call.method} {call.path}")


async def _answer(call: Call, request: Request, role: Role) -> Response:
    if not allowed(role, call.role):
        raise Refused(403, f"this is for the role {call.role}") if role else Refused(401, "log in first")
    ask = Ask(request, role)
    if call.takes is not None:
        ask.body = msgspec.json.decode(await read_body(request), type=call.takes)
    if inspect.iscoroutinefunction(call.answer):
        found = await call.answer(ask)
    else:
        found = await run_in_threadpool(call.answer, ask)
    return found if isinstance(found, Response) else json(found)
