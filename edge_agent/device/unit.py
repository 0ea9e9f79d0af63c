"""What the service manager reads: the units, and a drop-in with what is so on this device alone.

Formats: systemd.unit(5), systemd.exec(5), systemd.resource-control(5), sysusers.d(5).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

UNIT, TEMPLATE = "edge-agent.service", "edge-agent@.service"
UPDATES = ("edge-agent-update.path", "edge-agent-update.service")
"""see that the agent hands over a newer version of the program, and lay it, as root"""
USER = "edge-agent"
CREDENTIALS = "/etc/edge-agent/credentials"
GROUPS = ("video", "render", "audio", "dialout")
"""who may use cameras, accelerators, sound and serial lines (Debian's names)"""
_MARK = "# of `edge-agent install`, which writes it anew as long as nobody else has changed it: "
_EARLIER = {"cee5bdae490d50e0"}
"""beginnings of the hashes of units that were given out before they had a mark"""
_STEPS = 254
"""the version of systemd from which on it knows RestartSteps"""


class Found(NamedTuple):
    """What a drop-in tells of one device."""

    groups: Sequence[str] = ()
    nodes: Sequence[str] = ()
    """device files that no class of the unit names"""
    binds: Sequence[Path] = ()
    """folders of the program that the service does not see otherwise"""
    systemd: int = 0
    """its version; 0: not known"""
    compiles: bool = False
    """an engine is installed that writes code and runs it"""


class Asked(NamedTuple):
    """What a config asks of the service manager."""

    memory_mb: int | None = None
    cpu_percent: int | None = None
    credentials: Sequence[str] = ()
    """names of files in CREDENTIALS"""
    agent: bool = False
    """newer versions of the program are taken from the fleet"""


def marked(text: str) -> str:
    """The text below a line by which `ours` knows it again."""
    return f"{_MARK}{_digest(text)}\n{text}"


def ours(text: str) -> bool:
    """Whether nobody has changed it since we wrote it."""
    head, _, rest = text.partition("\n")
    return head == f"{_MARK}{_digest(rest)}" or _digest(text) in _EARLIER


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def unit(carried: str, python: Path, user: str) -> str:
    """A unit as we carry it, for this Python and user."""
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={python}", carried, flags=re.MULTILINE)
    text = re.sub(r"^(ReadWritePaths=)/opt/edge-agent", rf"\g<1>{python.parents[2]}", text, flags=re.MULTILINE)
    return re.sub(r"^User=.*$", f"User={user}", text, flags=re.MULTILINE)


def drop_in(found: Found, asked: Asked) -> str:
    """What holds on this device alone, and for this config."""
    lines = ["[Service]"]
    if found.groups:
        lines.append(f"SupplementaryGroups={' '.join(found.groups)}")
    lines += [f"DeviceAllow={node} rw" for node in found.nodes]
    if found.binds:
        # the program lies in somebody's home: of all homes the service sees these folders, and cannot write there
        lines.append("ProtectHome=tmpfs")
        lines += [f"BindReadOnlyPaths={path}" for path in found.binds]
    if found.compiles:
        lines.append("MemoryDenyWriteExecute=no")
    if found.systemd >= _STEPS:
        lines += ["RestartSteps=8", "RestartMaxDelaySec=300"]
    if asked.memory_mb:
        lines.append(f"MemoryMax={asked.memory_mb}M")
    if asked.cpu_percent:
        lines.append(f"CPUQuota={asked.cpu_percent}%")
    lines += [f"LoadCredential={name}:{CREDENTIALS}/{name}" for name in asked.credentials]
    return "\n".join(lines) + "\n"


def sysusers(user: str, home: str) -> str:
    """The user and its group."""
    return f'u {user} - "edge-agent" {home}\n'
