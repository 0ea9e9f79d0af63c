"""The agent under the system call filter of its unit file."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.tiny import tiny_detector

DENIED = {
    "x86_64": {"mbind": 237, "set_mempolicy": 238, "fchown": 93, "chown": 92, "fchownat": 260, "setrlimit": 160,
               "setpriority": 141, "sched_setaffinity": 203, "sched_setscheduler": 144, "ioprio_set": 251},
    "aarch64": {"mbind": 235, "set_mempolicy": 237, "fchown": 55, "fchownat": 54, "setrlimit": 164,
                "setpriority": 140, "sched_setaffinity": 122, "sched_setscheduler": 119, "ioprio_set": 30},
}  # fmt: skip
"""numbers of what @resources and @chown (of @privileged) hold and a library may try (systemd-analyze syscall-filter)"""
FILTER = """
import ctypes, os, struct, sys
program = struct.pack("HBBI", 0x20, 0, 0, 0)  # seccomp(2): load the number; equal: EPERM; else allow
for number in map(int, sys.argv[1].split(",")):
    program += struct.pack("HBBI", 0x15, 0, 1, number) + struct.pack("HBBI", 0x06, 0, 0, 0x00050001)
program += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
libc.prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, from Linux 6.3 on: no memory that is written becomes code
if libc.prctl(22, 2, ctypes.byref(Fprog(len(program) // 8, program))):  # PR_SET_SECCOMP
    sys.exit(77)
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_it_works_under_the_filter_of_its_unit(tmp_path: Path, demo_pictures: Path) -> None:
    unit = (ROOT / "systemd" / "edge-agent.service").read_text()
    assert "SystemCallFilter=~@privileged @resources" in unit and "SystemCallErrorNumber=EPERM" in unit
    assert "MemoryDenyWriteExecute=yes" in unit
    model = tiny_detector(tmp_path / "model")
    config = tmp_path / "agent.toml"
    config.write_text(
        '[device]\nid = "d"\n[store]\npath = "store"\n'
        f'[[pipeline]]\nname = "p"\nsource = "files:{demo_pictures}/coffee.png"\ntasks = ["detect:{model}"]\n'
    )
    numbers = ",".join(map(str, DENIED[platform.machine()].values()))
    command = [sys.executable, "-c", FILTER, numbers, sys.executable, "-m", "edge_agent", "run", "-c", str(config)]
    environment = {**os.environ, "EDGE_AGENT_HOME": str(tmp_path / "home")}
    agent = subprocess.run(command, capture_output=True, text=True, env=environment)
    if agent.returncode == 77:
        pytest.skip("this kernel takes no seccomp filter")
    assert agent.returncode == 0 and "1 events kept" in agent.stderr, agent.stderr


def test_the_unit_bounds_what_the_agent_takes_and_lets_it_lock_itself_in() -> None:
    lines = (ROOT / "systemd" / "edge-agent.service").read_text().splitlines()
    keys = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith(("#", "SystemCallFilter")))
    # the kernel kills the child that tries a model, which is not to stop the service
    assert keys["OOMPolicy"] == "continue" and keys["MemoryMax"] and keys["TasksMax"] and keys["LimitCORE"] == "0"
    assert keys["RestartPreventExitStatus"] == "2" and keys["Type"] == "notify" and int(keys["WatchdogSec"]) >= 60
    assert keys["UMask"] == "0077" and "IPAddressDeny" not in keys
    allowed = {name for line in lines if line.startswith("SystemCallFilter=") for name in line[17:].split()}
    # not in @system-service of systemd 252
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"} <= allowed
