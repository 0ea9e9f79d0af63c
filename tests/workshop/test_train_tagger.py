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
from edge_agent.workshop.train.tagger import data, measure
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
    rows = data.read(table(tmp_path))
    told = [[(one.text[a:b], label) for a, b, label, _ in one.spans] for one in rows]
    assert told == [
        [("seven", "time")],
        [("jazz", "thing"), ("paris", "place")],
        [("mum", "person"), ("at 2 pm", "time"), ("in May", "date")],
    ]
    assert rows[2].text == "call mum at 2 pm or in May, it is sunny"
    assert set(data.LABEL.values()) == {"date", "time", "place", "person", "thing", "number"}
    with pytest.raises(UsageError, match=r"no slot is marked in it; give tables"):
        data.read(table(tmp_path, "plain\ttext\n"))
    with pytest.raises(UsageError, match="cannot be read as UTF-8"):
        data.read(tmp_path / "nothing.tsv")


def test_conll_is_read_with_its_own_labels(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("Ann B-PER\nSmith I-PER\nslept O\n")
    (one,) = data.read(tmp_path / "a.conll")
    assert (one.text, one.spans) == ("Ann Smith slept", ((0, 9, "PER", "PER"),))


def test_the_first_piece_of_each_word_is_taught(tmp_path: Path) -> None:
    one = data.read(table(tmp_path))[2]
    tags = data.tags_of(["date", "person", "time"])
    ids, told = data.encode(one, WORDS, tags, 128)
    assert len(ids) == len(told) and told[0] == told[-1] == -1
    words = [(one.text[a:b], tag) for (a, b), tag in data.words_of(one, WORDS, tags)]
    assert words[1:6] == [("mum", "B-person"), ("at", "B-time"), ("2", "I-time"), ("pm", "I-time"), ("or", "O")]
    # the baseline, taught with this very text, marks what was marked
    spans = data.guessed(one, WORDS, tags, data.commonest([one], WORDS, tags))
    assert ("mum", "person") in [(one.text[a:b], label) for a, b, label in spans]


def test_slots_are_exchanged_for_those_of_the_same_slot(tmp_path: Path) -> None:
    one = data.read(table(tmp_path))[1]
    others = {"music_genre": ["rock and roll"], "city": ["rome"]}
    made = data.exchanged(one, others, np.random.default_rng(0), 1.0)
    assert made.text == "play rock and roll in rome"
    assert [(made.text[a:b], label) for a, b, label, _ in made.spans] == [("rock and roll", "thing"), ("rome", "place")]
    assert data.exchanged(one, others, np.random.default_rng(0), 0.0) == one


def test_an_interval_lies_around_its_score() -> None:
    truth = [{(0, 1, "a")}, {(0, 1, "a"), (2, 3, "b")}, set()] * 30
    said = [{(0, 1, "a")}, {(0, 1, "a"), (2, 3, "c")}, {(5, 6, "a")}] * 30
    found = measure.scored(truth, said)
    assert (found["spans"], found["precision"], found["recall"]) == (90, 0.5, pytest.approx(2 / 3))
    assert found["f1"] == pytest.approx(4 / 7) and found["low"] < found["f1"] < found["high"]


def test_the_carried_files_are_those_of_the_manifest_and_small() -> None:
    manifest = load(MODEL / "manifest.toml")
    for row in manifest.file:
        content = (MODEL / row.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (row.bytes, row.sha256), row.name
    assert sum(path.stat().st_size for path in MODEL.iterdir()) < 4e6
    assert manifest.card is not None and (MODEL / manifest.card).is_file()


def test_the_carried_tagger_beats_the_commonest_label_of_a_word(data: Path) -> None:
    from edge_agent.workshop.train.tagger.data import read

    taught = [one for name in ("slurp/devel.tsv", "snips/train.tsv") for one in read(data / "text" / name)]
    tests = [(path, read(path)[::10]) for path in (data / "text/slurp/test.tsv", data / "text/snips/validate.tsv")]
    found = measure.measure(MODEL, tests, taught)
    for row, least in zip(found["sets"].values(), (0.54, 0.66), strict=True):
        assert row["tagger.int8.onnx"]["f1"] > max(least, row["commonest label of a word"]["high"])


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the extra [train] is not installed")
def test_the_recipe_makes_a_model_that_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    rows, out = table(tmp_path, ROWS * 20), tmp_path / "mine"
    common = ["train", "tagger", "--data", str(rows), "--out", str(out), "--rows", "8"]
    assert main([*common, "--epochs", "2"]) == 0
    assert main([*common, "--epochs", "3", "--resume", "--test", str(rows)]) == 0
    assert json.loads((out / "report.json").read_text())["sets"]
    assert main(["models", "verify", "--prove", str(out)]) == 0
    assert main(["understand", str(out), "wake me at seven"]) == 0
