"""The broker: where it is, what lets us in, and why it does not."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl

from edge_agent.config import BrokerAddress, Mqtt, parse_brokers, secret
from edge_agent.errors import LinkError
from edge_agent.link import tls
from edge_agent.link.wire import SESSION_S, Address, Client, WebsocketConnectionError, make_client, open_connection

CONNACK_S = 10.0
"""seconds that the broker has to answer a connect"""
HASTE_S = 3.0
"""the same for each of several addresses of a host, doubled each time that none of them answers"""
FIRST_PAUSE_S = 0.4
"""seconds, first wait between two connects; each is drawn from a quarter to all of a doubling range"""


ALERT_S = 1.0
"""seconds that an alert may take, of a broker that closed before its CONNACK"""


class Broker:
    """Where it is and what it takes to be let in; makes one Client for each connection.

    Of several nodes any is taken first, so that a fleet spreads over them; after a connection that ended, the others
    come before that one.

    Secrets and certificates are read for each client anew: they may have been renewed.
    """

    def __init__(self, mqtt: Mqtt) -> None:
        """Raises LinkError or ConfigError when the address or a secret file is wrong; does not connect."""
        if mqtt.url is None:
            raise LinkError("no broker: set mqtt.url")
        self.mqtt = mqtt
        self._nodes = parse_brokers(mqtt.url)
        self.secure = self._nodes[0].secure
        self._from: BrokerAddress | None = None
        """the node that let us in last"""
        self._go_to(self._nodes[0])
        self._next: list[BrokerAddress] = []
        """nodes that are to be tried in this round"""
        self._left: list[Address] = []
        """those of the node's addresses that are to be tried in this round"""
        self._chosen: Address | None = None
        self._good: Address | None = None
        self._several = False
        self._rounds = 0
        self._secrets()

    def _go_to(self, node: BrokerAddress) -> None:
        self._node = node
        self.host, self.port, _, self.path = node
        self._tls_there: bool | None = None
        """whether the port speaks TLS; None: it was not asked since it worked last"""

    def _secrets(self) -> tuple[str | None, ssl.SSLContext | None]:
        file = self.mqtt.password_file
        return secret(file, "mqtt.password_file") if file else None, tls.context_of(self.mqtt) if self.secure else None

    def client(
        self, client_id: str = "", v5: bool = False, kind: type[Client] | None = None, kept: bool = True
    ) -> Client:
        """A client that has not connected; one with an id has its session `kept` at the broker. Raises ConfigError."""
        password, context = self._secrets()
        made = make_client(kind or Client, client_id, v5, self.path, kept)
        made.connect_timeout = self._haste if self._several else CONNACK_S
        made.address = self._chosen
        if self.mqtt.username:
            made.username_pw_set(self.mqtt.username, password)
        if context is not None:
            made.tls_set_context(context)
        return made

    def choose(self) -> None:
        """Go to the next address of the host, the one that worked last first, or else to the next node. Raises OSError
        when that has none.
        """
        if not self.more:
            by_chance = random.sample(self._nodes, len(self._nodes))
            self._next = sorted(by_chance, key=lambda node: node == self._from)
            self._rounds += 1
        if not self._left:
            self._go_to(self._next.pop(0))
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self._left = sorted(dict.fromkeys((f, at) for f, _, _, _, at in found), key=lambda at: at != self._good)
            self._several = len(self._left) > 1 or len(self._nodes) > 1
        self._chosen = self._left.pop(0)

    @property
    def _haste(self) -> float:
        return min(CONNACK_S, HASTE_S * 2.0 ** (self._rounds - 1))

    @property
    def patience(self) -> float:
        """Seconds that a connect may take. A node that was reached may wait for the others, as they choose a leader in
        place of one that is gone, and a device that leaves meanwhile begins anew.
        """
        return self._haste if self._several and len(self._nodes) == 1 else CONNACK_S

    @property
    def more(self) -> bool:
        """Whether there are addresses that were not tried since one of them worked."""
        return bool(self._left or self._next)

    def worked(self) -> None:
        """The chosen address let us in."""
        self._from = self._node
        self._next, self._left, self._rounds, self._good, self._tls_there = [], [], 0, self._chosen, None

    def connect(self, client: Client, kept: bool = True, session_s: int = SESSION_S) -> None:
        """Open the socket and send CONNECT; the CONNACK comes with a later `turn`. Raises OSError or LinkError.

        `kept`: the broker keeps the session for `session_s` seconds after the connection has ended.
        """
        try:
            open_connection(client, self.host, self.port, self.mqtt.keepalive, kept, session_s)
        except ssl.SSLError as error:
            raise LinkError(self._tls_reason(error)) from None
        except ConnectionResetError:
            if self.secure and self._answers_plain():
                raise LinkError(self._plain) from None
            raise
        except WebsocketConnectionError:
            other = f"no MQTT over WebSockets at {self.path}; check the path in mqtt.url"
            raise LinkError(self._answers_tls() or other) from None
        except (IndexError, UnicodeError) as error:  # an answer that is no HTTP
            raise LinkError(f"no WebSockets there ({error}); check mqtt.url") from None

    def why(self, client: Client) -> str | None:
        """Why a connection ended before its CONNACK, as far as that can be told; asks the port which it speaks."""
        if client.trouble is not None:
            return self._tls_reason(client.trouble)
        return self._alert() if self.secure else self._answers_tls()

    @property
    def closed(self) -> str:
        """What to say of a connection that ended before its CONNACK for no reason that is known."""
        # TLS 1.3 tells it after the handshake, and that may be lost with the connection
        hint = "; if it requires a client certificate, set mqtt.cert and mqtt.key"
        return "the broker closed the connection before it was made" + hint * (self.secure and not self.mqtt.cert)

    def _alert(self) -> str | None:
        """What the broker has against our certificate, or the lack of one. By TLS 1.3 it says so after the handshake,
        and where our CONNECT is on its way by then, the connection is reset and its word lost: so it is asked again by
        one that says nothing.
        """
        with contextlib.suppress(OSError, ValueError), self._socket() as sock:
            try:
                with tls.context_of(self.mqtt).wrap_socket(sock, server_hostname=self.host) as silent:
                    silent.settimeout(ALERT_S)
                    silent.recv(1)
            except ssl.SSLError as error:
                return tls.in_words(error.reason or "") or None
        return None

    def _answers_tls(self) -> str | None:
        """What to say of a port that speaks TLS when we do not; it is asked once."""
        if self.secure:
            return None
        if self._tls_there is None:
            self._tls_there = False
            with contextlib.suppress(OSError, ValueError), self._socket() as sock:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                context.wrap_socket(sock, server_hostname=self.host).close()
                self._tls_there = True
        mend = "mqtts" if self.path is None else "wss"
        return f"this is a TLS port: use {mend}://" if self._tls_there else None

    def _socket(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=2)

    @property
    def _plain(self) -> str:
        return f"this port does not speak TLS: use {'mqtt' if self.path is None else 'ws'}://"

    def _answers_plain(self) -> bool:
        """Whether the port answers a CONNECT (of nobody) that is not encrypted."""
        with contextlib.suppress(OSError), self._socket() as sock:
            sock.sendall(b"\x10\x0c\0\4MQTT\4\2\0\x0f\0\0")
            return sock.recv(1) == b"\x20"
        return False

    def _tls_reason(self, error: ssl.SSLError) -> str:
        return tls.reason_of(error, self.host, self.mqtt.ca, self._answers_plain, self._plain)


def said(error: Exception) -> str:
    """Why a connection could not be made or ended, one line."""
    if isinstance(error, socket.gaierror):
        return f"the broker's name has no address ({error.strerror})"
    if isinstance(error, TimeoutError):
        return "the broker does not answer"
    text = error.strerror if isinstance(error, OSError) else None
    return text or str(error) or type(error).__name__


class Pauses:
    """The waits between two connects: each doubles, up to `longest` seconds, until one of them has worked."""

    def __init__(self, longest: float) -> None:
        self.longest, self.seconds = longest, FIRST_PAUSE_S

    def restart(self) -> None:
        """It has worked: the next wait is short."""
        self.seconds = FIRST_PAUSE_S

    def next(self) -> float:
        """Seconds to wait now, with jitter, so that a fleet does not come back in one moment."""
        wait, self.seconds = min(self.longest, self.seconds), min(self.longest, self.seconds * 2)
        return wait * random.uniform(0.25, 1.0)
