"""docs/threats.md against the code: what it names is there, and what reads bytes is named."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from edge_agent.backends import FORMATS
from edge_agent.sources import SCHEMES
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "threats.md").read_text()
PACKAGE = ROOT / "edge_agent"
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?::(\w+))?`", PAGE)))
READS = {"recv", "recv_into", "read1", "readv", "pread", "read_bytes", "read_text", "imdecode", "decode_jpeg", "mmap",
         "VideoCapture", "ZipFile", "read_regular", "loads"}  # fmt: skip
"""calls by which bytes come in, whatever they are called on"""
OF_ROOMS = {"os.read", "msgspec.json.decode", "msgspec.msgpack.decode", "np.load", "sys.stdin.buffer.read"}


def reads(path: Path) -> set[str]:
    """The calls in a file by which bytes come in."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in OF_ROOMS or name.rpartition(".")[2] in READS:
                found.add(name)
    return found


def defined(path: Path) -> set[str]:
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            targets = [part for target in node.targets for part in ast.walk(target)]
            found |= {part.id for part in targets if isinstance(part, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_the_page_names_exists(file: str, name: str) -> None:
    assert (PACKAGE / file).is_file()
    assert not name or name in defined(PACKAGE / file)


def test_each_file_that_reads_bytes_is_named() -> None:
    files = {path.relative_to(PACKAGE).as_posix(): reads(path) for path in PACKAGE.rglob("*.py")}
    here = {name: how for name, how in files.items() if how and not name.startswith("workshop/")}
    assert len(here) > 30
    missing = {name: how for name, how in here.items() if name not in {file for file, _ in NAMED}}
    assert not missing, "name them in docs/threats.md, with who can send what to them and within which limits"


def test_each_source_and_each_format_is_named() -> None:
    table = PAGE[: PAGE.index("## What the agent itself wrote")]
    assert {kind for kind in (*SCHEMES, *FORMATS) if f"`{kind}`" not in table} == set()


def test_each_row_says_who_where_and_within_which_limits() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    table = rows[1 : next(i for i, row in enumerate(rows) if row.startswith("| |"))]
    assert len(table) > 15
    for row in table:
        assert len([cell for cell in row.strip("|").split("|") if cell.strip()]) == 5, row
