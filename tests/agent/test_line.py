"""A pipeline made ready: how many frames it answers at once."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from edge_agent.agent.line import Line, make_line, pace_of
from edge_agent.config import Pipeline
from edge_agent.errors import ConfigError
from edge_agent.serving.models import Models
from edge_agent.serving.order import Pace, pays
from edge_agent.sources import Opened
from edge_agent.types import Finding, Frame, Text
from edge_agent.walk.pipeline import run_abreast
from edge_agent.walk.report import reporter
from tests.tiny import tiny_detector


def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo: Path, workers: int, more: str = "") -> Line:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    model = tiny_detector(tmp_path / "model")
    pipe = Pipeline("yard", f"files:{demo}{more}", [f"detect:{model}"], workers=workers)
    return make_line(pipe, Models(threads=2), None)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_as_many_tasks_as_frames_are_answered_at_once(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_pictures: Path
) -> None:
    line = made(tmp_path, monkeypatch, demo_pictures, workers)
    assert len(line.teams) == max(1, workers), "0: nobody has measured that more do better"
    threads = "threads=1" if workers == 2 else "threads=2"
    tasks = [team[0] for team in line.teams]
    assert all(threads in task.model.net.reasons[-1] for task in tasks)  # type: ignore[attr-defined]
    assert len({id(task.model) for task in tasks}) == 1, "they share one network"  # type: ignore[attr-defined]
    assert len({id(task.prepare) for task in tasks}) == len(tasks), "each has its own buffers"  # type: ignore[attr-defined]
    assert not line.box.fresh, "no camera: every picture is answered"


def test_one_worker_on_a_camera_waits_for_fresh_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_pictures: Path
) -> None:
    assert made(tmp_path, monkeypatch, demo_pictures, 1, "?fps=30").box.fresh
    assert not made(tmp_path, monkeypatch, demo_pictures, 0, "?fps=30").box.fresh, "only where it was asked for"


def test_frames_answered_at_once_keep_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_pictures: Path
) -> None:
    line = made(tmp_path, monkeypatch, demo_pictures, 2)
    frames = [item for item in line.opened.run(threading.Event()) if isinstance(item, Frame)] * 20
    names: list[str] = []

    def sink(found: object) -> None:
        assert isinstance(found, Finding) and isinstance(found.of, Frame)
        names.append(found.of.name)

    run_abreast(frames, line.teams, reporter("every"), sink, line.stats, line.box.close)
    assert names == [frame.name for frame in frames] and line.stats.samples == 60


def test_texts_answered_at_once_keep_their_order_and_get_their_own_vectors(tmp_path: Path) -> None:
    """Held against one worker by whose text a vector is nearest to: with another number of threads, an int8 network
    gives other digits on a processor without VNNI.
    """
    things = ["dogs", "lorries", "rain", "a song", "the bank", "bread", "a doctor", "snow", "the election", "a goal"]
    doings = ["arrived late", "cost too much", "made us happy", "were seen at sea", "went to school", "broke in two"]
    lines = [f"{one} {what} {'and more ' * n}" for one in things for n, what in enumerate(doings)]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n")
    answers = []
    for workers in (1, 2):
        pipe = Pipeline("words", f"lines:{tmp_path / 'in.txt'}", ["embed:edge-bert"], workers=workers)
        line = make_line(pipe, Models(threads=2), None)
        assert len(line.teams) == workers
        found: list[Finding] = []
        samples = [Text(text, 0.0, 0.0) for text in lines]
        run_abreast(samples, line.teams, reporter("every"), found.append, line.stats, line.box.close)  # type: ignore[arg-type]
        assert [one.of.text for one in found] == lines
        answers.append(np.array([one.what.vector for one in found]))  # type: ignore[union-attr]
    alike = answers[1] @ answers[0].T
    assert alike.argmax(axis=1).tolist() == list(range(len(lines)))
    assert alike.diagonal().min() > 0.98


@pytest.mark.parametrize(
    ("source", "yields", "live", "pace"),
    [
        ("camera:0", Frame, True, Pace(30.0)),
        ("files:v.mp4?fps=5", Frame, True, Pace(5.0)),
        ("files:v.mp4", Frame, False, Pace(float("inf"))),
        ("lines:-", Text, False, Pace(float("inf"))),
    ],
)
def test_how_fast_samples_come(source: str, yields: type, live: bool, pace: Pace) -> None:
    opened = Opened(run=lambda stop: iter(()), yields=yields, live=live)
    assert pace_of(Pipeline("p", source), opened) == pace


@pytest.mark.parametrize(
    ("per_second", "alone", "many", "together"),
    [
        (30.0, 20.0, 26.0, True),
        (30.0, 20.0, 19.5, True),
        (5.0, 20.0, 26.0, False),
        (30.0, 20.0, 17.0, False),
        (30.0, 40.0, 60.0, False),
    ],
)
def test_at_once_only_where_it_is_needed_and_not_clearly_worse(
    per_second: float, alone: float, many: float, together: bool
) -> None:
    assert pays({"alone_per_second": alone, "per_second": many}, Pace(per_second)) is together


def test_only_a_camera_of_the_network_is_isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    task = f"detect:{tiny_detector(tmp_path / 'model')}"
    with pytest.raises(ConfigError, match=r"pipeline yard: source: isolate: .* is not of the network"):
        make_line(Pipeline("yard", "camera:0", [task], isolate=True), Models(threads=1), None)
    plain, apart = (
        make_line(Pipeline("yard", "http://127.0.0.1:9/", [task], isolate=isolate), Models(threads=1), None)
        for isolate in (False, True)
    )
    assert apart.opened.run.__module__.endswith("isolated") and not plain.opened.run.__module__.endswith("isolated")


def test_a_pipeline_takes_turns_as_its_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_pictures: Path
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    task = f"detect:{tiny_detector(tmp_path / 'model')}"
    models = Models(threads=1)
    live = Pipeline("a", f"files:{demo_pictures}?fps=5", [task], priority=9, share=2.5, deadline_ms=200)
    client = make_line(live, models, None).client
    assert (client.priority, client.share, client.deadline, client.gives_up) == (9, 2.5, 0.2, True)
    client = make_line(Pipeline("b", f"files:{demo_pictures}", [task]), models, None).client
    assert (client.priority, client.share, client.deadline, client.gives_up) == (5, 1.0, float("inf"), False)
