"""Many lines at once beside a camera: each is answered or counted, and the camera goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.config import parse
from edge_agent.events import Event, TextEvent
from tests.broker import until
from tests.tiny import tiny_detector

CONFIG = """
[store]
path = "{folder}/store"

[[pipeline]]
name = "yard"
source = "files:{pictures}?fps=50&loop=true"
tasks = ["detect:{model}"]
priority = 9
class = "telemetry"

[[pipeline]]
name = "log"
source = "lines:{folder}/fifo"
tasks = {tasks}
class = "telemetry"
"""


@contextmanager
def running(agent: Agent) -> Iterator[None]:
    stop = threading.Event()
    runner = threading.Thread(target=agent.run, args=(stop,))
    runner.start()
    try:
        yield
    finally:
        stop.set()
        runner.join(60)


@pytest.mark.parametrize(("tasks", "count"), [("[]", 10_000), ('["embed:edge-bert"]', 1_000)])
def test_ten_thousand_lines_are_answered_and_the_camera_goes_on(
    tasks: str, count: int, tmp_path: Path, demo_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written as fast as the pipe takes them, with frames before, between and behind them."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    os.mkfifo(tmp_path / "fifo")
    model = tiny_detector(tmp_path / "model")
    agent = Agent(parse(CONFIG.format(folder=tmp_path, pictures=demo_pictures, model=model, tasks=tasks)))
    yard, log = agent.lines
    events: list[Event] = []
    frames_at: dict[int, int] = {}

    def note(event: Event) -> None:
        if event.pipeline == "log":
            events.append(event)
            frames_at[len(events)] = yard.stats.samples

    agent.keep.listeners.append(note)
    with running(agent):
        until(lambda: yard.stats.samples > 2, "frames before")
        with (tmp_path / "fifo").open("w") as pipe:
            pipe.writelines(f"line {number}: lamp\n" for number in range(count))
        until(lambda: len(events) == count, "all lines", 300)
        behind = yard.stats.samples
        until(lambda: yard.stats.samples > behind, "frames behind")
    assert log.stats.samples == count and log.stats.bad == 0
    said = [event.text for event in events if isinstance(event, TextEvent)]
    assert said == [f"line {number}: lamp" for number in range(count)]
    assert frames_at[count] > frames_at[1], "frames were answered while lines were"
    assert yard.taken - yard.box.dropped - yard.stats.samples <= 2
