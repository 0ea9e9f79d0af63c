"""`prune` as people call it, on the carried text encoder: folder, report and gate, and what may go wrong."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.errors import ModelError, UsageError
from edge_agent.manifest import load
from edge_agent.workshop import arguments as verb_options
from edge_agent.workshop import making
from edge_agent.workshop.prune import verb

WORDS = ("lamp", "door", "kitchen", "window", "music", "radio", "heater", "garden")


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Texts, and a registry of their own."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(making, "SECONDS", 0.1)
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"turn the {a} in the {b} on\nis the {a} off\n" for a in WORDS for b in WORDS[:4]))
    return path


def arguments(*given: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb_options.prune(parser)
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args([str(one) for one in given])


def quiet(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


def test_a_pruned_encoder_is_a_model_folder_that_the_gate_took(lines: Path, tmp_path: Path) -> None:
    """Interrupted in its second step, it goes on there."""
    out = tmp_path / "small"
    given = arguments(
        "edge-bert", "--data", lines, "--out", out, "--sparsity", "0.1", "--steps", "2", "--max-drop", "0.5"
    )
    heard: list[str] = []

    def interrupting(what: str, done: int, total: int) -> None:
        if what.startswith("step 2"):
            raise KeyboardInterrupt

    def hearing(what: str, done: int, total: int) -> None:
        heard.append(what)

    with pytest.raises(KeyboardInterrupt):
        verb.run(given, interrupting)
    assert not (out / "manifest.toml").exists() and len(list(out.glob(".work/*/step-1.onnx"))) == 1
    report = verb.run(given, hearing)
    assert any(what.startswith("step 2") for what in heard) and not any(what.startswith("step 1") for what in heard)
    manifest, parent = load(out / "manifest.toml"), load(Path("models/edge-bert/manifest.toml").absolute())
    assert manifest.parent == "edge-bert" and manifest.made is not None and manifest.made.verb == "prune"
    assert manifest.made.parent_sha256 == parent.original().sha256
    assert manifest.file[0].bytes < parent.original().bytes
    told = json.loads((out / "report.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["parent", "step 1", "step 2"]
    assert told["rows"][0]["accuracy"] == pytest.approx(1.0)
    assert 0.5 < told["rows"][2]["accuracy"] <= told["rows"][0]["accuracy"]
    assert told["rows"][2]["bytes"] < told["rows"][1]["bytes"] < told["rows"][0]["bytes"]
    assert any(note.startswith("gate: proved") for note in report.notes)
    assert [row.chosen for row in report.rows] == [False, False, True]
    assert not (out / ".work").exists() and "<svg" in (out / "report.html").read_text()
    assert cli.main(["understand", str(out), "--embed", "hello there"]) == 0


def test_a_budget_that_the_first_step_breaks_leaves_nothing(lines: Path, tmp_path: Path) -> None:
    out, parent = tmp_path / "out", Path("models/edge-bert/encoder.onnx").read_bytes()
    given = ("edge-bert", "--data", lines, "--out", out, "--sparsity", "0.6", "--steps", "1")
    with pytest.raises(ModelError, match=r"more than (--max-drop|the budget of) 0"):
        verb.run(arguments(*given, "--max-drop", "0", "--most", "8"), quiet)
    assert [path.name for path in out.iterdir()] == [".work"]
    assert Path("models/edge-bert/encoder.onnx").read_bytes() == parent


def test_a_share_that_cannot_be(tmp_path: Path) -> None:
    given = ("edge-bert", "--data", tmp_path, "--out", tmp_path / "out", "--sparsity", "0")
    with pytest.raises(UsageError, match="above 0 and below 1"):
        verb.run(arguments(*given), quiet)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "nothing").mkdir()
    only = tmp_path / "only"
    shutil.copytree("models/edge-yolo", only)
    text = (only / "manifest.toml").read_text()
    first, *files = text.split("[[file]]")
    (only / "manifest.toml").write_text("[[file]]".join([first, *(f for f in files if "tflite" in f or "int8" in f)]))
    out = str(tmp_path / "out")
    for given, said in (
        ((str(only), "--out", out, "--data", out), "no float .onnx file to start from"),
        (("edge-yolo", "--out", out, "--data", str(tmp_path / "nothing")), "samples: "),
        (("edge-bert", "--out", "models", "--data", out), "which the workshop did not make"),
    ):
        assert cli.main(["prune", *given]) in (1, 2)
        told = capsys.readouterr().err.strip()
        assert said in told and "\n" not in told
    assert not Path(out).exists()
