"""A real Home Assistant in a Debian of its own, that a test can start, stop, ask and command.

It is laid once, into build/homeassistant-trixie (or $EDGE_AGENT_HOMEASSISTANT): Debian 13 by debootstrap, and by pip
the newest Home Assistant that its Python 3.13 can run; DEBIAN_SUITE names another Debian. Minutes, and 1.5 GB.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_port, until
from tests.conftest import ROOT

LEAST = "2026.1"
MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
SUITE = os.environ.get("DEBIAN_SUITE", "trixie")
ROOT_OF = Path(os.environ.get("EDGE_AGENT_HOMEASSISTANT", ROOT / "build" / f"homeassistant-{SUITE}"))
SCRIPTS = Path("/usr/share/debootstrap/scripts")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = "python3,python3-venv,python3-dev,gcc,libc6-dev,ca-certificates"
LAY = f"""set -e
python3 -m venv /opt/ha
/opt/ha/bin/pip install -q --prefer-binary 'homeassistant>={LEAST}'
/opt/ha/bin/hass --version > /opt/ha/version.new
mv /opt/ha/version.new /opt/ha/version
"""
CLIENT = "http://127.0.0.1/"
"""what it calls a client, which is nobody's page here"""
USER = {"client_id": CLIENT, "name": "Test", "username": "test", "password": "not secret", "language": "en"}
OFF = {"set_client_cert": False, "set_ca_cert": "off"}
"""what a form asks for that is not needed"""
WEBSOCKET = """
import asyncio, json, sys, aiohttp
async def main(port, token, ask):
    async with aiohttp.ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{port}/api/websocket") as ws:
        await ws.receive_json()
        await ws.send_json({"type": "auth", "access_token": token})
        await ws.receive_json()
        await ws.send_json({"id": 1, **ask})
        print(json.dumps(await ws.receive_json()))
asyncio.run(main(*json.load(sys.stdin)))
"""


def laid() -> Path:
    """The root of its Debian, which is laid where it is not there. Skips where that cannot be done here."""
    if (ROOT_OF / "opt/ha/version").is_file():
        return ROOT_OF
    if os.geteuid() != 0:
        pytest.skip("chroot is for root alone")
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed (apt-get install debootstrap)")
    ROOT_OF.mkdir(parents=True, exist_ok=True)
    if not (ROOT_OF / "usr/bin/gcc").exists():
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(ROOT_OF), MIRROR]
        if not (SCRIPTS / SUITE).exists():  # younger than the program
            command.append(str(SCRIPTS / "sid"))
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        # it leaves /proc of the host mounted there, through which a careless rm would go
        subprocess.run(["umount", str(ROOT_OF / "proc")], capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"debootstrap: {made.stdout[-200:]}")
    if CERTIFICATES.is_file():
        shutil.copy(CERTIFICATES, ROOT_OF / CERTIFICATES.relative_to("/"))
    shutil.copy("/etc/resolv.conf", ROOT_OF / "etc/resolv.conf")
    done = subprocess.run(inside("sh", "-c", LAY), capture_output=True, text=True, env=environment(), check=False)
    if done.returncode:
        pytest.skip(f"pip: {done.stderr[-300:]}")
    return ROOT_OF


def inside(*command: str) -> list[str]:
    return ["chroot", str(ROOT_OF), *command]


def environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_INDEX") or key.endswith("_proxy")}
    path, cert = "/opt/ha/bin:/usr/sbin:/usr/bin:/sbin:/bin", str(CERTIFICATES)
    # it installs what an integration needs by uv, which has no authorities of its own
    return {**kept, "PATH": path, "HOME": "/root", "LANG": "C.UTF-8", "PIP_CERT": cert, "SSL_CERT_FILE": cert}


class House:
    """One Home Assistant with a config of its own."""

    def __init__(self, name: str, broker_port: int, **files: str) -> None:
        """`files`: what stands in its config folder beside, `automations_yaml` as automations.yaml."""
        self.version = (laid() / "opt/ha/version").read_text().strip()
        self.port, self.token, self.folder = free_port(), "", ROOT_OF / "config" / name
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.name = name
        for key, text in files.items():
            (self.folder / key.replace("_yaml", ".yaml")).write_text(text.replace("PORT", str(self.port)))
        self.start()
        self._onboard(broker_port)

    # ── its life ─────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> None:
        """Start it, and wait until it is there."""
        log = (self.folder / "out.log").open("ab")
        command = inside("/opt/ha/bin/hass", "-c", f"/config/{self.name}")
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment(), stdin=subprocess.DEVNULL
        )
        until(self._answers, "Home Assistant answers", 900)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "out.log").read_text()[-2000:]
        time.sleep(0.5)
        with suppress(OSError, ValueError):
            if not self.token:
                return bool(self._ask("/api/onboarding", token=False))
            return bool(self._ask("/api/config")["state"] == "RUNNING")
        return False

    def stop(self, kill: bool = False) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._process.wait(120)
            self._process = None

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, path: str, body: Any = None, form: bool = False, token: bool = True) -> Any:
        data, kind = None, "application/json"
        if form:
            data, kind = (
                "&".join(f"{key}={value}" for key, value in body.items()).encode(),
                "application/x-www-form-urlencoded",
            )
        elif body is not None:
            data = json.dumps(body).encode()
        headers = {"Content-Type": kind, **({"Authorization": f"Bearer {self.token}"} if token and self.token else {})}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] in b"[{" and text else text.decode()

    def websocket(self, **ask: Any) -> Any:
        """The result of a command that there is over its websocket alone."""
        done = subprocess.run(
            inside("/opt/ha/bin/python", "-c", WEBSOCKET), input=json.dumps([self.port, self.token, ask]),
            capture_output=True, text=True, env=environment(), check=True,
        )  # fmt: skip
        answer = json.loads(done.stdout)
        assert answer["success"], answer
        return answer["result"]

    def _onboard(self, broker_port: int) -> None:
        """As a user does: an account, and the MQTT integration with its address."""
        code = self._ask("/api/onboarding/users", USER, token=False)["auth_code"]
        grant = {"grant_type": "authorization_code", "client_id": CLIENT, "code": code}
        self.token = self._ask("/auth/token", grant, form=True)["access_token"]
        long = {"type": "auth/long_lived_access_token", "client_name": "test", "lifespan": 1}
        self.token = self.websocket(**long)
        # the other steps of its welcome set up integrations that want the internet
        flow = self._ask("/api/config/config_entries/flow", {"handler": "mqtt", "show_advanced_options": False})
        given: dict[str, Any] = {"broker": "127.0.0.1", "port": broker_port}
        for part in flow["data_schema"]:  # later releases have what is about TLS in a part of its own
            if "schema" in part:
                given[part["name"]] = {one["name"]: OFF[one["name"]] for one in part["schema"] if one["name"] in OFF}
        while flow["type"] == "form":
            flow = self._ask(f"/api/config/config_entries/flow/{flow['flow_id']}", given)
            assert not flow.get("errors"), flow
        assert flow["type"] == "create_entry", flow

    def states(self) -> dict[str, dict[str, Any]]:
        """Entity -> its state, of all."""
        return {one["entity_id"]: one for one in self._ask("/api/states")}

    def state(self, entity: str) -> str | None:
        """What an entity says; None where there is none."""
        found = self.states().get(entity)
        return None if found is None else str(found["state"])

    def registry(self) -> dict[str, dict[str, Any]]:
        """Identity -> the entity, of those that came over MQTT."""
        found = self.websocket(type="config/entity_registry/list")
        return {one["unique_id"]: one for one in found if one["platform"] == "mqtt"}

    def call(self, domain: str, service: str, entity: str, **data: Any) -> None:
        """Have something done, as a button on its page does."""
        self._ask(f"/api/services/{domain}/{service}", {"entity_id": entity, **data})

    def picture(self, entity: str) -> bytes:
        """The picture of an entity."""
        path = self.states()[entity]["attributes"]["entity_picture"]
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return bytes(answer.read())

    def complaints(self) -> list[str]:
        """What it logged of MQTT that is wrong: a message it does not take, a template that fails."""
        log = (self.folder / "out.log").read_text()
        loud = [line for line in log.splitlines() if " WARNING " in line or " ERROR " in line]
        # that the connection to the broker is lost is its own affair
        own = ("mqtt.client", "The client is not currently connected")
        return [line for line in loud if "mqtt" in line and not any(words in line for words in own)]
