"""The Debian packages: what they say of themselves, and installed, upgraded, removed and purged in Debian 12 and 13.

Those of this processor under a systemd of their own, those of arm64 by QEMU and without one. `make test-packages`
builds them and what they are tried in, and runs this; they are looked for in build/deb.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import __version__
from tests.conftest import ROOT
from tests.device.test_arm64 import BOARDS
from tests.machine import Entered, Machine
from tests.roots import root

BUILT = Path(os.environ.get("EDGE_AGENT_PACKAGES", ROOT / "build" / "deb"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not list(BUILT.glob("*.deb")), reason="no package is built; make packages"),
    pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg is not here"),
]
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
DEBIANS = {12: "bookworm", 13: "trixie"}
NEXT = "99.1"
LEFT = "ls -d /etc/edge-agent /var/lib/edge-agent /opt/edge-agent /usr/lib/edge-agent /etc/systemd/system/edge*; true"


def package(debian: int, arch: str) -> Path:
    found = BUILT / f"edge-agent_{__version__}+deb{debian}_{arch}.deb"
    if not found.is_file():
        pytest.skip(f"{found} is not built")
    return found


@pytest.mark.parametrize("arch", MACHINES)
@pytest.mark.parametrize(("debian", "python"), [(12, "3.11"), (13, "3.13")])
def test_what_a_package_says_and_holds(debian: int, python: str, arch: str) -> None:
    given = str(package(debian, arch))
    shown = subprocess.run(["dpkg-deb", "-f", given], capture_output=True, text=True, check=True).stdout
    control = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line and not line.startswith(" "))
    assert (control["Package"], control["Architecture"]) == ("edge-agent", arch)
    assert control["Version"] == f"{__version__}+deb{debian}"
    assert f"python3 (>= {python})" in control["Depends"] and "python3 (<< 3." in control["Depends"]
    assert "python3-venv" in control["Depends"] and control["Description"]
    listed = subprocess.run(["dpkg-deb", "-c", given], capture_output=True, text=True, check=True).stdout
    rows = {line.split()[5].removeprefix("."): line.split()[:2] for line in listed.splitlines()}
    assert rows["/usr/lib/edge-agent/install.sh"] == ["-rwxr-xr-x", "root/root"]
    assert "/usr/share/doc/edge-agent/copyright" in rows and not [path for path in rows if path.startswith("/etc")]
    wheels = [Path(path).name for path in rows if path.endswith(".whl")]
    for name in ("edge_agent_runtime", "numpy", "onnxruntime", "ai_edge_litert", "opencv_python_headless", "msgspec"):
        assert [wheel for wheel in wheels if wheel.startswith(f"{name}-")], name
    assert all(MACHINES[arch] in wheel or wheel.endswith("-none-any.whl") for wheel in wheels), wheels


@pytest.fixture(scope="module", params=DEBIANS)
def debian(request: pytest.FixtureRequest) -> int:
    if os.geteuid() != 0:
        pytest.skip("only root enters another system")
    return int(request.param)


@pytest.fixture(scope="module")
def later(debian: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two packages more: next.deb, and after.deb, which cannot run."""
    folder = tmp_path_factory.mktemp("later")
    as_version(package(debian, "amd64"), folder / "next.deb", NEXT, "")
    broken = "\nimport sys\n'run' in sys.argv and sys.exit('this version is broken')\n"
    as_version(package(debian, "amd64"), folder / "after.deb", "99.2", broken)
    return folder


def as_version(given: Path, made: Path, version: str, more: str) -> None:
    """The same package as another version; `more`: code at its beginning."""
    stage = made.with_suffix("")
    subprocess.run(["dpkg-deb", "-R", str(given), str(stage)], check=True)
    control = stage / "DEBIAN" / "control"
    control.write_text(control.read_text().replace(f"Version: {__version__}", f"Version: {version}"))
    (stage / "DEBIAN" / "md5sums").unlink()
    (old,) = (stage / "usr/lib/edge-agent/wheels").glob("edge_agent_runtime-*.whl")
    name = "edge_agent_runtime-{}.dist-info"
    with (
        zipfile.ZipFile(old) as read,
        zipfile.ZipFile(old.with_name(old.name.replace(__version__, version)), "w") as out,
    ):
        for entry in read.namelist():
            data = read.read(entry)
            if entry == "edge_agent/__init__.py":
                text = data.decode().replace(f'"{__version__}"', f'"{version}"')
                assert text != data.decode()
                data = (text + more).encode()
            elif entry.startswith(name.format(__version__)):
                data = data.replace(name.format(__version__).encode(), name.format(version).encode())
                data = data.replace(f"\nVersion: {__version__}\n".encode(), f"\nVersion: {version}\n".encode())
            out.writestr(entry.replace(name.format(__version__), name.format(version)), data)
    old.unlink()
    subprocess.run(["dpkg-deb", "-b", "--root-owner-group", "-Znone", str(stage), str(made)], check=True)
    shutil.rmtree(stage)


@pytest.fixture
def machine(debian: int, later: Path, tmp_path: Path) -> Iterator[Machine]:
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("systemd-nspawn is not here (apt install systemd-container)")
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the package of this processor is tried on amd64 alone")
    made = Machine(tmp_path, root(f"{DEBIANS[debian]}-amd64"), {"/packages": BUILT, "/later": later})
    yield made
    made.end()


def test_a_package_is_installed_upgraded_removed_and_purged(machine: Machine, debian: int) -> None:
    given = f"/packages/{package(debian, 'amd64').name}"
    done = machine("dpkg", "-i", given)
    assert "it runs, and has said that it is ready" in done.stdout, done.stdout + done.stderr
    assert machine.shows("ActiveState") == "active"
    assert machine("edge-agent", "--version").stdout.strip() == __version__
    assert "fix " not in machine("edge-agent", "doctor").stdout
    machine("sh", "-c", "echo '# mine' >> /etc/edge-agent/agent.toml")
    again = machine("dpkg", "-i", given)
    assert "it runs already, and nothing changed" in again.stdout

    machine("dpkg", "-i", "/later/next.deb")
    assert machine("edge-agent", "--version").stdout.strip() == NEXT and machine.shows("ActiveState") == "active"
    process = machine.shows("MainPID")
    failed = machine("dpkg", "-i", "/later/after.deb", check=False)
    assert failed.returncode != 0 and "this version is broken; what was there before runs again" in failed.stderr
    assert machine("edge-agent", "--version").stdout.strip() == NEXT and machine.shows("ActiveState") == "active"
    assert machine.shows("MainPID") != process, "it was stopped for the other one"
    machine("dpkg", "-i", "/later/next.deb")
    assert machine("dpkg", "-s", "edge-agent").stdout.count("Status: install ok installed") == 1

    machine("dpkg", "-r", "edge-agent")
    assert machine("systemctl", "is-active", "edge-agent", check=False).stdout.strip() == "inactive"
    assert "# mine" in machine("cat", "/etc/edge-agent/agent.toml").stdout
    assert machine("ls", "/opt/edge-agent", check=False).returncode != 0
    machine("dpkg", "-P", "edge-agent")
    assert machine("sh", "-c", LEFT).stdout == ""


def test_the_package_for_arm_is_laid_into_a_system_that_does_not_run(debian: int, tmp_path: Path) -> None:
    """By QEMU, as into an image that is being built: no systemd runs there."""
    given, info = package(debian, "arm64"), tmp_path / "cpuinfo"
    info.write_text(BOARDS["cortex-a72"].cpuinfo())  # without it ONNX Runtime crashes there: docs/arm64.md
    later = tmp_path / "later"
    later.mkdir()
    as_version(given, later / "next.deb", NEXT, "")
    binds = {"/packages": BUILT, "/later": later, "/proc/cpuinfo": info}
    entered = Entered(tmp_path, root(f"{DEBIANS[debian]}-arm64"), binds)
    try:
        done = entered("dpkg", "-i", f"/packages/{given.name}")
        assert "it starts with the system" in done.stdout, done.stdout
        assert entered("edge-agent", "--version").stdout.strip() == __version__
        entered("test", "-L", "/etc/systemd/system/multi-user.target.wants/edge-agent.service")
        assert "edge-agent" in entered("cat", "/etc/passwd").stdout
        tried = ["/opt/edge-agent/current/bin/python", "-c", "import onnxruntime, cv2, ai_edge_litert.interpreter"]
        entered(*tried, QEMU_CPU="cortex-a72")
        entered("sh", "-c", "echo '# mine' >> /etc/edge-agent/agent.toml")
        entered("dpkg", "-i", "/later/next.deb")
        assert entered("edge-agent", "--version").stdout.strip() == NEXT
        entered("dpkg", "-r", "edge-agent")
        assert "# mine" in entered("cat", "/etc/edge-agent/agent.toml").stdout
        assert entered("ls", "/opt/edge-agent", check=False).returncode != 0
        entered("dpkg", "-P", "edge-agent")
        assert entered("sh", "-c", LEFT).stdout == ""
    finally:
        entered.end()
