"""understand on what is heard: the real verb on real sound."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from edge_agent.cli import main

LIGHT, RAIN = "deploy/demo/speech/light.wav", "deploy/demo/speech/rain.wav"


@pytest.fixture(autouse=True)
def home(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    monkeypatch.setattr(sys, "stdout", sys.stdout)


def test_what_is_heard_is_printed_with_score_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["understand", "whisper-tiny", LIGHT, RAIN]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.casefold().endswith(" 2.1 s  turn the light on in the kitchen") and first.startswith(f"{LIGHT}: 0.")
    assert "rain this afternoon" in second


def test_json_has_an_events_fields(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["understand", "whisper-tiny?beam=1", LIGHT, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["input"] == LIGHT and row["text"].casefold() == "turn the light on in the kitchen"
    assert row["heard"]["engine"] == "whisper-tiny 1.0.0" and row["heard"]["language"] == "en"
    assert set(row["heard"]) == {"engine", "score", "seconds", "language", "name"}
    assert re.fullmatch(r"light\.wav#0\.\d\d", row["heard"]["name"])


def test_a_task_behind_it_understands_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    then = "classify:encoder?labels=deploy/demo/intents.toml"
    assert main(["understand", "whisper-tiny", LIGHT, RAIN, "--then", then, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["label"] for row in rows] == ["light", "weather"]
    assert all(row["heard"]["engine"] == "whisper-tiny 1.0.0" and row["model"]["name"] for row in rows)


def test_bad_inputs_are_one_line_each_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["tests.speech:wav:/gone", "deploy/demo/coffee.png", "/gone.wav", "/gone*.wav", LIGHT]
    assert main(["understand", "whisper-tiny", *given]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err.splitlines() == [
        "edge-agent understand: tests.speech:wav:/gone: /gone: no such file",
        "edge-agent understand: deploy/demo/coffee.png: gives pictures, and whisper-tiny takes sound",
        *[line for line in err.splitlines() if line.startswith("edge-agent understand: /gone.wav: /gone.wav: no such")],
        "edge-agent understand: /gone*.wav: no file matches",
    ]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["whisper-tiny"], "give it files, folders, globs, or addresses"),
        (["whisper-tiny?beem=1", LIGHT], 'unknown option "beem"; did you mean "beam"'),
        (["whisper-tiny", LIGHT, "--then", "detect"], 'task "detect" takes pictures, but text comes to it'),
        (["whisper-tiny", LIGHT, "--then", "dance:x"], 'unknown task "dance"'),
        (["encoder", "hello", "--then", "embed"], "--then, --seconds: encoder takes texts; leave them out"),
    ],
)
def test_wrong_usage_is_one_line(given: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["understand", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
