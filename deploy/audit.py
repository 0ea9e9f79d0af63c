"""Known holes in what is installed with edge-agent-runtime: `make audit`.

Asks pip-audit, which has to be installed where it runs. Where its data cannot be had, or not of all packages, it says
so and lists each version with the day on which it was installed here. Exit 1 for known holes, 0 otherwise.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

from sbom import OURS, needed

LIMIT_S = 300


def listed(found: dict[str, Distribution]) -> list[str]:
    """A line each: name, version, the day it was installed."""
    lines = []
    for name, one in sorted(found.items()):
        files = [Path(str(one.locate_file(file))) for file in one.files or () if file.name == "METADATA"]
        days = [datetime.fromtimestamp(file.stat().st_mtime, timezone.utc) for file in files if file.exists()]
        lines.append(f"{name} {one.version}, installed {days[0]:%Y-%m-%d}" if days else f"{name} {one.version}")
    return lines


def judged(answer: str, names: set[str]) -> tuple[list[str], set[str]]:
    """What pip-audit's JSON says of these packages: a line for each hole, and which of them it did not look at."""
    try:
        rows: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        rows = []
    holes = [
        f"{row['name']} {row['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for row in rows
        for hole in row.get("vulns", ())
    ]
    return holes, names - {row["name"] for row in rows if "vulns" in row}


def main(python: str, extras: tuple[str, ...]) -> int:
    """Ask the pip-audit of this Python about what this environment holds."""
    found = needed(OURS, extras)
    found.pop(OURS, None)
    with tempfile.TemporaryDirectory() as folder:
        pins = Path(folder) / "requirements.txt"
        pins.write_text("".join(f"{name}=={one.version}\n" for name, one in found.items()))
        asked = ["-r", str(pins), "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
        try:
            done = subprocess.run(
                [python, "-m", "pip_audit", *asked], capture_output=True, text=True, timeout=LIMIT_S
            ).stdout
        except (OSError, subprocess.TimeoutExpired):
            done = ""
    holes, left = judged(done, set(found))
    for line in holes:
        print(line)
    if left:
        print(f"NOT CHECKED: pip-audit's data on {len(left)} of {len(found)} packages cannot be had here; they are:")
        print("\n".join(listed({name: found[name] for name in left})))
    elif not holes:
        print(f"no hole is known in {len(found)} packages")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], tuple(sys.argv[2:])))
