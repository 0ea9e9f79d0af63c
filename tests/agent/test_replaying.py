"""A recording as a user makes it, and what comes of it once more."""

from __future__ import annotations

import json
import shutil
import stat
import threading
from pathlib import Path

import msgspec
import pytest

from edge_agent import config, types
from edge_agent.agent.agent import Agent
from edge_agent.agent.replaying import Replay
from edge_agent.config import Samples
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.events import Event, RuleEvent
from edge_agent.recorder.tape import Tape
from edge_agent.uri import parse_uri
from edge_agent.walk import recording
from tests.agent.test_agent import pipeline
from tests.agent.test_zones import LOWER, film, zone
from tests.cli.test_cli import run
from tests.tiny import tiny_detector

RULE = '[[rule]]\nname = "guest"\nwhen = { object = "person", in = "lawn" }\nfor = "0.5s"\n'


def written(tmp_path: Path, more: str = "", pace: str = "") -> Path:
    """A config with a film and texts, a zone and a rule that time makes true."""
    tiny_detector(tmp_path / "model")
    film(tmp_path / "film.avi", 16)
    (tmp_path / "texts.txt").write_text("one\ncall me at anna@example.org\n")
    yard = pipeline(
        "yard", f"files:film.avi?pace={pace}&frozen=off&dark=off", f'"detect:{tmp_path / "model"}", "track:?hits=2"'
    )
    texts = pipeline("texts", "lines:texts.txt?follow=false")
    lawn = zone("lawn", LOWER, 'pipeline = "yard"')
    file = tmp_path / "agent.toml"
    file.write_text(f'[device]\nid = "porch"\n{more}\n{yard}{texts}{lawn}{RULE}')
    return file


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording that `edge-agent record` made."""
    place = tmp_path_factory.mktemp("recorded")
    file = written(place, '[privacy]\nredact = ["email"]\n', "own")
    done = run(place, "record", "-c", str(file), "--out", str(place / "made"), "--for", "1m")
    assert done.returncode == 0 and f"{len(samples_of(place / 'made'))} samples" in done.stderr, done.stderr
    return place / "made"


def samples_of(folder: Path) -> list[recording.Row]:
    """On a busy box fewer than came: its film is paced as a camera is."""
    return [row for row in recording.rows(folder) if row.sample is not None]


def replayed(folder: Path, store: Path) -> Replay:
    store.mkdir()
    made = Replay(folder, store)
    made.run(threading.Event())
    return made


def test_the_same_comes_of_a_recording(recorded: Path, tmp_path: Path) -> None:
    then = [json.loads(line) for line in recording.events(recorded)]
    phases = [(one["kind"], one.get("phase")) for one in then if one["pipeline"] == "yard"]
    assert phases[0] == ("object", "new") and ("rule", "on") in [(one["kind"], one.get("phase")) for one in then]
    done = run(recorded.parent, "replay", str(recorded), "--json")
    said = json.loads(done.stdout)
    assert (
        done.returncode == 0
        and said["same"]
        and (said["samples"], said["events"]) == (len(samples_of(recorded)), len(then))
    )
    made = replayed(recorded, tmp_path / "store")
    assert recording.plain(made.said) == recording.plain([json.dumps(one).encode() for one in then])


def test_a_recording_is_for_its_user_alone_and_holds_no_more_than_may_be_kept(recorded: Path) -> None:
    files = [path for path in recorded.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in {file.parent for file in files}} == {0o700}
    texts = [row.sample.text for row in samples_of(recorded) if row.sample and row.sample.text]
    assert texts == ["one", "call me at [email]"]


def test_its_pictures_are_those_that_were_answered(recorded: Path) -> None:
    opened = config.parse(pipeline("again", f"replay:{recorded}?pipeline=yard", '"detect:m"')).pipeline[0].source
    from edge_agent.sources import open_source

    source = open_source(parse_uri(opened))
    frames = [one for one in source.run(threading.Event()) if isinstance(one, types.Frame)]
    assert source.yields is types.Frame and not source.live
    rows = [row.sample for row in samples_of(recorded) if row.pipeline == "yard"]
    assert [one.played for one in frames] == [row.played for row in rows if row]
    assert frames[0].image.shape == (64, 64, 3)
    with pytest.raises(ConfigError, match="there are yard, texts"):
        open_source(parse_uri(f"replay:{recorded}?pipeline=yart"))


@pytest.fixture
def copied(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copied"))


def head_with(folder: Path, **changed: object) -> None:
    head = recording.read_head(folder)
    (folder / recording.HEAD).write_bytes(msgspec.json.encode(msgspec.structs.replace(head, **changed)))


def refused(folder: Path, tmp_path: Path, says: str) -> None:
    with pytest.raises(EdgeAgentError, match=says) as error:
        replayed(folder, tmp_path / "store")
    assert "\n" not in str(error.value)


def test_another_model_file_is_refused(copied: Path, tmp_path: Path) -> None:
    head_with(
        copied, models=[msgspec.structs.replace(one, sha256="0" * 64) for one in recording.read_head(copied).models]
    )
    refused(copied, tmp_path, "no file of SHA-256 0000000000000000")


def test_another_version_is_refused(copied: Path, tmp_path: Path) -> None:
    head_with(
        copied, models=[msgspec.structs.replace(one, version="0.9") for one in recording.read_head(copied).models]
    )
    refused(copied, tmp_path, "0.9 answered then, and here it is tiny 1")


def test_a_missing_file_is_refused(copied: Path, tmp_path: Path) -> None:
    gone = sorted((copied / "data").iterdir())[2]
    gone.unlink()
    refused(copied, tmp_path, f"data/{gone.name}: is missing")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("nonsense\n", "line 1: JSON is malformed"),
        (
            '{"pipeline":"yard","wall":0,"mono":0,"sample":{"at":0,"mono":0,"file":"../../etc/passwd"}}\n',
            "is no file of",
        ),
        (
            '{"pipeline":"nobody","wall":0,"mono":0,"sample":{"at":0,"mono":0,"text":"x"}}\n',
            "is no pipeline that goes on",
        ),
        ("", "nothing was recorded"),
    ],
)
def test_what_a_stranger_made_is_one_line(copied: Path, tmp_path: Path, line: str, says: str) -> None:
    (copied / recording.ROWS).write_text(line)
    refused(copied, tmp_path, says)


def test_a_task_of_somebody_elses_is_not_run(copied: Path, tmp_path: Path) -> None:
    head = recording.read_head(copied)
    pipes = [msgspec.structs.replace(pipe, tasks=["theirs.module:task:x"]) for pipe in head.config.pipeline]
    head_with(copied, config=msgspec.structs.replace(head.config, pipeline=pipes))
    refused(copied, tmp_path, "code of theirs.module")


def test_other_events_are_told(copied: Path) -> None:
    lines = recording.events(copied)
    changed = [line.replace(b'"label":"person"', b'"label":"cat"') for line in lines if b'"text"' not in line]
    (copied / recording.EVENTS).write_bytes(b"".join(changed))
    done = run(copied.parent, "replay", str(copied))
    assert (
        done.returncode == 1 and "label is person, not cat" in done.stderr and "texts: 2 events, not 0" in done.stderr
    )


def test_the_agent_records_in_parts_and_keeps_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    file = written(tmp_path, '[store]\npath = "store"\n[samples]\nrecord = ["yard"]\n')
    loaded = config.load(file)
    agent = Agent(loaded, tape=Tape(tmp_path / "kept", 8000, 1.0))
    agent.run(threading.Event())
    made = sorted(recording.parts(tmp_path / "kept"))
    assert 1 < len(made) <= 4
    heads = [recording.read_head(one) for one in made]
    assert not heads[-1].fresh and [pipe.name for pipe in heads[-1].config.pipeline] == ["yard"]


def test_what_blur_hides_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    file = written(tmp_path, '[store]\npath = "store"\n[samples]\nrecord = true\n')
    file.write_text(file.read_text().replace('name = "yard"', 'name = "yard"\nblur = ["person"]'))
    with pytest.raises(ConfigError, match=r'samples.record: yard .* record = \["words"\]'):
        Agent(config.load(file))


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.recorder.tape.LEAST_FREE", 10**18)
    loaded = config.load(written(tmp_path, f'[store]\npath = "{tmp_path}/store"\n'))
    loaded = msgspec.structs.replace(loaded, samples=Samples(record=True))
    tape = Tape(tmp_path, 10**9, 1.0, whole=tmp_path / "made")
    agent, told = Agent(loaded, tape=tape), list[Event]()
    agent.keep.listeners.append(told.append)
    agent.run(threading.Event())
    assert tape.full.is_set() and not list((tmp_path / "made" / "data").iterdir())
    # where the film takes half a second the rule comes on, too
    assert sum(not isinstance(event, RuleEvent) for event in told) == 4
