"""The Debian packages: what they say of themselves, and installed, upgraded, removed and purged under a systemd.

`make test-packages` builds them and runs this; they are looked for in build/deb.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import __version__
from tests.conftest import ROOT
from tests.device.test_systemd import Machine

BUILT = Path(os.environ.get("EDGE_AGENT_PACKAGES", ROOT / "build" / "deb"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not list(BUILT.glob("*.deb")), reason="no package is built; make packages"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here"),
]
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


def package(arch: str) -> Path:
    found = BUILT / f"edge-agent_{__version__}_{arch}.deb"
    if not found.is_file():
        pytest.skip(f"{found} is not built")
    return found


@pytest.mark.parametrize("arch", MACHINES)
def test_what_a_package_says_and_holds(arch: str) -> None:
    shown = subprocess.run(["dpkg-deb", "-f", str(package(arch))], capture_output=True, text=True, check=True).stdout
    control = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line and not line.startswith(" "))
    assert (control["Package"], control["Architecture"], control["Version"]) == ("edge-agent", arch, __version__)
    assert "python3 (>= 3." in control["Depends"] and "python3 (<< 3." in control["Depends"]
    assert "python3-venv" in control["Depends"] and control["Description"]
    listed = subprocess.run(["dpkg-deb", "-c", str(package(arch))], capture_output=True, text=True, check=True).stdout
    rows = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    assert rows["/usr/lib/edge-agent/install.sh"] == ["-rwxr-xr-x", "root/root"]
    assert "/usr/share/doc/edge-agent/copyright" in rows and not [path for path in rows if path.startswith("/etc")]
    wheels = [Path(path).name for path in rows if path.endswith(".whl")]
    for name in ("edge_agent_runtime", "numpy", "onnxruntime", "ai_edge_litert", "opencv_python_headless", "msgspec"):
        assert [wheel for wheel in wheels if wheel.startswith(f"{name}-")], name
    assert all(MACHINES[arch] in wheel or wheel.endswith("-none-any.whl") for wheel in wheels), wheels


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if os.geteuid() != 0 or shutil.which("systemd-nspawn") is None:
        pytest.skip("only root boots a container, by systemd-nspawn")
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the package of this processor is tried on amd64 alone")
    made = Machine(tmp_path_factory.mktemp("machine"))
    if made("dpkg", "-s", "python3-venv", check=False).returncode:
        made.end()
        pytest.skip("python3-venv is not installed here, which the package depends on")
    yield made
    made.end()


def test_a_package_is_installed_again_removed_and_purged(machine: Machine) -> None:
    given = str(package("amd64"))
    if given.startswith("/tmp"):
        pytest.skip("the machine has a /tmp of its own; build elsewhere")
    done = machine("dpkg", "-i", given)
    assert "it runs, and has said that it is ready" in done.stdout, done.stdout + done.stderr
    assert machine.shows("ActiveState") == "active"
    assert machine("edge-agent", "--version").stdout.strip() == __version__
    machine("sh", "-c", "echo '# mine' >> /etc/edge-agent/agent.toml")
    again = machine("dpkg", "-i", given)
    assert "it runs already, and nothing changed" in again.stdout
    machine("dpkg", "-r", "edge-agent")
    assert machine("systemctl", "is-active", "edge-agent", check=False).stdout.strip() == "inactive"
    assert "# mine" in machine("cat", "/etc/edge-agent/agent.toml").stdout
    assert machine("ls", "/opt/edge-agent", check=False).returncode != 0
    machine("dpkg", "-P", "edge-agent")
    left = machine(
        "sh",
        "-c",
        "ls -d /etc/edge-agent /var/lib/edge-agent /usr/lib/edge-agent /etc/systemd/system/edge*",
        check=False,
    )
    assert left.stdout == ""
