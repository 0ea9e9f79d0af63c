"""[limits] are kept: by a real agent on a board whose sensors are made up, and refused where they cannot be."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.agent import governing
from edge_agent.agent.agent import Agent
from edge_agent.cli import main
from edge_agent.config import Config, Limits, parse
from edge_agent.device import board
from edge_agent.governor.steps import PLANS
from edge_agent.tasks.detect.thinned import Thinned
from tests.broker import until
from tests.tiny import tiny_detector

CONFIG = """
[device]
id = "porch"
[store]
path = "{folder}/store"
[limits]
{limits}
[[pipeline]]
name = "yard"
source = "files:{made}/photos?fps=20&loop=yes"
tasks = ["detect:{made}/model", "track"]
priority = 7
[[pipeline]]
name = "door"
source = "files:{made}/photos?fps=20&loop=yes"
tasks = ["detect:{made}/model"]
"""


class Sensors:
    """A folder that stands for /sys."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "sys"
        self.zone = self.folder / "class/thermal/thermal_zone0/temp"
        self.zone.parent.mkdir(parents=True)
        self.say(40)
        monkeypatch.setattr(board, "SYS", self.folder)

    def say(self, celsius: float) -> None:
        fresh = self.zone.with_name("new")
        fresh.write_text(f"{celsius * 1000:.0f}\n")
        fresh.replace(self.zone)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, demo_pictures: Path) -> Path:
    """A model that is tried once, and a picture."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    shutil.copy(demo_pictures / "coffee.png", folder / "photos")
    tiny_detector(folder / "model")
    return folder


@pytest.fixture
def place(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(made / "home"))
    monkeypatch.setattr(governing, "TICK_S", 10_000.0)  # only what the test asks for happens
    monkeypatch.setattr(governing, "SIDES", (1.0,))  # smaller detectors have a test of their own
    (tmp_path / "made").symlink_to(made)
    return tmp_path


def text(place: Path, limits: str) -> str:
    return CONFIG.format(folder=place, made=(place / "made").resolve(), limits=limits)


def config(place: Path, limits: str = "celsius = 70") -> Config:
    return parse(text(place, limits), base=place)


@contextmanager
def running(config: Config) -> Iterator[Agent]:
    agent, stop = Agent(config), threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        until(lambda: all(line.stats.samples for line in agent.lines), "both answer")
        yield agent
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()


def ticks(agent: Agent, seconds: int, at: float) -> float:
    """Let the governor look every two seconds of a made-up clock; when that is then."""
    for second in range(0, seconds, 2):
        agent.governor.tick(at + second)
    return at + seconds


def test_a_hot_board_steps_down_to_pauses_and_comes_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = Sensors(place, monkeypatch)
    with running(config(place)) as agent:
        yard, door = agent.lines
        now = ticks(agent, 400, time.monotonic() + 100)
        state = agent.governor.state
        assert state is not None and state.rung == 0 and state.met and state.reading == {"celsius": 40.0}
        assert agent.state.health()["limits"] == "ok" and yard.saves == door.saves == "" and door.rate == 1
        sensors.say(60)
        now = ticks(agent, 40, now)
        sensors.say(68.2)
        now = ticks(agent, 20, now)
        assert 0 < (agent.governor.state or state).rung < len(PLANS)
        assert isinstance(yard.teams[0][0], Thinned) and "of the frames" in yard.saves and door.rate < 1
        health = agent.state.health()
        assert "68 of 70 °C" in str(health["limits"]) and health["governor"]["rung"] > 0  # type: ignore[index]
        taken, came = door.taken, door.stats.samples
        until(lambda: door.stats.samples > came + 2, "it still answers, though not each frame")
        assert door.taken > taken
        sensors.say(75)
        now = ticks(agent, 300, now)
        worst = agent.governor.state
        assert worst is not None and not worst.met and worst.why.startswith("cannot be met: 75 of 70 °C")
        for line in (yard, door):
            stream, _ = line.says
            assert stream.condition == "paused" and "[limits]" in stream.why and line.stop.paused
        assert agent.state.states()["door"]["by_command"] == "", "no command has done that"
        sensors.say(40)
        ticks(agent, 4000, now)
        assert (agent.governor.state or worst).rung == 0 and not yard.stop.paused and not door.stop.paused
        came = yard.stats.samples
        until(lambda: yard.stats.samples > came, "it goes on")


def test_the_lowest_priority_is_paused_first_and_what_a_command_paused_stays_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sensors = Sensors(place, monkeypatch)
    with running(config(place)) as agent:
        yard, door = agent.lines
        governor = agent.governor
        assert governor._ladder is not None
        governor._ladder.rung = len(PLANS)
        governor._apply()
        assert door.stop.paused and not yard.stop.paused
        agent.work.controls.verbs["pause"](b'{"pipeline": "door"}', lambda reply: None)
        sensors.say(40)
        ticks(agent, 4000, time.monotonic() + 100)
        assert governor._ladder.rung == 0
        assert door.stop.paused and "by command" in door.says[0].why and door.held is None
        agent.work.controls.verbs["pause"](b'{"pipeline": "door", "paused": false}', lambda reply: None)
        assert not door.stop.paused


def test_a_sensor_that_vanishes_leaves_it_on_the_safe_rung(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sensors = Sensors(place, monkeypatch)
    with running(config(place)) as agent:
        now = ticks(agent, 400, time.monotonic() + 100)
        sensors.say(255)
        now = ticks(agent, 100, now)
        state = agent.governor.state
        assert state is not None and state.rung > 0 and "255 °C" in state.why and state.reading == {}
        sensors.zone.unlink()
        now = ticks(agent, 100, now)
        assert "no sensor of heat is there" in str(agent.state.health()["limits"])


def test_limits_change_while_it_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Sensors(place, monkeypatch)
    with running(config(place)) as agent:
        agent.governor.turn_to(Limits())
        agent.governor.tick(time.monotonic())
        assert agent.governor.state is None and agent.lines[0].saves == "" and "governor" not in agent.state.health()
        agent.governor.turn_to(Limits(celsius=30))
        ticks(agent, 400, time.monotonic() + 100)
        assert agent.governor.state is not None and not agent.governor.state.met


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ("celsius = 35", "it is 40 °C here"),
        ("memory_mb = 64", "cannot be met: with the models"),
        ("watts = 3", "says how many watts"),
    ],
)
def test_limits_that_cannot_be_met_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], limits: str, told: str
) -> None:
    Sensors(place, monkeypatch)
    file = place / "agent.toml"
    file.write_text(text(place, limits))
    assert main(["check", "-c", str(file)]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and error.count("\n") == 0 and "limits." in error
    file.write_text(text(place, "celsius = 70\ncpu_percent = 400\nmemory_mb = 4000"))
    assert main(["check", "-c", str(file)]) == 0
    assert "limits: " in capsys.readouterr().out


def test_watts_are_those_of_the_sensor_that_says_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "SYS", tmp_path)
    assert board.watts() is None and board.temperatures() == [] and board.warmest() == 0.0
    rails = {"power1_input": "4200000", "power1_average": "5100000", "power2_input": "-"}
    for number, (name, said) in enumerate(rails.items()):
        (tmp_path / f"class/hwmon/hwmon{number}").mkdir(parents=True)
        (tmp_path / f"class/hwmon/hwmon{number}" / name).write_text(said)
    assert board.watts() == 5.1


def _heated(
    agent: subprocess.Popen[bytes], sensors: Sensors, seconds: float, other: float, warm: float
) -> tuple[float, float]:
    """A board that the agent's own load and a neighbour heat up; how warm it is then, and was at most."""
    spent, most = _spent(agent.pid), warm
    for _ in range(round(seconds / 0.5)):
        time.sleep(0.5)
        now = _spent(agent.pid)
        warm += (30 + 90 * min(1.5, (now - spent) / 0.5) + other - warm) * 0.5 / 12
        spent, most = now, max(most, warm)
        sensors.say(warm)
    return warm, most


def _spent(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.slow
def test_the_real_agent_beside_a_neighbour_that_heats_the_board(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It steps down, stays below the limit, and comes back; `say` stands for the heat that both make."""
    sensors = Sensors(place, monkeypatch)
    file = place / "agent.toml"
    file.write_text(text(place, "celsius = 60"))
    words = [sys.executable, "-m", "edge_agent", "run", "-c", str(file)]
    env = {"EDGE_AGENT_SYS": str(sensors.folder), "EDGE_AGENT_HOME": str(place / "home"), "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=env) as agent:
        try:
            _heated(agent, sensors, 90, 0.0, 35.0)
            _, most = _heated(agent, sensors, 40, 24.0, 40.0)
            assert most < 60
            _heated(agent, sensors, 60, 0.0, 50.0)
        finally:
            agent.terminate()
            log = agent.stderr.read().decode() if agent.stderr else ""
    downs, ups = log.count("of 60 °C"), log.count("there is room again")
    assert downs and ups, log
