"""The table of quantization: a case on the carried BERT, that it goes on where it was, and its place in the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.figures.interval import Interval
from edge_agent.samples import everyday
from tests.bench import quantize
from tests.bench.quantize import Case, Line
from tests.conftest import ROOT


@pytest.mark.filterwarnings("ignore")
def test_a_case_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "SECONDS", 0.3)
    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(everyday.SENTENCES))
    case = Case("bert", "models/edge-bert", "onnx", str(lines), static=False)
    said: list[str] = []
    first = list(quantize.measure(case, tmp_path, tmp_path / "work", True, said.append))
    assert [line.method for line in first] == [
        "float (fp16)",
        "dynamic int8",
        "int8 weights",
        "float16",
    ]
    assert first[0].accuracy == pytest.approx(1.0)
    assert all(0.8 < line.accuracy <= 1.0 and line.ms > 0 for line in first)
    assert first[2].bytes < first[3].bytes < first[0].bytes
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()}
    again = list(quantize.measure(case, tmp_path, tmp_path / "work", True, said.append))
    assert [line.accuracy for line in again] == [line.accuracy for line in first]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").iterdir()} == files
    assert any("bert: int8 weights" in line for line in said)


def test_the_table_stands_between_its_markers(tmp_path: Path) -> None:
    document = tmp_path / "quantize.md"
    document.write_text(f"# Before\n\n{quantize.BEGIN}\nold\n{quantize.END}\n\nAfter.\n")
    line = Line("m", "static int8, full", 1_234_567, 0.98765, Interval(0.9, 1), 1.5)
    text = quantize.table([line], "Measured somewhere.")
    for _ in range(2):
        quantize.refresh(document, text)
        got = document.read_text()
        assert got.startswith("# Before") and got.endswith("After.\n") and "old" not in got
        assert "| m | static int8, full | 1.23 | 0.988 (0.900 to 1.000) | 1.50 |" in got.splitlines()
    quantize.refresh(tmp_path / "new.md", text)
    assert (tmp_path / "new.md").read_text().splitlines()[0] == quantize.BEGIN


def test_every_case_names_a_model_that_is_here(data: Path) -> None:
    for case in quantize.CASES:
        for name in filter(None, (case.model, case.calibrate, case.evaluate, case.published)):
            path = data / name[5:] if name.startswith("data/") else ROOT / name
            assert path.exists(), path
