"""What `make audit` makes of pip-audit's answers, which a stand-in gives: its data cannot be had everywhere."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from tests.conftest import ROOT

STAND_IN = """#!{python}
import json, sys
assert sys.argv[1:3] == ["-m", "pip_audit"]
pins = [line.split("==") for line in open(sys.argv[sys.argv.index("-r") + 1]).read().split()]
hole = {{"id": "PYSEC-2099-1", "fix_versions": ["99.1"]}}
rows = [{{"name": name, "version": version, "vulns": [hole] if name in {holes} else []}} for name, version in pins]
rows = [{{"name": row["name"], "skip_reason": "not found"}} if {skipped} else row for row in rows]
print(json.dumps({{"dependencies": rows, "fixes": []}}))
"""


def audit(folder: Path, holes: tuple[str, ...] = (), skipped: bool = False) -> tuple[int, str]:
    try:
        distribution("edge-agent-runtime")
    except PackageNotFoundError:
        pytest.skip("edge-agent-runtime is not installed")
    python = folder / "python"
    python.write_text(STAND_IN.format(python=sys.executable, holes=holes, skipped=skipped))
    python.chmod(0o755)
    done = subprocess.run([sys.executable, str(ROOT / "deploy/audit.py"), str(python)], capture_output=True, text=True)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_a_known_hole_is_named_with_the_version_that_mends_it(tmp_path: Path) -> None:
    numpy = f"numpy {distribution('numpy').version}"
    assert audit(tmp_path, ("numpy",)) == (1, f"{numpy}: PYSEC-2099-1, mended in 99.1\n")


def test_no_known_hole_is_said_of_how_many_packages(tmp_path: Path) -> None:
    code, said = audit(tmp_path)
    assert code == 0 and said.startswith("no hole is known in ") and "NOT CHECKED" not in said


def test_what_was_not_looked_at_is_not_called_good(tmp_path: Path) -> None:
    """pip-audit itself says "no known vulnerabilities" and exits 0 where it could not look at any package."""
    code, said = audit(tmp_path, skipped=True)
    assert code == 0 and said.startswith("NOT CHECKED") and "no hole is known" not in said
    assert f"\nnumpy {distribution('numpy').version}, installed 20" in said


def test_without_pip_audit_the_versions_are_listed() -> None:
    command = [sys.executable, str(ROOT / "deploy/audit.py"), str(ROOT / "no" / "python")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("NOT CHECKED"), done.stderr
