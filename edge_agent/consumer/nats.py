"""Events out of a JetStream stream, by a durable consumer that workers share. The only file that imports nats."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from edge_agent.consumer.rows import Message
from edge_agent.errors import LinkError, UsageError

STREAM, CONSUMER = "EVENTS", "archive"
"""as deploy/cloud/nats has it, and the name that workers share"""
ACK_WAIT_S, MOST_OUT = 60, 50_000
"""seconds until what was not acknowledged goes to another worker; messages that may be out at once"""
T = TypeVar("T")


class Login(NamedTuple):
    """What lets us in."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    credentials: str | None = None
    """a .creds file"""


class Nats:
    """The feed ``nats://host[:4222][/STREAM][?consumer=archive]``. Of one thread, on an event loop of its own."""

    def __init__(self, url: str, login: Login) -> None:
        """UsageError for an address that cannot be, or where nats-py is missing; does not connect."""
        try:
            import nats
            import nats.errors
        except ImportError:
            raise UsageError('reading from NATS needs nats-py: pip install "edge-agent-runtime[cloud]"') from None
        self._nats, self._login = nats, login
        self._servers, self.stream, self.consumer = parsed(url)
        self.where = f"{url.partition('?')[0]}"
        self._loop = asyncio.new_event_loop()
        self._client: Any = None
        self._subscription: Any = None

    def _run(self, do: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(do)

    def take(self, most: int, seconds: float) -> list[Message]:
        """At most so many messages; none where none came in so many seconds. OSError while the servers are away,
        LinkError where they refuse us.
        """
        try:
            return self._tried(self._take(most, seconds))
        except self._nats.errors.TimeoutError:
            return []

    def _tried(self, do: Coroutine[Any, Any, T]) -> T:
        """What it gives. TimeoutError of NATS, OSError, LinkError."""
        try:
            return self._run(do)
        except self._nats.errors.TimeoutError:
            raise
        except self._nats.js.errors.NotFoundError:
            self._subscription = None
            mend = "make it as deploy/cloud/nats/README.md says, or name another: nats://host/STREAM"
            raise LinkError(f"{self.where}: there is no stream {self.stream}; {mend}") from None
        except (self._nats.errors.Error, OSError, asyncio.TimeoutError) as error:
            self._subscription = None
            if any(word in str(error).lower() for word in ("authorization", "permissions")):
                raise LinkError(f"{self.where}: {error}") from None
            raise OSError(f"{self.where}: {error or type(error).__name__}") from None

    async def _connected(self) -> Any:
        """The client."""
        if self._client is None:
            self._client = await self._nats.connect(
                self._servers,
                tls=_context(self._login),
                user_credentials=self._login.credentials,
                max_reconnect_attempts=-1,
                connect_timeout=10,
                name="edge-agent archive",
                error_cb=_quiet,
            )
        return self._client

    async def _take(self, most: int, seconds: float) -> list[Message]:
        await self._connected()
        if self._subscription is None:
            await self._subscribe()
        found = await self._subscription.fetch(most, timeout=seconds)
        return [Message(one.data, one.metadata.sequence.stream, one) for one in found]

    async def _subscribe(self) -> None:
        api = self._nats.js.api
        settings = api.ConsumerConfig(
            name=self.consumer,
            durable_name=self.consumer,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=MOST_OUT,
        )
        stream = self._client.jetstream()
        try:
            await stream.consumer_info(self.stream, self.consumer)
        except self._nats.js.errors.NotFoundError:
            await stream.add_consumer(self.stream, settings)
        self._subscription = await stream.pull_subscribe_bind(self.consumer, stream=self.stream)

    def done(self, messages: Sequence[Message]) -> None:
        """Acknowledge them. What the server does not hear comes again."""
        self._run(self._done(messages))

    async def _done(self, messages: Sequence[Message]) -> None:
        try:
            for one in messages:
                await one.handle.ack()
            await self._client.flush(10)
        except (self._nats.errors.Error, OSError, asyncio.TimeoutError):
            self._subscription = None

    def pending(self) -> int:
        """Messages that no worker has yet. OSError, LinkError."""
        try:
            return self._tried(self._pending())
        except self._nats.errors.TimeoutError:
            raise OSError(f"{self.where}: no answer") from None

    async def _pending(self) -> int:
        client = await self._connected()
        if self._subscription is None:
            await self._subscribe()
        return int((await client.jetstream().consumer_info(self.stream, self.consumer)).num_pending or 0)

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._run(self._client.close())
        self._loop.close()


async def _quiet(error: Exception) -> None:
    """What the client would log of each failed reconnect; a failed fetch tells it once."""


def parsed(url: str) -> tuple[list[str], str, str]:
    """Servers, stream and consumer of an address; ``nats://a,b,c/STREAM`` names several servers. UsageError."""
    try:
        parts = urlsplit(url)
        more = dict(parse_qsl(parts.query))
    except ValueError as error:
        raise UsageError(f"--from: {error}; write nats://host[:4222]/STREAM") from None
    stream = parts.path.strip("/") or STREAM
    if "@" in parts.netloc:
        raise UsageError("--from: no user or password in the address; --credentials FILE, or --cert and --key")
    if parts.scheme not in ("nats", "tls") or not parts.netloc or "/" in stream or set(more) - {"consumer"}:
        raise UsageError(f"--from {url}: write nats://host[:4222][/{STREAM}][?consumer={CONSUMER}]")
    return [f"{parts.scheme}://{host}" for host in parts.netloc.split(",")], stream, more.get("consumer", CONSUMER)


def _context(login: Login) -> ssl.SSLContext | None:
    if not login.ca and not login.cert:
        return None
    try:
        context = ssl.create_default_context(cafile=login.ca)
        if login.cert:
            context.load_cert_chain(Path(login.cert), login.key)
    except OSError as error:
        raise UsageError(f"--ca, --cert or --key: {error.strerror or error}") from None
    return context
