"""Systems that a test enters as root: booted by systemd in a container, or another processor's by chroot and QEMU.

What lies below is never written to: an overlay in `folder` takes all that is.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LAID = """
mount -t overlay overlay -o lowerdir={lower},upperdir={over}/upper,workdir={over}/work {folder}/tree || exit 77
"""
BOOT = r"""
mount -t tmpfs tmpfs {folder}/over
mkdir {folder}/over/upper {folder}/over/work
{laid}
rm -rf {folder}/tree/etc/machine-id {folder}/tree/etc/edge-agent {folder}/tree/var/lib/edge-agent
rm -rf {folder}/tree/etc/systemd/system/edge-agent*
exec systemd-nspawn --register=no --keep-unit -q -D {folder}/tree {binds} --private-network --boot \
    systemd.unit=basic.target
"""
ENTERED = """
{laid}
cd {folder}/tree && mount --rbind /dev dev && mount -t proc proc proc && mount --rbind /sys sys || exit 77
{binds}
echo ready
exec sleep infinity
"""


class Machine:
    """A booted system: its own processes, network and files."""

    def __init__(self, folder: Path, lower: Path = Path("/"), binds: Mapping[str, Path] = {}) -> None:
        """`binds`: path in it -> folder of ours, for reading."""
        for name in ("tree", "over"):
            (folder / name).mkdir()
        laid = LAID.format(folder=folder, over=folder / "over", lower=lower)
        bound = shlex.join(f"--bind-ro={ours}:{there}" for there, ours in binds.items())
        command = ["unshare", "-m", "sh", "-c", BOOT.format(folder=folder, laid=laid, binds=bound)]
        told = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        with (folder / "boot").open("w") as out:
            self.nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=told)
        self.init = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.nspawn.poll() is None:
            children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
            self.init = int(children[0]) if children else 0
            if self.init and self("systemctl", "is-active", "-q", "basic.target", check=False).returncode == 0:
                return
            time.sleep(0.3)
        self.end()
        pytest.skip(f"systemd does not boot in a container here: {(folder / 'boot').read_text()[-300:]}")

    def __call__(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
        done = subprocess.run([*enter, "env", "-i", PATH, *command], capture_output=True, text=True)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def journal(self, *more: str) -> str:
        return self("journalctl", "-t", "edge-agent", "-o", "cat", "--no-pager", *more).stdout

    def shows(self, name: str) -> str:
        return self("systemctl", "show", "-p", name, "--value", "edge-agent").stdout.strip()

    def end(self) -> None:
        self.nspawn.terminate()
        try:
            self.nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()


class Entered:
    """A system of another processor: its files are its own, processes and network are ours."""

    def __init__(self, folder: Path, lower: Path, binds: Mapping[str, Path]) -> None:
        """`binds`: path in it, which is there or made as a folder -> what of ours stands there."""
        for name in ("tree", "over/upper", "over/work"):
            (folder / name).mkdir(parents=True)
        self.tree = folder / "tree"
        laid = LAID.format(folder=folder, over=folder / "over", lower=lower)
        bound = "\n".join(
            f"[ -e .{there} ] || mkdir -p .{there}; mount --bind {ours} .{there} || exit 77"
            for there, ours in binds.items()
        )
        command = ["unshare", "-m", "sh", "-c", ENTERED.format(folder=folder, laid=laid, binds=bound)]
        self._holds = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._holds.stdout is not None
        if self._holds.stdout.readline() != "ready\n":
            self.end()
            pytest.skip("no file systems can be laid over each other here")

    @property
    def files(self) -> Path:
        """Its root, as we see it."""
        return Path(f"/proc/{self._holds.pid}/root{self.tree}")

    def __call__(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self._command(command, env), capture_output=True, text=True)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def _command(self, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
        enter = ["nsenter", "-t", str(self._holds.pid), "-m", "chroot", str(self.tree)]
        return [*enter, "env", "-i", PATH, "HOME=/root", *(f"{name}={value}" for name, value in env.items()), *command]

    def end(self) -> None:
        self._holds.kill()
        self._holds.wait()
