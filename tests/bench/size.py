"""Aim 5: what `pip install` of this project without extras puts on the disk, pip itself left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from tests.bench.measure import Row
from tests.bench.setup import Place
from tests.bench.start import PICTURE
from tests.conftest import ROOT

TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel")
"""of the environment, not of what was asked for"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    folder = place.folder / "installed"
    for options, how in (((), "`pip install .`"), (("--no-compile",), "`pip install --no-compile .`, and used")):
        shutil.rmtree(folder, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(folder))
        _run(str(folder / "bin" / "python"), "-m", "pip", "install", "-q", *options, str(ROOT))
        if options:
            _use(folder / "bin" / "edge-agent", place)
        yield _row(folder, how)
    shutil.rmtree(folder)


def _run(*command: str, environ: dict[str, str] | None = None) -> None:
    """EdgeAgentError with the last thing that it said where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=environ)
    if done.returncode:
        raise EdgeAgentError((done.stderr.strip().splitlines() or [f"{command[0]} said nothing"])[-1])


def _use(agent: Path, place: Place) -> None:
    """What is compiled by being used: a detector, an encoder, a look at everything the agent needs."""
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ["EDGE_AGENT_HOME"] = str(place.folder / "installed" / "home")
    for verb in (("detect", "edge-yolo", PICTURE), ("understand", "edge-bert", "a cup of tea"), ("doctor",)):
        _run(str(agent), *verb, environ=environ)


def _row(folder: Path, how: str) -> Row:
    (packages,) = folder.glob("lib/python*/site-packages")
    sizes = {
        part.name: _bytes(part)
        for part in packages.iterdir()
        if not any(part.name == tool or part.name.startswith(f"{tool}-") for tool in TOOLS)
    }
    compiled = sum(p.stat().st_size for p in packages.rglob("*.pyc") if p.relative_to(packages).parts[0] in sizes)
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:7]
    total = sum(sizes.values())
    return Row(
        5,
        f"installed without extras: {how}",
        round(total / 1e6, 1),
        unit="MB",
        target=400,
        ours=f"edge_agent {sizes.get('edge_agent', 0) / 1e6:.0f} MB",
        note=f"{total / 2**20:.0f} MiB, as `du -m` counts: "
        + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in biggest)
        + f"; {compiled / 1e6:.0f} of it bytecode",
    )


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
