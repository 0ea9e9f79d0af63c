"""Texts that are kept to be corrected: those of which a classifier was not sure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.recorder import collect as kept
from edge_agent.samples import collected
from edge_agent.types import Finding, ModelRef, Scores, Text

REF = ModelRef("m", "1", "0" * 64)


def said(text: str, label: str, **scores: float) -> tuple[Text, list[Finding]]:
    one = Text(text, 0.0, 0.0)
    return one, [Finding(one, Scores(label, max(scores.values()), scores), REF)]


def test_unsure_texts_are_kept_and_exported_as_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(kept, "FORGET_S", 0.0)
    made = kept.Collect(["uncertain"], 0.0, 100, 1, "a test")
    made.add("desk", lambda frame, found: None)
    made.add("private", lambda frame, found: None, words=False)
    made.start()
    for pipeline, row in (
        ("desk", said("sure", "hello", hello=0.9, bye=0.1)),
        ("desk", said("neither", "unknown", hello=0.2, bye=0.1)),
        ("desk", said("either", "hello", hello=0.5, bye=0.45)),
        ("private", said("secret", "unknown", hello=0.2, bye=0.1)),
    ):
        made.watch(pipeline, *row)
    made.stop()
    made._thread.join(120)
    assert collected.export(tmp_path / "out") == (0, 2)
    lines = [json.loads(line) for line in (tmp_path / "out" / "texts.jsonl").read_text().splitlines()]
    assert {(row["text"], row["why"]) for row in lines} == {
        ("neither", "fits no label"),
        ("either", "two labels fit about as well"),
    }
    assert {row["consent"] for row in lines} == {"a test"}
