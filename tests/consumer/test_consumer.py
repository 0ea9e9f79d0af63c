"""The consumer recipe of deploy/, run as it stands against a device that waits for acknowledgements."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.config import Mqtt
from edge_agent.events import TextEvent
from edge_agent.link import acks
from edge_agent.link.link import Link
from edge_agent.outbox.outbox import Outbox
from tests.broker import broker, until
from tests.conftest import ROOT


def test_the_recipe_keeps_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acks, "ACK_S", (0.5, 1.0))
    with broker(tmp_path) as server:
        recipe = (ROOT / "deploy" / "consumer.py").read_text()
        assert len([line for line in recipe.splitlines() if line.strip()]) <= 40
        (tmp_path / "consumer.py").write_text(recipe.replace('"127.0.0.1")', f'"127.0.0.1", {server.port})'))
        box = Outbox(tmp_path / "store", "d")
        link = Link(Mqtt(url=server.url, ack=True), "d", box)
        link.start()
        for i in range(20):
            box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text=str(i)))
        consumer = subprocess.Popen([sys.executable, "consumer.py"], cwd=tmp_path)
        until(lambda: box.empty, "everything is acknowledged")
        junk = ["", "x", "[1]", "3", '{"x": 1}', '{"id": "\\ud800"}', "[" * 100_000]
        for nonsense in junk:
            link.tell("words/events", nonsense.encode())
        link.tell("words/events", b"\xff")
        box.put(TextEvent(pipeline="words", at="2026-01-01T00:00:00Z", text="after junk"))
        until(lambda: box.empty, "it goes on behind what is no event")
        consumer.kill()
        consumer.wait()
        link.stop()
        box.close()
    kept = sqlite3.connect(tmp_path / "events.db").execute("SELECT id FROM event").fetchall()
    assert len(kept) == 21
