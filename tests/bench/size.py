"""Aim 5: what `pip install` of this project without extras puts on the disk, pip itself left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from tests.bench.measure import Row
from tests.bench.setup import Place
from tests.conftest import ROOT

TOOLS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "wheel")
"""of the environment, not of what was asked for"""


def rows(place: Place, quick: bool) -> Iterator[Row]:
    folder = place.folder / "installed"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    done = subprocess.run([str(python), "-m", "pip", "install", "-q", str(ROOT)], capture_output=True, text=True)
    if done.returncode:
        raise EdgeAgentError((done.stderr.strip().splitlines() or ["pip said nothing"])[-1])
    (packages,) = folder.glob("lib/python*/site-packages")
    sizes = {
        part.name: _bytes(part)
        for part in packages.iterdir()
        if not any(part.name == tool or part.name.startswith(f"{tool}-") for tool in TOOLS)
    }
    compiled = sum(p.stat().st_size for p in packages.rglob("*.pyc") if p.relative_to(packages).parts[0] in sizes)
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:7]
    yield Row(
        5,
        "installed without extras",
        round(sum(sizes.values()) / 1e6, 1),
        unit="MB",
        target=400,
        ours=f"edge_agent {sizes.get('edge_agent', 0) / 1e6:.0f} MB",
        note=", ".join(f"{name} {size / 1e6:.0f}" for name, size in biggest)
        + f"; bytecode that pip compiles {compiled / 1e6:.0f}",
    )
    shutil.rmtree(folder)


def _bytes(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file() and not p.is_symlink())
