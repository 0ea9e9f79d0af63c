"""Speech that is under way when the agent dies is declared, and no sound is ever kept: the real agent, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.config import load
from edge_agent.consumer.audit import Audit
from edge_agent.events import JSON, Event, GapEvent, ScoresEvent
from edge_agent.outbox.outbox import Outbox
from tests.broker import until
from tests.conftest import ROOT

NOISE = np.random.default_rng(7).integers(-20_000, 20_000, 160_000).astype("<i2")
SPEAKER = "import sys, time\nraw = open(sys.argv[1], 'rb').read()\nwhile True: sys.stdout.buffer.write(raw[:3200]); sys.stdout.flush(); raw = raw[3200:] + raw[:3200]; time.sleep(0.05)"  # noqa: E501


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    (tmp_path / "speak.py").write_text(SPEAKER)
    (tmp_path / "noise.raw").write_bytes(NOISE.tobytes())
    source = f"pipe:{sys.executable} {tmp_path}/speak.py {tmp_path}/noise.raw?format=s16"
    tasks = '["tests.agent.test_audio:gatherer:"]'
    file = tmp_path / "agent.toml"
    pipeline = f"[[pipeline]]\nname = 'hall'\nsource = '{source}'\ntasks = {tasks}\n"
    file.write_text(f"[device]\nid = 'porch'\n[store]\npath = 'store'\n{pipeline}")
    return file


def start(config: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "edge_agent", "run", "-c", str(config)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def written(file: Path) -> int:
    """When it was, ns; 0: it is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def kept(store: Path) -> list[Event]:
    """What the store holds, struck off."""
    outbox = Outbox(store, "porch")
    records = outbox.take(1000)
    outbox.done(*records)
    outbox.close()
    return [JSON.decode(record.payload) for record in records]


def holds_sound(folder: Path) -> list[str]:
    """The files in which a stretch of that noise lies, as it came or as floats."""
    floats = NOISE.astype(np.float32) / 32768
    stretches = [part[at : at + 16].tobytes() for part in (NOISE, floats) for at in range(0, len(part) - 16, 160)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(stretch in path.read_bytes() for stretch in stretches)]


def test_speech_that_was_under_way_at_a_kill_is_declared_and_none_of_it_is_kept(config: Path) -> None:
    store, note = config.parent / "store", config.parent / "store" / "begun" / "hall"
    before = 0
    for _ in range(2):
        agent = start(config)
        until(lambda old=before: written(note) > old, "it is noted anew")  # type: ignore[misc]
        before = written(note)
        agent.send_signal(signal.SIGKILL)
        agent.communicate()
    assert note.exists()
    running = Agent(load(config))
    assert not note.exists()
    assert [gap.count for gap in running.outbox.gaps] == [1]
    running.outbox.close()
    assert not holds_sound(store) and not holds_sound(config.parent / "home")
    events = kept(store)
    gaps = [event for event in events if isinstance(event, GapEvent)]
    assert [(gap.seq, gap.first, gap.last, gap.count) for gap in gaps] == [(2, 1, 1, 1), (4, 3, 3, 1)]
    assert all(gap.why.startswith("sound of hall, from 2") for gap in gaps)
    assert all(gap.why.endswith(" on, was under way when the agent stopped") for gap in gaps)
    audit = Audit()
    for event in events:
        audit.add(msgspec.json.encode(event))
    (told,) = audit.rows()
    assert told.missing == 0 and told.declared == 2


def test_speech_that_is_under_way_at_a_stop_is_answered_and_nothing_is_declared(config: Path) -> None:
    store, note = config.parent / "store", config.parent / "store" / "begun" / "hall"
    agent = start(config)
    until(note.exists, "it is noted that somebody speaks")
    agent.send_signal(signal.SIGTERM)
    _, said = agent.communicate(timeout=180)
    assert agent.returncode == 0, said
    assert not note.exists() and not holds_sound(store)
    (event,) = kept(store)
    assert isinstance(event, ScoresEvent) and event.label == "all"
