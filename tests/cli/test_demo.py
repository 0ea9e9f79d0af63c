"""What the demo has beside its clip and its lines, where it is here."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cli import demo
from edge_agent.config import parse
from edge_agent.errors import UsageError
from edge_agent.events import Event, ScoresEvent, TextEvent
from edge_agent.paths import carried
from edge_agent.samples.carried import NOTICE
from edge_agent.types import Heard, Read

PLACES = {"demo": carried("deploy", "demo"), "labels": carried("deploy", "demo", "intents.toml")}


def test_what_is_missing_is_said_in_a_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    part = demo.SPEECH
    pull = "edge-agent models pull whisper-tiny silero-vad"
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert part.lacks() == f'pip install "edge-agent-runtime[speech]" && {pull}'
    monkeypatch.setattr(demo, "find_spec", lambda name: object())
    assert part.lacks() == pull
    said: list[str] = []
    assert demo._beside(said.append, False, **PLACES) == "" and f"without speech: {pull}" in said
    assert "without sign: edge-agent models pull ocr" in said
    with pytest.raises(UsageError, match="--microphone: nothing here hears yet; edge-agent models pull"):
        demo._beside(said.append, True, **PLACES)


def test_the_microphone_takes_the_place_of_the_sentences(whisper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    (speech,) = parse(demo._beside(print, True, **PLACES)).pipeline
    assert speech.source == "microphone:" and speech.tasks[0] == "transcribe:whisper-tiny"


def test_the_carried_sentences_become_events(whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(whisper))
    config = parse(f'[store]\npath = "{tmp_path / "store"}"\n' + demo._beside(print, False, **PLACES))
    agent, heard = Agent(config), list[Event]()
    agent.keep.listeners.append(heard.append)
    agent.run(threading.Event())
    labelled = [event for event in heard if isinstance(event, ScoresEvent)]
    assert [event.label for event in labelled] == ["light", "weather"]
    assert all(isinstance(event.heard, Heard) and event.heard.engine == "whisper-tiny 1.0.0" for event in labelled)


def test_the_carried_sign_becomes_events(ocr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(ocr))
    config = parse(f'[store]\npath = "{tmp_path / "store"}"\n' + demo._beside(print, False, **PLACES))
    agent, read = Agent(config), list[Event]()
    agent.keep.listeners.append(read.append)
    agent.run(threading.Event())
    assert [event.text for event in read if isinstance(event, TextEvent)] == list(NOTICE)
    assert all(isinstance(event.read, Read) and event.read.engine == "ocr 6.0.0" for event in read)
