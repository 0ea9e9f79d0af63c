"""Debian systems in folders, for what cannot be tried on this one: other releases, and 64-bit Arm (QEMU).

``python -m tests.roots bookworm-amd64 trixie-arm64 …`` makes them in build/roots, with debootstrap, as root, and for
arm64 fetches the wheels that the agent needs there. From the mirror that apt uses here, or EDGE_AGENT_MIRROR.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

BUILT = Path(os.environ.get("EDGE_AGENT_ROOTS", ROOT / "build" / "roots"))
SUITES = {"bookworm": "3.11", "trixie": "3.13"}
"""release -> its Python"""
PACKAGES = "python3-venv,libgomp1,libportaudio2,ca-certificates,systemd,systemd-sysv,dbus"
TAGS = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34, 35, 36)]
"""what a Bookworm, with glibc 2.36, can run"""
DEAD = "1.21.0"
"""the ONNX Runtime that dies on a Raspberry Pi 4"""
BINFMT = Path("/proc/sys/fs/binfmt_misc")


def root(name: str) -> Path:
    """A system, such as bookworm-amd64; skips where it was not made, or cannot be entered."""
    if not (BUILT / name / "etc/os-release").is_file():
        pytest.skip(f"{name} is not made; python -m tests.roots {name}")
    if name.endswith("-arm64") and not (BINFMT / "qemu-aarch64").exists():
        pytest.skip("no program for 64-bit Arm runs here: apt install qemu-user-static, update-binfmts --enable")
    return BUILT / name


def wheels(suite: str) -> Path:
    """The wheels of the agent and of what it needs on arm64, and in old/ the runtime that dies; skips without."""
    folder = BUILT / f"{suite}-arm64-wheels"
    if not (folder / "old").is_dir():
        pytest.skip(f"the wheels are not there; python -m tests.roots {suite}-arm64")
    return folder


def mirror() -> str:
    """Where this machine's apt has Debian from."""
    if asked := os.environ.get("EDGE_AGENT_MIRROR"):
        return asked
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(CODENAME)", "Created-By: Packages"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        uri, origin, codename = line.split(maxsplit=2)
        if origin == "Debian" and "-" not in codename:
            return uri
    sys.exit("apt knows no mirror of Debian here; name one in EDGE_AGENT_MIRROR")


def make(name: str) -> None:
    """Make a system where it is not yet there."""
    suite, _, arch = name.partition("-")
    if suite not in SUITES or arch not in ("amd64", "arm64"):
        sys.exit(f"{name}: there are bookworm and trixie, of amd64 and arm64")
    if arch == "arm64":
        _runs_arm()
        _fetch(suite)
    if (BUILT / name).is_dir():
        return
    print(f"making {name}", flush=True)
    fresh = BUILT / f"{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    BUILT.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--arch", arch, "--variant=minbase", f"--include={PACKAGES}", suite, str(fresh), mirror()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"debootstrap failed: {(done.stdout + done.stderr)[-500:]}")
    shutil.rmtree(fresh / "var/cache/apt/archives")
    fresh.rename(BUILT / name)


def _runs_arm() -> None:
    """Have the kernel run programs for 64-bit Arm by QEMU."""
    if not (BINFMT / "status").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)])
    if not (BINFMT / "qemu-aarch64").exists():
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"])
    if not (BINFMT / "qemu-aarch64").exists():
        sys.exit("the kernel does not take QEMU for programs of 64-bit Arm (binfmt_misc)")


def _fetch(suite: str) -> None:
    """The wheels, by pip; ours is built anew."""
    folder, python = BUILT / f"{suite}-arm64-wheels", SUITES[suite]
    pip = [sys.executable, "-m", "pip"]
    for old in folder.glob("edge_agent_runtime-*"):
        old.unlink()
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], check=True)
    (ours,) = folder.glob("edge_agent_runtime-*")
    abi = f"cp{python.replace('.', '')}"
    there = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", f"--abi={abi}", "--abi=abi3"]
    there += ["--abi=none", "--platform=manylinux2014_aarch64", *TAGS]
    download = [*pip, "download", "-q", *there, "--find-links", str(folder)]
    subprocess.run([*download, "-d", str(folder), f"{ours}[speech]"], check=True)
    subprocess.run([*download, "--no-deps", "-d", str(folder / "old"), f"onnxruntime=={DEAD}"], check=True)


if __name__ == "__main__":
    for one in sys.argv[1:]:
        make(one)
