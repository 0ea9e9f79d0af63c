"""The HTTP server of the page: one thread beside the agent's, with bounds on clients: which, how many, and how slow.

Each room of ROOMS gives calls (ui/calls.py); they become routes, and the description of the API (ui/openapi.py).
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from edge_agent import config
from edge_agent.errors import ConfigError
from edge_agent.ui import files
from edge_agent.ui.access import COOKIE, Access, user_of
from edge_agent.ui.calls import Call, Refused, Role, route, wrong
from edge_agent.ui.device import Agent
from edge_agent.ui.guard import Guard

if TYPE_CHECKING:
    from edge_agent.serving.models import Models

log = logging.getLogger("edge_agent")

FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
IN_FLIGHT = 256 * 1024
"""bytes that the kernel holds for a client at most: what waits there is old when it comes, such as pictures"""
ROOMS = (
    "session",
    "state",
    "events",
    "live",
    "media",
    "words",
    "inference",
    "health",
    "fleet",
    "models",
    "settings",
    "training",
    "metrics",
    "openapi",
)
"""files of this room that have `calls(page) -> list[Call]`"""
WITHOUT_AGENT = ("session", "inference", "metrics", "openapi")
"""those of them that are there where models are served without an agent"""
MOST_CONNECTIONS = 256
"""at once, of all viewers; more are told to come again"""
HEAD_S, IDLE_S, SEND_S, STOP_S, AGAIN_S = 10.0, 15, 20.0, 2.0, 10.0
"""seconds that a request's head has to come, that a connection waits for the next one, that a client may take nothing
of what is sent, that a stop takes, and between two tries to listen"""


class Page:
    """What is served of one agent after the other. Made and stopped on one thread."""

    def __init__(
        self, settings: config.Page, place: Path, config_file: Path | None = None, own: Models | None = None
    ) -> None:
        """`place`: a folder of the store that is ours; `config_file`: what the page may change; `own`: models that are
        served where there is no agent, and nothing else is. Raises ConfigError.
        """
        self.settings, self.place, self.config_file, self._own = settings, place, config_file, own
        try:
            self.access = Access(settings, place)
        except OSError as error:
            raise ConfigError(f"page: {place} cannot be written ({error.strerror}); see store.path") from None
        self.agent: Agent | None = None
        self.shown: list[Callable[[Agent], None]] = []
        """told of each agent from when it is served; calls of a room add to it"""
        self.state: Callable[[], object]
        """how the device is now; Refused while there is none. Of the room `state`"""
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stopping = threading.Event()
        self.inference: Any = None
        """what answers requests to models (ui/inference.py:Server)"""
        self.closing: list[Callable[[], object]] = []
        """called when it stops"""
        self.calls: list[Call] = []
        for room in ROOMS if own is None else WITHOUT_AGENT:
            self.calls += importlib.import_module(f"edge_agent.ui.{room}").calls(self)
        self._server: uvicorn.Server | None = None
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self.port = 0
        """that it listens on; 0 until it does"""

    def start(self) -> None:
        """Listen, and return; where the port is taken, it is tried again and again."""
        self._thread.start()
        self._listening.wait(STOP_S)

    def show(self, agent: Agent) -> None:
        """Serve this agent from now on."""
        self.agent = agent
        for tell in self.shown:
            tell(agent)

    def stop(self) -> None:
        """End all answers, and the thread."""
        self.stopping.set()
        if self._server is not None:
            self._server.should_exit = True
        self._thread.join(2 * STOP_S)
        for close in self.closing:
            close()

    @property
    def now(self) -> Agent:
        """The agent that is served. Refused while there is none."""
        if self.agent is None:
            raise Refused(503, "the agent is starting", {"Retry-After": "1"})
        return self.agent

    @property
    def models(self) -> Models:
        """The models that serve. Refused while there is no agent."""
        return self._own or self.now.swap.models

    @property
    def address(self) -> str:
        """What a browser is given."""
        host = self.settings.at.host
        host = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"http{'s' * (self.settings.cert is not None)}://{host}:{self.port or self.settings.at.port}/"

    @property
    def about(self) -> str:
        """Where it is, and who may do what there, one line."""
        if not self.access.has_password:
            return f"{self.address} (of this machine: the user that runs the agent may change it, others may look)"
        open_ = "" if self.settings.is_local or self.settings.cert else "; not encrypted: give it cert and key"
        return f"{self.address} (others reach it, with the password{open_})" if not self.settings.is_local else (
            f"{self.address} (with the password)"
        )  # fmt: skip

    def who(self, request: Request) -> Role:
        """The role of the caller."""
        given = request.headers.get("authorization", ""), request.cookies.get(COOKIE, "")
        return self.access.who(*given, request.scope.get("state", {}).get("user"))

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        said = False
        while not self.stopping.is_set():
            try:
                listening = _listen(self.settings.at)
            except OSError as error:
                if not said:
                    log.error("page: %s: %s; it is tried again, and all else works", self.settings.listen, _why(error))
                said = True
                self._listening.set()
                self.stopping.wait(AGAIN_S)
                continue
            self.port = int(listening.getsockname()[1])
            try:
                self._serve(listening)
            except Exception:
                log.exception("page: the server failed; it begins anew")
                self.stopping.wait(AGAIN_S)
            finally:
                listening.close()

    def _serve(self, listening: socket.socket) -> None:
        tls = {"ssl_certfile": self.settings.cert, "ssl_keyfile": self.settings.key} if self.settings.cert else {}
        made: Any = uvicorn.Config(
            self.app(),
            http=_Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=1,
            **tls,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = uvicorn.Server(made)

        async def serve() -> None:
            assert self._server is not None
            self.loop = asyncio.get_running_loop()
            self._listening.set()
            await self._server.serve(sockets=[listening])

        try:
            asyncio.run(serve())
        finally:
            self.loop = None

    def app(self) -> ASGIApp:
        """What answers, for any ASGI server."""
        routes: list[Route] = [*([] if self._own else files.routes()), *(route(call, self.who) for call in self.calls)]
        return Guard(Router(routes, default=_nothing), self.settings)


class _Protocol(H11Protocol):  # type: ignore[misc]
    """HTTP/1.1, for which neither a request that never ends nor an answer that nobody takes is kept open."""

    app_state: dict[str, Any]
    _full = False
    _head: asyncio.TimerHandle | None = None
    _stuck: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self._full = True
            self.connections.discard(self)
        wire: socket.socket = transport.get_extra_info("socket")
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, IN_FLIGHT)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SEND_S * 1000))
        if self.client is not None and self.server is not None:
            self.app_state = {**self.app_state, "user": user_of(self.client, self.server)}
        self._expect()

    def data_received(self, data: bytes) -> None:
        if self._full:
            self.transport.write(FULL)
            self.transport.close()
            return
        if self._head is None and self._waits:
            self._expect()
        super().data_received(data)
        if not self._waits and self._head is not None:
            self._head.cancel()
            self._head = None

    @property
    def _waits(self) -> bool:
        """Whether the head of a request is still to come."""
        return self.cycle is None or self.cycle.response_complete

    def _expect(self) -> None:
        self._head = self.loop.call_later(HEAD_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.call_later(SEND_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._stuck):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    response: Response = wrong(404, "there is nothing of this name; /api/v1/openapi.json says what there is")
    await response(scope, receive, send)


def _listen(at: config.page.Listen) -> socket.socket:
    """A socket that listens there. OSError."""
    family, _, _, _, address = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)[0]
    # asyncio turns Nagle's waiting off, 40 ms for each short answer, only where the protocol is named
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _why(error: OSError) -> str:
    import errno

    return "another program listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
