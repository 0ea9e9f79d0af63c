"""Three real nodes of deploy/cloud/nats: nothing is lost when each of them is killed, and devices keep to their own."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge_agent.config import Mqtt
from edge_agent.consumer.audit import Audit, DeviceAudit
from edge_agent.events import TextEvent
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import until
from tests.cluster.nodes import CLOUD, NATS, Cluster, cluster, nats_alone
from tests.cluster.storm import run
from tests.consumer.postgres import server
from tests.link.test_broker_config import authority
from tests.machine import Machine

pytest.importorskip("nats", reason="nats-py makes and reads the stream (pip install nats-py)")
pytest.importorskip("cryptography", reason="the extra [signed] makes the certificates")
DEVICES = [f"d{number:02}" for number in range(20)]


class Fleet:
    """Devices that write events; each has a real store and link."""

    def __init__(self, nodes: Cluster, folder: Path) -> None:
        self.boxes = {name: Outbox(folder / name, name) for name in DEVICES}
        self.links = [
            Link(replace(Mqtt(url=nodes.urls(), longest_pause_s=5.0), **nodes.as_(name)), name, box)
            for name, box in self.boxes.items()
        ]
        self.put = 0
        self._stop = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)

    def __enter__(self) -> Fleet:
        for link in self.links:
            link.start()
        until(self.connected, "all devices are connected", 60)
        self._writer.start()
        return self

    def connected(self) -> bool:
        return all(link.connected for link in self.links)

    def _write(self) -> None:
        while not self._stop.wait(0.1):
            for box in self.boxes.values():
                box.put(TextEvent(pipeline="door", at="2026-01-01T00:00:00Z", text=str(self.put)), "alert")
                self.put += 1

    def finish(self) -> None:
        """No event more, and all are acknowledged."""
        self._stop.set()
        self._writer.join()
        until(lambda: all(box.empty for box in self.boxes.values()), "all events are acknowledged", 120)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._writer.join()
        for link in self.links:
            link.stop(drain=0)
        for box in self.boxes.values():
            box.close()


def audited(nodes: Cluster, whole: int) -> list[DeviceAudit]:
    """The account of what is in the stream, once `whole` events are there or no more come."""
    given = [sys.executable, str(Path(__file__).parent / "worker.py"), str(whole), *_login(nodes, "worker")]
    done = subprocess.run(given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-1000:]
    audit = Audit()
    for line in done.stdout.splitlines():
        audit.add(line.encode())
    return audit.rows()


def _login(nodes: Cluster, name: str) -> list[str]:
    told = [part for key, value in nodes.as_(name).items() for part in (f"--{key}", value)]
    return [",".join(f"tls://127.0.0.1:{node.clients}" for node in nodes.nodes), *told]


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    with cluster(tmp_path / "cluster", [*DEVICES, "porch"]) as made:
        url, *login = _login(made, "admin")
        command = [sys.executable, str(CLOUD / "streams.py"), url.partition(",")[0], *login]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and "EVENTS is there" in done.stdout, done.stdout + done.stderr
        yield made


@pytest.mark.slow
def test_each_node_is_killed_while_devices_write_and_nothing_is_missing(nodes: Cluster, tmp_path: Path) -> None:
    with Fleet(nodes, tmp_path) as fleet:
        for node in nodes.nodes:
            sent = [link.delivery.sent for link in fleet.links]
            until(lambda: all(link.delivery.sent > n for link, n in zip(fleet.links, sent, strict=True)), "all send")  # noqa: B023
            node.stop(kill=True)
            until(fleet.connected, "all are connected, and none to the one that is gone", 60)
            assert not [link for link in fleet.links if link.broker.port == node.port]
            node.start()
            until(nodes.healthy, "it has caught up", 120)
        fleet.finish()
        rows = audited(nodes, fleet.put)
    assert sum(row.received for row in rows) == fleet.put and not any(row.missing for row in rows)
    assert {row.device for row in rows} == set(DEVICES)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root boots a system")
def test_the_unit_starts_a_node_and_ends_it_in_order(tmp_path: Path) -> None:
    (tmp_path / "machine").mkdir()
    folder = tmp_path / "etc"
    folder.mkdir()
    authority(folder, "server", "porch")
    for name in ("node.conf", "edge-nats.service"):
        shutil.copy(CLOUD / name, folder)
    users = [sys.executable, str(CLOUD / "users.py"), "porch"]
    (folder / "users.conf").write_bytes(subprocess.run(users, capture_output=True, check=True).stdout)
    routes = "".join(f"ROUTE_{name}=nats://127.0.0.1:{port}\n" for name, port in zip("ABC", (6222, 1, 2), strict=True))
    (folder / "node.env").write_text(f"NODE=a\n{routes}")
    shutil.copy(str(NATS), folder / "nats-server")
    machine = Machine(tmp_path / "machine", binds={"/given": folder})
    try:
        machine("useradd", "--system", "nats")
        machine("sh", "-c", "mkdir -p /etc/nats && cp -r /given /etc/nats/edge && chown -R nats /etc/nats")
        machine(
            "sh", "-c", "cp /given/edge-nats.service /etc/systemd/system && install /given/nats-server /usr/local/bin"
        )
        machine("systemctl", "daemon-reload")
        machine("systemctl", "start", "edge-nats")

        def said(words: str) -> bool:
            return words in machine("journalctl", "-u", "edge-nats", "-o", "cat", "--no-pager").stdout

        until(lambda: said("Listening for MQTT clients on tls://0.0.0.0:8883"), "the node listens", 60)
        assert machine("systemctl", "is-active", "edge-nats").stdout.strip() == "active"
        machine("systemctl", "reload", "edge-nats")
        until(lambda: said("Reloaded"), "it takes its configuration anew")
        machine("systemctl", "stop", "edge-nats")
        assert machine("systemctl", "show", "-p", "Result", "--value", "edge-nats").stdout.strip() == "success"
    finally:
        machine.end()


@pytest.mark.slow
def test_the_archive_takes_the_stream_over_tls_as_worker(nodes: Cluster, tmp_path: Path) -> None:
    with server() as database:
        with Fleet(nodes, tmp_path) as fleet:
            until(lambda: fleet.put > 1000, "devices write", 120)
            fleet.finish()
            url, *login = _login(nodes, "worker")
            source = f"nats://{url.replace('tls://', '')}/EVENTS"
            told = ["archive", "--from", source, *login, "--to", database.url, "--workers", "1-4"]
            leader = subprocess.Popen([sys.executable, "-m", "edge_agent", *told])
            count = "SELECT count(*) FROM event"
            until(lambda: database.ask("SELECT to_regclass('event')") != [[None]], "the tables are made", 120)
            until(lambda: database.ask(count) == [[fleet.put]], f"{fleet.put} events are there", 120)
            leader.terminate()
            assert leader.wait(120) == 0
        assert database.ask("SELECT count(DISTINCT (device, epoch, seq)) FROM event") == database.ask(count)


@pytest.mark.slow
def test_a_fleet_that_comes_back_at_once_is_closed_by_nobody(tmp_path: Path) -> None:
    with nats_alone(tmp_path) as node:
        told = asyncio.run(run(node, sessions=200, events=20, paced=True))
    assert (told["closed"], told["lost"]) == (0, 0) and told["events"] == 4000, told
