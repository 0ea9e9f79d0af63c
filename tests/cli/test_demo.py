"""What the demo has beside its clip and its lines, where it is here."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.cli import demo
from edge_agent.config import parse
from edge_agent.errors import UsageError
from edge_agent.events import CrossingEvent, Event, ObjectEvent, RuleEvent, ScoresEvent, TextEvent
from edge_agent.paths import carried
from edge_agent.samples.carried import NOTICE
from edge_agent.sources.clip import WALK, make_clip
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


def test_the_clip_shows_a_track_a_zone_and_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the demo runs it, but to the end of one round, and without a broker."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    make_clip(PLACES["demo"], tmp_path / "clip.avi", WALK)
    (tmp_path / "lines.txt").write_text("please switch the light on in the cellar\n")
    text = demo.CONFIG.format(device="demo", port=1, folder=tmp_path, labels=PLACES["labels"])
    text = text.replace('url = "mqtt://127.0.0.1:1"\n', "").replace("?pace=own&loop=true&frozen=1.5", "")
    text = text.replace('"10s"', '"1h"')  # however long the models take to answer
    agent, heard = Agent(parse(text)), list[Event]()
    agent.keep.listeners.append(heard.append)
    agent.run(threading.Event())
    (crossing,) = [event for event in heard if isinstance(event, CrossingEvent)]
    assert (crossing.line, crossing.direction, crossing.label) == ("gate", "in", "person")
    entered = {event.id: event for event in heard if isinstance(event, ObjectEvent) and "porch" in event.entered}
    on = next(event for event in heard if isinstance(event, RuleEvent))
    light = {event.id for event in heard if isinstance(event, ScoresEvent)}
    assert (on.rule, on.phase, len(on.because)) == ("welcome", "on", 2)
    assert set(on.because) <= entered.keys() | light and crossing.object in {e.object for e in entered.values()}


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
