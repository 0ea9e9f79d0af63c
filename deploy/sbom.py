"""What is installed here with edge-agent-runtime, as CycloneDX 1.6 JSON on stdout: `make sbom`.

From the metadata of the installed packages alone; nothing is asked of a network.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

OURS = "edge-agent-runtime"


def name_of(text: str) -> str:
    """A package's name as PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", text).lower()


def needed(name: str, extras: tuple[str, ...] = ()) -> dict[str, Distribution]:
    """It and what it needs, of what is installed: name -> distribution."""
    found: dict[str, Distribution] = {}
    left = [name]
    while left:
        one = name_of(left.pop())
        if one in found:
            continue
        try:
            found[one] = distribution(one)
        except PackageNotFoundError:
            continue  # of another platform, or an extra that is not here
        for line in found[one].requires or ():
            marker = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
            if marker is None or (one == OURS and marker[1] in extras):
                left.append(re.split(r"[\s\[;<>=!~(]", line, maxsplit=1)[0])
    return found


def licences(of: Distribution) -> list[dict[str, Any]]:
    """What a package says of its licence."""
    said = of.metadata.get("License-Expression")
    if said:
        return [{"expression": said}]
    classified = [line.rpartition(" :: ")[2] for line in of.metadata.get_all("Classifier") or () if "License" in line]
    stated = (of.metadata.get("License") or "").strip().split("\n")[0][:100]
    return [{"license": {"name": name}} for name in (classified or [stated] if classified or stated else [])]


def package(of: Distribution) -> dict[str, Any]:
    """One component; what pip wrote down of its files, each with a hash, stands under a hash of its own."""
    name = name_of(of.metadata["Name"])
    record = of.read_text("RECORD") or ""
    found = {"type": "library", "name": name, "version": of.version, "purl": f"pkg:pypi/{name}@{of.version}"}
    listed = [{"name": "sha256 of RECORD", "value": digest(record.encode())}] if record else []
    more = {"licenses": licences(of), "properties": listed}
    return {**found, "bom-ref": f"{name}@{of.version}", **{key: value for key, value in more.items() if value}}


def model(folder: Path) -> dict[str, Any]:
    """A model that is carried: its files with their hashes, its licence."""
    text = (folder / "manifest.toml").read_text()
    told = {key: found[1] for key in ("version", "licence") if (found := re.search(rf'^{key} = "(.+)"', text, re.M))}
    files = [
        {"type": "file", "name": path.name, "hashes": [{"alg": "SHA-256", "content": digest(path.read_bytes())}]}
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".tflite", ".ort")
    ]
    found = {"type": "machine-learning-model", "name": folder.name, "version": told.get("version", "")}
    licence = [{"license": {"name": told["licence"]}}] if "licence" in told else []
    return {**found, "bom-ref": f"model:{folder.name}", "licenses": licence, "components": files}


def digest(data: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(data).hexdigest()


def bom(models: Path, extras: tuple[str, ...]) -> dict[str, Any]:
    """The whole of it. PackageNotFoundError where we are not installed."""
    ours, parts = distribution(OURS), needed(OURS, extras)
    carried = [model(path.parent) for path in sorted(models.glob("*/manifest.toml")) if any(path.parent.glob("*.onnx"))]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {**package(ours), "type": "application"}},
        "components": [package(of) for name, of in sorted(parts.items()) if name != OURS] + carried,
    }


if __name__ == "__main__":
    here = Path(__file__).resolve().parent.parent / "models"
    json.dump(bom(here, tuple(sys.argv[1:])), sys.stdout, indent=1)
    print()
