"""A third kind of sample: sound from a source and a task of a test goes the whole way."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_agent.agent.capture import capture
from edge_agent.agent.first import first_sample
from edge_agent.agent.line import make_line
from edge_agent.config import Pipeline
from edge_agent.errors import ConfigError, ModelError
from edge_agent.events import Event, ScoresEvent
from edge_agent.serving.models import Models
from edge_agent.sources import SCHEMES, Here, Opened
from edge_agent.tasks import TASKS, TaskRow
from edge_agent.tasks.chain import fitting
from edge_agent.types import Audio, Detections, Finding, Frame, ModelRef, Scores, Spans, StreamState
from edge_agent.uri import Uri
from edge_agent.walk.event import to_event
from edge_agent.walk.pipeline import run
from edge_agent.walk.report import Report
from tests.agent.test_agent import pipeline
from tests.agent.test_running import turning

MODEL = ModelRef("ear", "1", "0" * 64)
LOUD = (0.0, 0.0, 0.9, 0.9, 0.0)


def sound(level: float = 0.0) -> Audio:
    return Audio(np.full(1600, level, np.float32), 1.7e9, 1.0)


def tone(uri: Uri, here: Here) -> Opened:
    """A source of five samples, of which two are loud."""

    def samples(stop: threading.Event) -> Iterator[Audio | StreamState]:
        yield StreamState("ok")
        yield from map(sound, LOUD)

    return Opened(samples, Audio, live=False)


def live(uri: Uri, here: Here) -> Opened:
    """The same as it comes."""
    return msgspec.structs.replace(tone(uri, here), live=True)


class Loud:
    """A task that says how loud it is."""

    takes: tuple[type, ...] = (Audio,)

    def __call__(self, item: Audio) -> Iterator[Finding]:
        level = float(np.abs(item.samples).max())
        label = "loud" if level > 0.5 else "quiet"
        yield Finding(item, Scores(label, 1.0, {label: 1.0}), MODEL)


def loud(uri: Uri, model: object, home: Path) -> Loud:
    return Loud()


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(SCHEMES, "tone", f"{__name__}:tone")
    monkeypatch.setitem(TASKS, "loud", TaskRow(make=f"{__name__}:loud", takes=Audio, gives=Scores))


def line(*names: str, **more: Any) -> Any:
    return make_line(Pipeline("hall", "tone:", list(names), **more), Models(threads=1), None)


@pytest.mark.parametrize(("report", "said"), [("every", 5), ("changes", 3), (None, 5)])
def test_sound_goes_through_line_report_and_event(report: str | None, said: int) -> None:
    made, events = line("loud", report=report), list[Event]()
    assert made.box.size == Audio.room
    capture(made, lambda: None)
    out = Report(made.config, False, lambda event, kind, mark: events.append(event), lambda mark: None, lambda: False)
    run(made.box, made.teams[0], out.worth, out.keep, made.stats, out.done)
    out.end()
    assert made.stats.samples == 5 and made.stats.bad == 0 and len(events) == said
    assert all(isinstance(event, ScoresEvent) and not event.text and not event.name for event in events)
    assert {event.label for event in events if isinstance(event, ScoresEvent)} == {"loud", "quiet"}
    assert first_sample(line("loud"))[1].startswith("hall: 0.5 s of sound at -5 dB after ")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], r'tasks: sound needs a task; write tasks = \["transcribe:whisper-tiny"\]'),
        (["detect:x"], 'task "detect" takes pictures, but sound comes to it; change the source, or name a task'),
        (["classify:x"], 'task "classify" takes text, but sound comes to it'),
        (["loud", "embed:x"], 'task "embed" takes text, but what a task before it found comes to it'),
        (["crop"], 'task "crop" takes boxes, but sound comes to it'),
    ],
)
def test_a_chain_that_cannot_hear_is_refused(names: list[str], says: str) -> None:
    with pytest.raises(ConfigError, match=f"pipeline hall: .*{says}"):
        line(*names)


def test_where_no_task_hears_a_task_of_ones_own_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name, row in TASKS.items() if row.takes is Audio]:
        monkeypatch.delitem(TASKS, name)
    with pytest.raises(ConfigError, match="sound needs a task; name one of your own"):
        line()
    assert fitting(Frame) == 'pictures need a task; write tasks = ["detect:detector"]'


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (Spans(np.zeros(0, np.int32), np.zeros(0, np.int32), (), np.zeros(0, np.float32)), "no event holds spans of"),
        (Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32), {}), "detections of"),
        (object(), "no event holds object yet"),
        (None, "no event holds sound alone; give the pipeline a task"),
    ],
)
def test_what_no_event_says_of_sound_is_said(what: Any, says: str) -> None:
    with pytest.raises(ModelError, match=f"hall: .*{says}"):
        to_event(sound() if what is None else Finding(sound(), what, MODEL), "hall")


def test_sound_of_another_form_is_refused_at_birth() -> None:
    for samples in (np.zeros((2, 8), np.float32), np.zeros(8, np.int16)):
        with pytest.raises(ValueError, match=r"an Audio is \(n,\) float32 of one channel"):
            Audio(samples, 0.0, 0.0)  # type: ignore[arg-type]


class Gatherer:
    """A task that puts sound together until it is told that nothing follows."""

    takes: tuple[type, ...] = (Audio,)
    under_way = False

    def __call__(self, item: Audio) -> Iterator[Finding]:
        self.under_way = not item.last
        if item.last:
            yield Finding(item, Scores("all", 1.0, {"all": 1.0}), MODEL)


def gatherer(uri: Uri, model: object, home: Path) -> Gatherer:
    return Gatherer()


def test_what_gathers_sound_is_told_the_end_of_it_by_the_agent_where_the_source_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TASKS, "gather", TaskRow(make=f"{__name__}:gatherer", takes=Audio, gives=Scores, alone=False))
    made, events = line("gather"), list[Event]()
    capture(made, lambda: None)
    out = Report(made.config, False, lambda event, kind, mark: events.append(event), lambda mark: None, lambda: False)
    run(made.box, made.teams[0], out.worth, out.keep, made.stats, out.done)
    assert len(events) == 1 and made.stats.samples == 6 and made.gathers and not made.under_way


def test_live_sound_waits_for_the_task_and_none_of_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "tone", f"{__name__}:live")
    made = line("loud")
    assert made.box.size == Audio.room and not made.box.newest and len(made.teams) == 1


def hum(uri: Uri, here: Here) -> Opened:
    """A microphone that hears nothing for ever."""

    def samples(stop: threading.Event) -> Iterator[Audio | StreamState]:
        yield StreamState("ok")
        stop.wait()

    return Opened(samples, Audio, live=True)


class Through:
    """A task that lets all sound through."""

    takes: tuple[type, ...] = (Audio,)
    gives = Audio

    def __call__(self, item: Audio) -> Iterator[Audio]:
        yield item


def through(uri: Uri, model: object, home: Path) -> Through:
    return Through()


def test_a_pipeline_with_a_task_put_in_goes_on_at_a_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEMES, "hum", f"{__name__}:hum")
    monkeypatch.setitem(TASKS, "through", TaskRow(make=f"{__name__}:through", takes=Audio, gives=Audio))
    row = TaskRow(make=f"{__name__}:loud", takes=Audio, gives=Scores, behind="through")
    monkeypatch.setitem(TASKS, "loud", row)
    hall = '[store]\npath = "store"\n' + pipeline("hall", "hum:", '"loud"')
    (tmp_path / "agent.toml").write_text(hall)
    with turning(tmp_path) as (agent, turn, _):
        (before,) = agent.lines
        assert [task.partition(":")[0] for task in before.config.tasks] == ["through", "loud"]
        turn(hall + pipeline("other", "hum:", '"loud"'))
        assert not agent.state.refused and agent.lines[0] is before and len(agent.lines) == 2
