"""The recipe of the tagger, and the one that the project carries."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from edge_agent.cli import main
from edge_agent.errors import UsageError
from edge_agent.manifest import load
from edge_agent.tasks.text import vocabulary
from edge_agent.workshop.data import marked
from edge_agent.workshop.train.tagger import data
from tests.conftest import ROOT

MODEL = ROOT / "models" / "edge-tagger"
WORDS = vocabulary.from_vocab(MODEL / "vocab.txt", True)
ROWS = """a\tb\twake me at seven\twake me at [time : seven]
a\tb\tplay jazz in paris\tplay [music_genre : jazz] in [city : paris]
Book\tcall [ relation : mum ] [timeRange : at 2 pm] or [timeRange : in May], it is [weather_descriptor : sunny]
"""


def table(folder: Path, text: str = ROWS) -> Path:
    path = folder / "rows.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_slots_of_a_table_become_spans(tmp_path: Path) -> None:
    rows = marked.read(table(tmp_path))
    told = [[(one.text[a:b], label) for a, b, label, _ in one.spans] for one in rows]
    assert told == [
        [("seven", "time")],
        [("jazz", "thing"), ("paris", "place")],
        [("mum", "person"), ("at 2 pm", "time"), ("in May", "date")],
    ]
    assert rows[2].text == "call mum at 2 pm or in May, it is sunny"
    assert set(marked.LABEL.values()) == {"date", "time", "place", "person", "thing", "number"}
    with pytest.raises(UsageError, match=r"nothing is marked in it; give CoNLL"):
        marked.read(table(tmp_path, "plain\ttext\n"))
    with pytest.raises(UsageError, match="cannot be read"):
        marked.read(tmp_path / "nothing.tsv")


def test_conll_is_read_with_its_own_labels(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ann B-PER\nSmith I-PER\nslept O\n")
    (one,) = marked.read(tmp_path / "a.conll")
    assert (one.text, one.spans) == ("Ann Smith slept", ((0, 9, "PER", "PER"),))


def test_the_first_piece_of_each_word_is_taught(tmp_path: Path) -> None:
    one = marked.read(table(tmp_path))[2]
    tags = data.tags_of(["date", "person", "time"])
    ids, told = data.encode(one, WORDS, tags, 128)
    assert len(ids) == len(told) and told[0] == told[-1] == -1
    assert [tags[tag] for tag in told if tag >= 0][1:6] == ["B-person", "B-time", "I-time", "I-time", "O"]


def test_slots_are_exchanged_for_those_of_the_same_slot(tmp_path: Path) -> None:
    one = marked.read(table(tmp_path))[1]
    others = {"music_genre": ["rock and roll"], "city": ["rome"]}
    made = data.exchanged(one, others, np.random.default_rng(0), 1.0)
    assert made.text == "play rock and roll in rome"
    assert [(made.text[a:b], label) for a, b, label, _ in made.spans] == [("rock and roll", "thing"), ("rome", "place")]
    assert data.exchanged(one, others, np.random.default_rng(0), 0.0) == one


def test_the_carried_files_are_those_of_the_manifest_and_small() -> None:
    manifest = load(MODEL / "manifest.toml")
    for row in manifest.file:
        content = (MODEL / row.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row.bytes, row.sha256), row.name
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4e6
    assert manifest.card is not None and (MODEL / manifest.card).is_file()


def test_the_carried_tagger_is_as_good_as_its_card_says(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, least in (("slurp/test.tsv", 0.54), ("snips/validate.tsv", 0.66)):
        assert main(["evaluate", str(MODEL), str(data / "text" / name), "--limit", "300", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["intervals"]["f1"][0] < found["f1"] < found["intervals"]["f1"][1] and found["f1"] > least


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the extra [train] is not installed")
def test_the_recipe_makes_a_model_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    rows, out = table(tmp_path, ROWS * 20), tmp_path / "mine"
    common = ["train", "tagger", "--data", str(rows), "--out", str(out), "--rows", "8"]
    assert main([*common, "--epochs", "2"]) == 0
    assert main([*common, "--epochs", "3", "--resume"]) == 0
    made = load(out / "manifest.toml").made
    assert made is not None and made.parent == "edge-bert 1"
    assert made.data_sha256 == hashlib.sha256(rows.read_bytes()).hexdigest()
    assert made.method == "3 rounds over 54 sentences, 8 a step, seed 1" and 0 < made.figures["span_f1"] <= 1
    report = json.loads((out / "report.json").read_text())
    assert [len(one["series"]["span_f1"]) for one in report["plots"] if one["y"] == "span_f1"] == [3]
    assert any(note.startswith("gate: proved") for note in report["notes"]) and (out / "report.html").is_file()
    assert main(["models", "verify", "--prove", str(out)]) == 0
    assert main(["understand", str(out), "wake me at seven"]) == 0
