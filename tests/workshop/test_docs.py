"""The commands that the pages of the workshop show are run as they stand: they end as the page says, and print lines of
that shape. Data are short, so figures are others than on the page.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.workshop import making
from edge_agent.workshop.quantize import auto
from edge_agent.workshop.tune import verb as tune_verb
from tests.conftest import ROOT

VERBS = ("quantize", "prune", "tune", "graph", "evaluate", "models", "train", "imagine")
MAY_REFUSE = "ends with 1"
"""in the comment behind a command: it may answer no"""
slow = pytest.mark.slow


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of a page's blocks, and the lines that it is said to print."""
    text = (ROOT / "docs" / f"{page}.md").read_text().replace("\\\n", "")
    for block in re.findall(r"^```(?:sh|console)?\n(.*?)^```", text, re.M | re.S):
        found: list[tuple[str, list[str]]] = []
        for line in block.splitlines():
            if line.removeprefix("$ ").startswith("edge-agent "):
                found.append((line.removeprefix("$ "), []))
            elif found:
                found[-1][1].append(line)
        yield from found


def shape(line: str) -> str:
    """A line without its figures."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,]*( \(-?[\d.]+ to -?[\d.]+\))?", "#", line)).strip()


@pytest.fixture
def place(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the names on the pages mean something: few samples, and the published models."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EDGE_AGENT_MODEL_MIRROR", str(data / "models"))
    monkeypatch.chdir(work)
    for module in (making, auto, tune_verb):
        monkeypatch.setattr(module, "SECONDS", 0.1)
    pictures = sorted((data / "coco_calib96").glob("*.jpg"))[:24]
    for folder in ("photos", "pictures"):
        (work / folder).mkdir()
        for path in pictures:
            (work / folder / path.name).symlink_to(path)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "samples").symlink_to(work / "photos")
    (work / "labelled").symlink_to(data / "coco_val94")
    for name in ("said.txt", "lines.txt"):
        rows = (data / "text" / "sst2" / "dev.tsv").read_text().splitlines()[1:101]
        (work / name).write_text("\n".join(row.split("\t")[-1] for row in rows))
    for path in (data / "models").glob("*.tflite"):
        (work / path.name).symlink_to(path)
    return work


def ran(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """How a command ended, and what it printed."""
    words = shlex.split(command, comments=True)[1:]
    code = cli.main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err, err
    return code, out.splitlines() if code == 0 else [*out.splitlines(), *err.splitlines()]


def checked(page: str, capsys: pytest.CaptureFixture[str], *skip: str) -> None:
    """Each command of a page; those that have one of `skip` in them are left out."""
    known = [(command, said) for command, said in commands(page) if command.split()[1] in VERBS]
    found = [(command, said) for command, said in known if not any(word in command for word in skip)]
    assert found, page
    for command, said in found:
        code, printed = ran(command, capsys)
        told = command.partition("#")[2]
        assert code == 0 or (code == 1 and MAY_REFUSE in told), (command, printed)
        shapes = [shape(line) for line in printed]
        for line in said if "…" not in said else said[: said.index("…")]:
            assert any(one.startswith(shape(line).partition(" …")[0]) for one in shapes), (line, printed)


def test_evaluate(place: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = sorted((data / "coco_val94" / "images").iterdir())[:12]
    rows = [f"{path},{'person' if at % 2 else 'notperson'}" for at, path in enumerate(pictures)]
    (place / "vww.csv").write_text("\n".join(["file,label", *rows]))
    checked("evaluate", capsys)


@slow
@pytest.mark.parametrize("page", ["quantize", "prune", "tune", "graph"])
def test_pages_of_the_verbs(page: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "pull", "yolox-nano"]) == 0
    assert cli.main(["models", "add", str(ROOT / "models" / "edge-yolo" / "model.onnx"), "--name", "my-detector"]) == 0
    capsys.readouterr()
    checked(page, capsys, "--onnx2tf", "minilm")  # what has to be fetched first
