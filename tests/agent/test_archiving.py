"""What the agent keeps is in its archive, too; that it cannot be archived keeps no event from being sent."""

from __future__ import annotations

import logging
import resource
import threading
import time
from pathlib import Path

import pytest

from edge_agent.agent.agent import Agent
from edge_agent.agent.archiving import Archiver, archiver_of
from edge_agent.agent.keep import Keep
from edge_agent.archive.archive import NAME, Archive
from edge_agent.config import parse
from edge_agent.config.archive import Archived
from edge_agent.errors import ConfigError
from edge_agent.outbox.outbox import Outbox
from tests.archive.made import event

CONFIG = """
[store]
path = "store"
[archive]
{more}
[[pipeline]]
name = "said"
source = "lines:said.txt?from=start&follow=no"
[[pipeline]]
name = "other"
source = "lines:other.txt?from=start&follow=no"
"""


def run(folder: Path, more: str = "") -> Agent:
    (folder / "said.txt").write_text("the postman is here\nhe left a parcel\n")
    (folder / "other.txt").write_text("private\n")
    agent = Agent(parse(CONFIG.format(more=more), base=folder))
    agent.run(threading.Event())
    return agent


def test_what_is_kept_is_archived_when_the_agent_has_stopped(tmp_path: Path) -> None:
    agent, wanted = run(tmp_path), {"the postman is here", "he left a parcel", "private"}
    # a disk that is slow may still be at it: the stop waits for a second
    _wait(lambda: {kept.text for kept in Archive(tmp_path / "store" / NAME, new=False).events()} == wanted)
    assert agent.outbox.counts.put == 3 and agent.state.health()["archive"] == "ok"


def test_only_the_pipelines_that_are_named_are_archived(tmp_path: Path) -> None:
    run(tmp_path, 'pipelines = ["said"]')
    _wait(lambda: Archive(tmp_path / "store" / NAME, new=False).values("pipeline") == ["said"])


def test_a_pipeline_that_is_none_is_said() -> None:
    with pytest.raises(ConfigError, match=r'archive.pipelines: "sad" is none; did you mean "said"'):
        parse(CONFIG.format(more='pipelines = ["sad"]'))


def test_an_archive_that_cannot_be_opened_keeps_no_event_from_being_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store" / NAME).mkdir(parents=True)
    with caplog.at_level(logging.ERROR):
        agent = run(tmp_path)
    assert agent.outbox.counts.put == 3 and "events are sent, and are not archived" in caplog.text
    assert "unable to open" in str(agent.state.health()["archive"])


def test_a_full_disk_is_said_and_the_archive_goes_on_afterwards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archiver, state = archiver_of(Archived(), tmp_path, keep := Keep(Outbox(tmp_path / "outbox", "edge")))
    assert archiver is not None and keep.listeners == [archiver]
    archiver.start()
    archiver(event(1))
    _wait(lambda: archiver.archive.count() == 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # no file may grow beyond this: what a full disk does to a write, for a user who is root, too
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    try:
        archiver(event(2))
        _wait(lambda: archiver.missed == 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert state() != "ok" and "events are sent, and are not archived meanwhile" in caplog.text
    archiver(event(3))
    _wait(lambda: archiver.archive.count() == 2 and state() == "ok")
    assert "1 events are not in it" in caplog.text
    archiver.close(60)
    keep.outbox.close()


def test_what_comes_too_fast_is_counted_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_agent.agent.archiving.WAITING", 3)
    archiver = Archiver(Archived(), tmp_path)
    for number in range(1, 6):
        archiver(event(number))
    assert archiver.missed == 2 and "the disk is too slow" in caplog.text
    archiver.start()
    _wait(lambda: archiver.archive.count() == 3)
    archiver.close(60)


def test_a_disk_that_is_too_slow_for_a_stop_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    archiver, go = Archiver(Archived(), tmp_path), threading.Event()
    held = archiver.archive.add
    monkeypatch.setattr(archiver.archive, "add", lambda events: held(events) if go.wait(60) else 0)
    archiver.start()
    archiver(event(1))
    archiver.close(0.1)
    assert "the last events may not be in it" in caplog.text
    go.set()
    archiver.close(60)
    again = Archiver(Archived(), tmp_path)
    assert again.archive.count() == 1
    again.close(60)


def _wait(until: object) -> None:
    assert callable(until)
    deadline = time.monotonic() + 120
    while not until():
        assert time.monotonic() < deadline
        time.sleep(0.01)
