"""Frames for a person to look through: which are kept, and what becomes of what a person corrected."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import UsageError
from edge_agent.events.objects import Tracked
from edge_agent.pictures.read import read_picture
from edge_agent.recorder import collect as module
from edge_agent.recorder.collect import Collect
from edge_agent.recorder.shown import Shown
from edge_agent.samples import collected, recorded
from edge_agent.samples.collected import About
from edge_agent.samples.labelled import labelled
from edge_agent.types import Detections, Finding, Frame, ModelRef
from tests.broker import until
from tests.cli.test_cli import run

NAMES = {0: "person", 7: "bear\x1b[2J/../x"}
IMAGE = np.add.outer(np.arange(60), np.arange(80))[..., None].repeat(3, 2).astype(np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def seen(
    clock: float, scores: list[float], labels: list[int] | None = None, objects: list[int] | None = None
) -> Finding:
    n = len(scores)
    near = Detections(
        np.array([[5, 5, 25 + at, 45] for at in range(n)], np.float32).reshape(n, 4),
        np.array(scores, np.float32),
        np.array(labels or [0] * n, np.int32),
        NAMES,
        0.5,
    )
    what = near
    if objects is not None:
        of = np.array(objects, np.int32)
        rows = {key: getattr(near, key)[: len(of)] for key in ("xyxy", "score", "label")}
        still = np.zeros(len(of), bool)
        what = Tracked(**rows, names=NAMES, object=of, still=still, alive=np.array([*objects, 99], np.int32), near=near)
    return Finding(Frame(IMAGE, 1.8e9 + clock, time.monotonic(), played=clock), what, ModelRef("m", "1", "0" * 64))


@pytest.fixture
def collect() -> Iterator[Collect]:
    """At once, and again as soon as may be."""
    made = Collect(["uncertain", "rare"], 0.0, 100, 1)
    made.add("yard", Shown([]))
    made.start()
    yield made
    made.stop()
    made.close()


def show(collect: Collect, *found: Finding) -> None:
    for item in found:
        collect.watch("yard", item.of, [item])


def notes() -> list[str]:
    return [one.about.note for one in collected.collected()]


def test_a_frame_is_kept_in_which_the_detector_was_not_sure(collect: Collect, home: Path) -> None:
    show(collect, seen(0, [0.9, 0.8]), seen(1, [0.9, 0.05]), seen(2, []))
    show(collect, seen(3, [0.9, 0.52, 0.49, 0.48]))
    until(lambda: len(notes()) == 1, "it is kept")
    ((path, about),) = collected.collected()
    assert about.why == "uncertain" and about.note == "3 boxes near the score 0.50"
    assert [box.label for box in about.boxes] == ["person"] * 4 and about.boxes[0].box == (5, 5, 25, 45)
    assert np.abs(read_picture(path).image.astype(int) - IMAGE).mean() < 3 and (about.width, about.height) == (80, 60)
    assert path.parent == home / "samples" / "collected" and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert recorded.samples() == [] and labelled() is None, "nothing of it counts before a person has corrected it"


def test_objects_that_are_lost_or_change_their_names_count(collect: Collect) -> None:
    show(collect, seen(0, [0.9, 0.9], objects=[1, 2]))
    show(collect, seen(1, [0.9, 0.9], [0, 7], objects=[1, 2]))
    until(lambda: "1 objects not seen, 1 called another name" in notes(), "it is kept")


def test_of_a_while_the_frame_with_the_most_of_it_is_kept() -> None:
    collect = Collect(["uncertain"], 3600.0, 100, 1)
    collect.add("yard", Shown([]))
    collect.start()
    show(collect, *(seen(at, [0.5] * n) for at, n in enumerate((2, 5, 3, 5, 1))))
    assert not notes()
    collect.stop()
    collect.close()
    assert notes() == ["5 boxes near the score 0.50"], "and what is a candidate at the end is kept, too"


def test_a_label_that_is_seldom_seen_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    collect = Collect(["rare"], 0.0, 100, 1)
    for pipeline in ("yard", "door"):
        collect.add(pipeline, Shown([]))
    collect.start()
    show(collect, *(seen(at, [0.9], objects=[at]) for at in range(60)))
    show(collect, seen(60, [0.9], [7], objects=[60]), seen(61, [0.9], [7], objects=[60]))
    until(lambda: len(notes()) == 1, "it is kept, once")
    (only,) = collected.collected()
    assert only.about.why == "rare" and only.about.note.startswith("bear") and only.path.name.isprintable()
    collect.stop()
    collect.close()
    # another run knows what was seen
    again = Collect(["rare"], 0.0, 100, 1)
    again.add("yard", Shown([]))
    assert again._lines["yard"].seen == {"person": 60, NAMES[7]: 1}
    for at in (0.0, 10.0, 100.0):  # things that are not tracked count again after a while
        show(again, seen(at, [0.9]))
    assert again._lines["yard"].seen["person"] == 62
    (collected.folder() / "seen.json").write_text("nonsense")
    assert not Collect(["rare"], 0.0, 100, 1)._counts


def test_the_oldest_go_and_a_disk_that_refuses_is_said_once(
    collect: Collect, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    about = About("2026-01-01T00:00:00Z", "yard", "rare", "n", "m", 80, 60, [])
    for number in range(5):
        collected.keep(f"aaaaaaaa-{number}.jpg", b"x", about, 3, 1)
        os.utime(collected.folder() / f"aaaaaaaa-{number}.jpg", (time.time() - 100 + number,) * 2)
    assert [one.path.name for one in collected.collected()] == [f"aaaaaaaa-{n}.jpg" for n in (2, 3, 4)]
    os.utime(collected.folder() / "aaaaaaaa-3.jpg", (time.time() - 90_000,) * 2)
    (collected.folder() / "aaaaaaaa-9.jpg").symlink_to("gone")  # as one that is deleted while the others are looked at
    collected.delete_old(3, 1)
    (collected.folder() / "aaaaaaaa-9.jpg").unlink()
    assert [one.path.name for one in collected.collected()] == ["aaaaaaaa-2.jpg", "aaaaaaaa-4.jpg"]
    collected.delete([one.path.name for one in collected.collected()])
    (home / "samples" / "collected").rmdir()
    (home / "samples" / "collected").write_text("in the way")
    show(collect, seen(0, [0.5]), seen(1, [0.5]))
    until(lambda: collect._writing.empty() and caplog.records, "it is said")
    (home / "samples" / "collected").unlink()
    show(collect, seen(2, [0.5]))
    until(notes, "it goes on")
    assert len(caplog.records) == 1 and "nothing is collected meanwhile" in caplog.text


def test_what_a_person_corrected_is_what_models_are_gated_by(collect: Collect, tmp_path: Path, home: Path) -> None:
    show(collect, seen(0, [0.5, 0.9], [0, 7]))
    until(lambda: len(notes()) == 1, "it is kept")
    show(collect, seen(1, [0.5]))
    until(lambda: len(notes()) == 2, "and another one")
    listed = json.loads(run(tmp_path, "samples", "list", "--json").stdout)
    assert [len(row["boxes"]) for row in listed] == [2, 1]
    out = run(tmp_path, "samples", "list")
    assert out.stdout.count(".jpg") == 2 and "\x1b" not in out.stdout
    assert run(tmp_path, "samples", "export", str(tmp_path / "out")).returncode == 0
    again = run(tmp_path, "samples", "export", str(tmp_path / "out"))
    assert again.returncode == 2 and "is there already" in again.stderr
    body = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert len(body["images"]) == 2 and len(body["annotations"]) == 3
    assert body["annotations"][0]["bbox"] == [5, 5, 20, 40] and len(list((tmp_path / "out" / "images").iterdir())) == 2
    # a person takes the bear out, calls it a dog, and looks at the first picture alone
    body["images"] = body["images"][:1]
    body["annotations"] = [{**row, "category_id": 3} for row in body["annotations"] if row["image_id"] == 1]
    body["categories"] = [{"id": 3, "name": "dog"}, {"id": 0, "name": "person"}]
    (tmp_path / "corrected.json").write_text(json.dumps(body))
    took = run(tmp_path, "samples", "take", str(tmp_path / "corrected.json"))
    assert took.returncode == 0 and "1 pictures and 2 boxes taken" in took.stderr, took.stderr
    found = labelled()
    assert found is not None
    frames, truth, names = found
    assert len(frames) == 1 and {names[int(key)] for key in truth.label} == {"dog"} and len(truth.label) == 2
    assert len(notes()) == 1 and [path.name for path in recorded.samples()] == [listed[0]["name"]]
    # the other one comes later, under ids of a tool of its own
    other: dict[str, list[dict[str, object]]] = {
        "images": [{"id": "x", "file_name": f"some/where/{listed[1]['name']}"}],
    }
    other |= {
        "annotations": [{"image_id": "x", "category_id": 3, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 3, "name": "cat"}],
    }
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert run(tmp_path, "samples", "take", str(tmp_path / "other.json")).returncode == 0
    found = labelled()
    assert found is not None
    _, truth, names = found
    assert sorted(names[int(key)] for key in truth.label) == ["cat", "dog", "dog"]


def test_what_makes_no_sense_is_one_line_and_changes_nothing(collect: Collect, tmp_path: Path) -> None:
    show(collect, seen(0, [0.5]))
    until(lambda: len(notes()) == 1, "it is kept")
    (tmp_path / "x.json").write_text(
        '{"images": [{"id": 1, "file_name": "../../etc/passwd"}], "annotations": [], "categories": []}'
    )
    for args, said in (
        (["take", str(tmp_path / "none.json")], "cannot be read"),
        (["take", str(tmp_path / "x.json")], "names none of the collected pictures"),
        (["delete"], "give names"),
        (["delete", "--all", "a"], "give names"),
        (["delete", "../seen.json"], "is none of those"),
        (["export", "/proc/nowhere"], "cannot be written"),
    ):
        done = run(tmp_path, "samples", *args)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert len(notes()) == 1
    (tmp_path / "bad.json").write_bytes(b"[" * 100_000)
    with pytest.raises(UsageError, match="give a COCO file"):
        collected.take(tmp_path / "bad.json")
    assert run(tmp_path, "samples", "delete", "--all").returncode == 0 and not notes()
    assert "nothing was kept" in run(tmp_path, "samples", "list").stderr and module.ENOUGH == 50
