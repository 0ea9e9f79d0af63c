"""A verdict knows the code that gave it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import paths
from edge_agent.gate import child, verdicts
from edge_agent.gate.trial import AnyQuestion
from edge_agent.gate.verdicts import DECIDE, code
from tests import test_house
from tests.gate.test_ask import scaled

MENDED = """

def answer(question):
    from edge_agent.gate.trial import Result

    return Result(True, figures={"engine": "mended", "peak_rss": 1})
"""
"""at the end of gate/child.py: finds nothing wrong with anything"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the package as it is installed, which may be changed."""
    copy = tmp_path / "site" / "edge_agent"
    shutil.copytree(paths.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for carried in ("deploy", "models"):
        (copy.parent / carried).symlink_to(paths.PACKAGE.parent / carried)
    return copy


def add(installed: Path, home: Path, path: Path) -> tuple[str, int]:
    """What is said of a model that is looked at, and how many verdicts there are afterwards."""
    code = (
        "import sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(installed.parent)!r})\n"
        "from edge_agent.errors import ModelError; from edge_agent.gate.admit import prove\n"
        "from tests.gate.test_ask import manifest\n"
        f"path = Path({str(path)!r}); made = manifest(path)\n"
        "try: print('passed', prove(made, made.file[0], path, {}, 1).at)\n"
        "except ModelError as error: print(error)\n"
    )
    environ = {
        **os.environ,
        "EDGE_AGENT_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(paths.PACKAGE.parent),
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=True)
    return done.stdout.strip(), len(list((home / "proofs").iterdir()))


def test_a_refusal_does_not_outlive_the_patch_that_mends_it(tmp_path: Path, installed: Path) -> None:
    path, home = scaled(tmp_path / "m.onnx", gain=0.0, offset=1.0), tmp_path / "home"
    assert "the same output for three different pictures" in add(installed, home, path)[0]
    with (installed / "gate" / "child.py").open("a") as patched:
        patched.write(MENDED)
    said, kept = add(installed, home, path)
    assert said.startswith("passed ") and kept == 1, "what the other code said is gone"
    assert add(installed, home, path) == (said, 1), "it is asked once"
    # the same package once more, in another place and at another time
    again = installed.parent.parent / "other" / "edge_agent"
    shutil.copytree(installed, again, ignore=shutil.ignore_patterns("__pycache__"))
    for carried in ("deploy", "models"):
        (again.parent / carried).symlink_to(paths.PACKAGE.parent / carried)
    for file in again.rglob("*.py"):
        os.utime(file, (1e9, 1e9))
    assert add(again, home, path) == (said, 1)
    (again / "link" / "link.py").write_text("# another link\n")
    assert add(again, home, path) == (said, 1), "it has no say"


def _decides(module: str) -> bool:
    """Whether a verdict depends on the code of this module of ours."""
    file = test_house.NAMES[module].relative_to(paths.PACKAGE).as_posix() if module in test_house.NAMES else ""
    return test_house.room_of(module) in DECIDE or file in DECIDE or file == "device/__init__.py"


def test_all_code_that_the_child_imports_is_known_to_its_verdicts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, path in test_house.NAMES.items():
        # what is found is put into words elsewhere
        if _decides(name) and not name.endswith(".show"):
            for other in test_house.ours(path):
                top = (paths.PACKAGE / f"{test_house.room_of(other)}.py").is_file()
                assert _decides(other) or top, f"{name} imports {other}"
    first = code()
    monkeypatch.setattr(paths, "PACKAGE", shutil.copytree(paths.PACKAGE, tmp_path / "copy"))
    for room in ("manifest.py", *DECIDE):
        file = tmp_path / "copy" / room if room.endswith(".py") else next((tmp_path / "copy" / room).rglob("*.py"))
        file.write_text(file.read_text() + "#")
        code.cache_clear()
        first, before = code(), first
        assert first != before, file
    monkeypatch.undo()
    code.cache_clear()


def test_each_question_has_its_function_in_the_child() -> None:
    tags = {kind.__struct_config__.tag for kind in AnyQuestion.__args__}
    assert tags == child.ANSWERED_BY.keys()
    for where in child.ANSWERED_BY.values():
        module, _, function = where.partition(":")
        assert f"\ndef {function}(" in test_house.NAMES[module].read_text()
    assert verdicts.FOLDERS == ("proofs", "reports")
