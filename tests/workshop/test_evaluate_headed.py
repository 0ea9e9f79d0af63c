"""`edge-agent evaluate` of models that fill in words, judge pairs and find answers, on graphs that are made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.cli import main
from tests.tasks.test_answer import qa
from tests.tasks.test_fill import mlm


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))


def test_answers_are_counted_as_squad_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = qa(tmp_path / "m", single=False)
    data = tmp_path / "asked.tsv"
    data.write_text(
        "what is cold\tThe river of the book is cold\triver of the book\n"
        "what is loud\tThe river of the book is loud\triver\n"
        "is it dark\tIt is dark\t\n"
    )
    assert main(["evaluate", str(path), str(data), "--against", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # no answer is right where there is none; of the second answer one word of four is right
    assert found["exact"] == pytest.approx(2 / 3, abs=1e-5) and found["f1"] == pytest.approx(
        (1 + 0.4 + 1) / 3, abs=1e-5
    )
    assert (
        found["against"]["agreement"] == pytest.approx(1.0) and found["against"]["on_labels"]["exact"] == found["exact"]
    )
    data.write_text("only\ttwo\n")
    assert main(["evaluate", str(path), str(data)]) == 2
    assert "3 columns a line are wanted" in capsys.readouterr().err


def test_masked_words_are_guessed_in_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = mlm(tmp_path / "m", ["input_ids", "attention_mask"])
    data = tmp_path / "texts.txt"
    data.write_text("river river river river river river\nstorm storm storm storm storm storm\n")
    assert main(["evaluate", str(path), str(data)]) == 0
    told = capsys.readouterr().out
    assert "2 texts" in told and "top1            1.0000" in told
