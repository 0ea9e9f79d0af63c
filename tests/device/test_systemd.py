"""The service under systemd itself, booted in a container over a copy of this very system that nothing is written to.

It needs root, systemd-nspawn (apt install systemd-container) and an overlay file system, and skips without.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.fleet.pack import pack
from edge_agent.fleet.repository import Repository
from tests.broker import until
from tests.conftest import ROOT
from tests.fleet.made import publish, repository
from tests.machine import Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root boots a container"),
    pytest.mark.skipif(shutil.which("systemd-nspawn") is None, reason="systemd-nspawn is not here"),
    pytest.mark.skipif(ROOT.is_relative_to("/tmp"), reason="a program in /tmp cannot be a service"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("machine"))
    yield made
    made.end()


AGENT = [sys.executable, "-m", "edge_agent"]
CONFIG = "/etc/edge-agent/agent.toml"


def write(machine: Machine, text: str) -> None:
    machine("sh", "-c", 'printf %s "$1" > ' + CONFIG, "sh", text)


def test_the_service_from_its_installation_to_its_end(machine: Machine) -> None:
    done = machine(*AGENT, "install")
    assert "it runs, and has said that it is ready" in done.stdout and "next:" in done.stdout
    assert machine.shows("User") == "edge-agent" and machine.shows("ActiveState") == "active"

    # the model was tried in its sandbox, inside of the unit's
    assert "is tried on carried samples" in machine.journal() and "could not" not in machine.journal()
    machine("sh", "-c", "echo switch the light on >> /var/lib/edge-agent/words.txt")
    until(lambda: "words: stream is ok" in machine.journal(), "it reads")
    assert machine.journal("-p", "warning").count("stream is reconnecting") == 1, "with its priority"

    # a reload takes another config, and keeps the process
    process = machine.shows("MainPID")
    good = machine("cat", CONFIG).stdout
    write(machine, good + '[[pipeline]]\nname = "more"\nsource = "lines:/var/lib/edge-agent/more.txt"\n')
    machine("systemctl", "reload", "edge-agent")
    until(lambda: "more: begins" in machine.journal(), "another pipeline")
    write(machine, good + "[what]\n")
    machine("systemctl", "reload", "edge-agent")
    until(lambda: "is refused, the one before goes on" in machine.journal("-p", "err"), "a wrong one")
    assert machine.shows("MainPID") == process

    # models go into the service's home, owned by its user
    model = str(ROOT / "models" / "edge-yolo")
    added = machine(*AGENT, "models", "add", model, "--name", "mine")
    assert "into /var/lib/edge-agent, the service's" in added.stderr
    owners = machine("sh", "-c", "find /var/lib/edge-agent ! -user edge-agent ! -type l ! -name words.txt").stdout
    assert owners == "", owners

    # at the start a wrong config ends it, for good
    machine("systemctl", "restart", "edge-agent", check=False)
    until(lambda: machine.shows("ActiveState") == "failed", "it is not tried again")
    assert machine.shows("ExecMainStatus") == "2"
    write(machine, good)

    # what holds on this device comes from the config
    write(machine, good + '[[pipeline]]\nname = "x"\nsource = "lines:/var/lib/edge-agent/x"\n')
    limited = machine("cat", CONFIG).stdout.replace("# memory_mb = 400", "memory_mb = 500")
    write(machine, limited.replace("# cpu_percent", "cpu_percent"))
    again = machine(*AGENT, "install")
    assert "kept " + CONFIG in again.stdout
    assert (machine.shows("MemoryMax"), machine.shows("CPUQuotaPerSecUSec")) == (str(500 << 20), "1.500000s")
    once = machine(*AGENT, "install")
    assert "it runs already, and nothing changed" in once.stdout

    began = time.monotonic()
    machine("systemctl", "stop", "edge-agent")
    print(f"stopped within {time.monotonic() - began:.1f} s")
    assert machine.shows("Result") == "success", machine.journal()

    gone = machine(*AGENT, "uninstall")
    assert "kept /var/lib/edge-agent" in gone.stdout
    left = machine("sh", "-c", "ls /etc/systemd/system | grep edge-agent; id edge-agent", check=False)
    assert left.stdout == "" and left.returncode != 0
    assert machine("sh", "-c", "find /var/lib/edge-agent /etc/edge-agent ! -user root").stdout == ""


def test_a_version_that_does_not_start_is_taken_back(machine: Machine) -> None:
    """Two environments beside each other, as deploy/install.sh lays them; the second cannot run."""
    packages = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    machine("sh", "-c", "mkdir -p /opt/agent && touch /opt/agent/.edge-agent-versions")
    for name in ("1", "2"):
        machine(f"{sys.base_prefix}/bin/python3", "-m", "venv", "--without-pip", f"/opt/agent/{name}")
        line = f"printf '{packages}\\n{ROOT}\\n' > $(echo /opt/agent/{name}/lib/*/site-packages)/x.pth"
        machine("sh", "-c", line)
    machine("/opt/agent/1/bin/python", "-I", "-m", "edge_agent", "install")
    assert machine("readlink", "/opt/agent/current").stdout == "1\n" and machine.shows("ActiveState") == "active"
    broken = "import sys; 'run' in sys.argv and sys.exit('this version is broken')"
    machine("sh", "-c", 'echo "$1" >> $(echo /opt/agent/2/lib/*/site-packages)/x.pth', "sh", broken)
    failed = machine("/opt/agent/2/bin/python", "-I", "-m", "edge_agent", "install", check=False)
    assert failed.returncode == 1 and "this version is broken; what was there before runs again" in failed.stderr
    assert machine("readlink", "/opt/agent/current").stdout == "1\n" and machine.shows("ActiveState") == "active"
    machine("/opt/agent/1/bin/python", "-I", "-m", "edge_agent", "uninstall")
    assert machine("ls", "/opt/agent", check=False).returncode != 0


def test_what_hangs_is_started_anew_by_the_watchdog(machine: Machine) -> None:
    machine(*AGENT, "install")
    folder = "/etc/systemd/system/edge-agent.service.d"
    machine(
        "sh", "-c", f"printf '[Service]\\nWatchdogSec=4\\nEnvironment=PYTHONPATH=/opt/strange\\n' > {folder}/test.conf"
    )
    unit = "/etc/systemd/system/edge-agent.service"
    machine("sh", "-c", f"sed -i 's/ -I -m / -m /' {unit}; mkdir -p /opt/strange/strange")
    source = (
        "import time\nfrom edge_agent.sources import Opened\nfrom edge_agent.types import StreamState, Text\n"
        "def source(uri, here):\n    def run(stop):\n        yield StreamState('ok')\n        time.sleep(1000)\n"
        "    return Opened(run=run, yields=Text, live=False)\n"
    )
    machine("sh", "-c", 'printf %s "$1" > /opt/strange/strange/it.py', "sh", source)
    write(machine, '[[pipeline]]\nname = "p"\nsource = "strange.it:source:x"\n')
    machine("systemctl", "daemon-reload")
    machine("systemctl", "restart", "edge-agent")
    until(lambda: int(machine.shows("NRestarts")) >= 1, "it is started anew", 60)
    assert "pipeline p hangs: its source has not come back from a call" in machine.journal()
    machine("systemctl", "stop", "edge-agent")


def wheel(place: Path, version: str, line: str = "") -> Path:
    """This very program as a wheel of another version, which finds the packages it needs where this one has them;
    `line`: what Python runs when it starts.
    """
    name, packages = f"edge_agent_runtime-{version}", next(path for path in sys.path if path.endswith("site-packages"))
    place.mkdir(exist_ok=True)
    made = place / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as file:
        for folder, to in (
            ("edge_agent", ""),
            *((one, "edge_agent/carried/") for one in ("models", "deploy", "systemd")),
        ):
            for path in sorted((ROOT / folder).rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts and path.name != "__init__.py":
                    file.write(path, f"{to}{path.relative_to(ROOT)}")
        for path in sorted((ROOT / "edge_agent").rglob("__init__.py")):
            text = path.read_text().replace('__version__ = "0.1.0"', f'__version__ = "{version}"')
            file.writestr(str(path.relative_to(ROOT)), text)
        file.writestr("of-the-test.pth", f"{packages}\n{line}\n")
        info = f"{name}.dist-info"
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: edge-agent-runtime\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return made


def test_the_agent_takes_a_newer_version_of_itself(machine: Machine, tmp_path: Path) -> None:
    """Signed, handed over by the agent, verified and laid by root's unit; what does not run is taken back."""
    pytest.importorskip("tuf", reason="the extra [update] is not installed")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    machine("sh", "-c", "mkdir -p /opt/agent /srv/fleet && touch /opt/agent/.edge-agent-versions")
    machine(f"{sys.base_prefix}/bin/python3", "-m", "venv", "--without-pip", "/opt/agent/1")
    machine("sh", "-c", f"printf '{packages}\\n{ROOT}\\n' > $(echo /opt/agent/1/lib/*/site-packages)/x.pth")
    inside = Path(f"/proc/{machine.init}/root")
    repo = repository(inside / "srv/fleet/repo", tmp_path / "keys")
    python = "/opt/agent/current/bin/python"
    machine("/opt/agent/1/bin/python", "-I", "-m", "edge_agent", "install")
    enrol = ("enroll", "--repository", "/srv/fleet/repo", "--root", "/srv/fleet/repo/metadata/1.root.json", "--write")
    machine(python, "-I", "-m", "edge_agent", *enrol)
    text = machine("cat", CONFIG).stdout
    assert "[update]" in text, text

    def offered(version: str, line: str = "") -> None:
        where = tmp_path / version
        wheel(where, version, line)
        publish(
            Repository(repo.place, repo.roles.keys),
            pack(str(where), "edge-agent", lambda path: pytest.fail()),
            "edge-agent",
        )

    def took(target: str = "agent/edge-agent") -> dict[str, str]:
        asked = machine(python, "-I", "-m", "edge_agent", "update", target, "--json", check=False)
        assert asked.stdout, asked.stderr
        told: dict[str, str] = json.loads(asked.stdout)[0]
        if told["state"] != "IN_PROGRESS":
            return told

        def last() -> dict[str, str]:
            done = machine(python, "-I", "-m", "edge_agent", "update", "--list", "--json", check=False)
            known: dict[str, str] = (json.loads(done.stdout or "{}").get("agent/edge-agent") or {}).get("last") or {}
            return known

        until(lambda: last().get("state") in ("SUCCEEDED", "FAILED", "REJECTED"), "it is over", 300)
        return last()

    offered("9.0")
    machine("systemctl", "restart", "edge-agent")
    until(lambda: "names no such agent" in took()["reason"], "the agent says what is missing")
    more = '[update]\nagent = "edge-agent"\nlook = false\nhealth = "12s"'
    write(machine, text.replace("[update]", more, 1))
    machine("systemctl", "restart", "edge-agent")
    until(lambda: "type: sudo edge-agent install" in took()["reason"], "it says what to type")
    machine(python, "-I", "-m", "edge_agent", "install")
    assert machine("systemctl", "is-active", "edge-agent-update.path").stdout == "active\n"

    done = took()
    assert (done["state"], done["version"]) == ("SUCCEEDED", "9.0"), (done, update_log(machine))
    assert machine("readlink", "/opt/agent/current").stdout == "9.0\n"
    process = machine.shows("MainPID")
    offered("9.1", "import sys; 'run' in sys.argv and sys.exit('this version is broken')")
    done = took()
    assert done["state"] == "FAILED" and "this version is broken" in done["reason"], (done, update_log(machine))
    assert machine("readlink", "/opt/agent/current").stdout == "9.0\n" and machine.shows("MainPID") != process
    # it comes up, and ends while it is watched
    late = "import os, sys, threading; 'run' in sys.argv and threading.Timer(15, os._exit, (3,)).start()"
    offered("9.2", late)
    done = took()
    assert done["state"] == "FAILED" and "ended within 12 s" in done["reason"], (done, update_log(machine))
    assert machine("readlink", "/opt/agent/current").stdout == "9.0\n" and machine.shows("ActiveState") == "active"
    machine(python, "-I", "-m", "edge_agent", "uninstall")
    left = machine("sh", "-c", "ls /etc/systemd/system | grep edge-agent", check=False)
    assert left.stdout == "", left.stdout


def update_log(machine: Machine) -> str:
    return machine("journalctl", "-u", "edge-agent-update", "-o", "cat", "--no-pager").stdout + machine.journal()
