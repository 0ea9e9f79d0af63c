"""`quantize --data none`: pictures that are made here, and no figure that was measured on them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_agent import cli
from edge_agent.types import Frame
from edge_agent.workshop import making
from edge_agent.workshop.quantize import auto, without
from tests.workshop.quantizable import detector, pictures


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(making, "SECONDS", 0.2)
    monkeypatch.setattr(without, "COUNT", 8)


def test_pictures_are_always_the_same_ones_and_each_is_another() -> None:
    one, other = (without.made(np.random.default_rng(0), 6, 64, 48) for _ in range(2))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))
    assert len({frame.image.tobytes() for frame in one}) == 6 and all(frame.image.std() > 5 for frame in one)
    assert [frame.image.shape for frame in one[1::2]] == [(48, 64, 3)] * 3
    assert all(isinstance(frame, Frame) and min(frame.image.shape[:2]) >= 32 for frame in one)


def test_nothing_is_measured_on_made_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parent, out = detector(tmp_path / "blobs", uneven=False), tmp_path / "small"
    given = ["quantize", str(parent), "--data", "none", "--method", "full", "--threads", "1", "--json"]
    assert cli.main([*given, "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["measure"] == "not measured" and [row["accuracy"] for row in report["rows"]] == [None, None]
    assert any("nothing is measured on them" in note for note in report["notes"])
    assert any("gate" in note for note in report["notes"])  # which has its own, real samples
    assert (out / "model.int8.onnx").is_file()
    real = pictures(tmp_path / "data")
    assert cli.main([*given, "--auto", "--evaluate", str(real), "--out", str(tmp_path / "auto")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"][-1]["accuracy"] > 0.9 and sum(row["kept"] for row in report["layers"]) <= auto.KEPT
    assert any("by what layers cost alone" in note for note in report["notes"])


def test_numbers_cannot_be_made_up(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = data / "models" / "ad01_fp32.tflite"
    assert cli.main(["quantize", str(model), "--data", "none", "--out", str(tmp_path / "out")]) == 2
    assert "takes numbers, and none can be made up; give some" in capsys.readouterr().err
