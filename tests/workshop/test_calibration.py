"""Samples: what is read, what is refused, and that the network gets them as the agent gives them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge_agent.errors import InputError
from edge_agent.manifest import Served
from edge_agent.pictures.boxes import preparer
from edge_agent.registry import catalogue
from edge_agent.registry.files import file_path, parts_of
from edge_agent.types import Frame
from edge_agent.workshop.data.calibration import Samples, feeds, read, shared_with
from edge_agent.workshop.data.look import border
from edge_agent.workshop.evaluate import score
from tests.workshop.quantizable import SIZE, blobs, detector, pictures


def quiet(what: str, done: int, total: int) -> None:
    """Progress for nobody."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))


@pytest.fixture
def model(tmp_path: Path) -> Served:
    located = catalogue.locate(str(detector(tmp_path / "blobs", uneven=False)))
    return score.open_file(located.manifest, located.folder / "model.onnx", "onnx", {})


@pytest.fixture(scope="module")
def bert() -> Served:
    located = catalogue.locate("edge-bert")
    row = located.manifest.original()
    return score.open_file(located.manifest, file_path(located, row), row.format, parts_of(located))


def refused(data: Path, model: Served) -> str:
    with pytest.raises(InputError) as caught:
        read(data, model, 50, quiet)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_of_pictures_without_those_that_are_there_twice_or_broken(tmp_path: Path, model: Served) -> None:
    folder = pictures(tmp_path / "data", 6)
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"no picture")
    samples = read(folder, model, 50, quiet)
    assert len(samples.items) == 6 == len(set(samples.digests)) and len(samples.sha256) == 64
    assert any("twice" in note for note in samples.notes) and any("broken.jpg" in note for note in samples.notes)
    assert samples.sha256 == read(folder, model, 50, quiet).sha256
    assert len(read(folder, model, 6, quiet).items) == 4


def test_boxes_come_along(tmp_path: Path, model: Served) -> None:
    folder = pictures(tmp_path / "data" / "images", 5).parent
    rows = [{"image_id": i, "category_id": 1, "bbox": [i, 0, 8, 8]} for i in range(5)]
    files = [{"id": i, "file_name": f"{i:03d}.png", "width": SIZE, "height": SIZE} for i in range(5)]
    labels = {"images": files, "annotations": rows, "categories": [{"id": 1, "name": "red"}]}
    (folder / "instances.json").write_text(json.dumps(labels))
    samples = read(folder, model, 50, quiet)
    assert samples.truth is not None and samples.names == {1: "red"}
    one, other = samples.pick([0, 2, 4]), samples.pick([1, 3])
    assert [item.name for item in one.items if isinstance(item, Frame)] == ["000.png", "002.png", "004.png"]
    assert not set(one.digests) & set(other.digests)
    assert other.truth is not None and one.truth is not None
    assert other.truth.image.tolist() == [0, 1] and other.truth.xywh[:, 0].tolist() == [1, 3]
    assert one.truth.image.tolist() == [0, 1, 2] and one.truth.xywh[:, 0].tolist() == [0, 2, 4]
    assert score.name_of(model, one) == "mAP50-95 on labels"


def test_boxes_are_for_detectors_alone(tmp_path: Path, model: Served) -> None:
    pictures(tmp_path / "data", 4)
    images = [{"id": i, "file_name": f"{i:03d}.png", "width": SIZE, "height": SIZE} for i in range(4)]
    boxes = [{"image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12} for i in range(4)]
    labels = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}
    (tmp_path / "data" / "instances.json").write_text(json.dumps(labels))
    assert read(tmp_path / "data", model, 9, quiet).truth is not None
    classifier = msgspec.structs.replace(model, manifest=msgspec.structs.replace(model.manifest, task="recognise"))
    assert read(tmp_path / "data", classifier, 9, quiet).truth is None


def test_a_video_is_thinned(tmp_path: Path, model: Served) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (SIZE, SIZE))
    for number in range(20):
        writer.write(blobs(number))
    writer.release()
    samples = read(path, model, 8, quiet)
    names = [int(item.name.partition("#")[2]) for item in samples.items if isinstance(item, Frame)]
    assert names == [0, 4, 8, 12, 16]


def test_what_the_agent_recorded(tmp_path: Path, model: Served) -> None:
    pictures(tmp_path / "home" / "samples", 4)
    assert len(read(Path("recorded"), model, 50, quiet).items) == 4


def test_the_network_gets_what_the_agent_gives_it(tmp_path: Path, model: Served) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), np.hstack([blobs(number), blobs(number + 10)]))
    samples = read(folder, model, 50, quiet)
    assert model.input is not None
    prepare = preparer(model.input, model.net.inputs[0])
    for item, feed in zip(samples.items, feeds(model, samples), strict=True):
        assert isinstance(item, Frame) and list(feed) == ["images"]
        assert np.array_equal(feed["images"], prepare(item.image)[0])


@pytest.mark.parametrize("name", ["data.npz", "data.npy"])
def test_arrays_were_letterboxed_by_nobody_knows_whom(tmp_path: Path, model: Served, name: str) -> None:
    np.savez(tmp_path / name, np.zeros((4, 3, SIZE, SIZE)))
    assert "prepared elsewhere" in refused(tmp_path / name, model)


def test_pictures_that_were_letterboxed_before_are_refused(tmp_path: Path, model: Served) -> None:
    folder = tmp_path / "boxed"
    folder.mkdir()
    for number in range(5):
        canvas = np.full((4 * SIZE, 4 * SIZE, 3), 114, np.uint8)
        canvas[32:224] = cv2.resize(blobs(number), (256, 192))
        cv2.imwrite(str(folder / f"{number}.jpg"), canvas)
    assert "5 of 5 pictures have a border of grey 114" in refused(folder, model)
    assert border(np.asarray(blobs(0))) is None


def test_black_bars_of_a_film_are_its_own(tmp_path: Path, model: Served) -> None:
    folder = tmp_path / "film"
    folder.mkdir()
    for number in range(4):
        canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
        canvas[8:56] = cv2.resize(blobs(number), (SIZE, 48))
        cv2.imwrite(str(folder / f"{number}.png"), canvas)
    assert len(read(folder, model, 50, quiet).items) == 4


def test_nothing_to_calibrate_on(tmp_path: Path, model: Served, bert: Served) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "marks.txt").write_text("\u00ad\n\u00ad\u00ad\n")
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(4):
        (bad / f"{number}.jpg").write_bytes(b"no picture")
    few = pictures(tmp_path / "few", 3)
    assert "no picture" in refused(tmp_path / "empty", model)
    assert "none of 4 pictures can be read" in refused(bad, model)
    assert "3 different samples; give 4" in refused(few, model)
    assert "no such file" in refused(tmp_path / "absent", model)
    assert "no text in it" in refused(tmp_path / "empty.txt", bert)
    assert "none of 2 lines can be read" in refused(tmp_path / "marks.txt", bert)
    assert "no .txt file" in refused(tmp_path / "empty", bert)


def test_lines_of_text(tmp_path: Path, bert: Served) -> None:
    path = tmp_path / "said.txt"
    path.write_text("turn on the light\n\u00ad\nwhat is the time\nturn on the light\nplay some jazz\nstop\n")
    samples = read(path, bert, 50, quiet)
    assert len(samples.items) == 4 and any("cannot be read" in note for note in samples.notes)
    given = list(feeds(bert, samples))
    assert [set(feed) for feed in given] == [{spec.name for spec in bert.net.inputs}] * 4
    assert all(array.shape[0] == 1 for feed in given for array in feed.values())
    assert score.against(bert, samples)(bert) == pytest.approx(1.0)


def test_the_same_picture_saved_otherwise_is_found(tmp_path: Path, model: Served) -> None:
    one = read(pictures(tmp_path / "one", 5), model, 50, quiet)
    folder = pictures(tmp_path / "two", 4, first=20)
    cv2.imwrite(str(folder / "again.jpg"), blobs(2), [cv2.IMWRITE_JPEG_QUALITY, 90])
    two = read(folder, model, 50, quiet)
    assert shared_with(two, one) == ["again.jpg"]
    assert shared_with(one.pick([0, 1]), one) == ["000.png", "001.png"]


def test_a_broken_candidate_scores_nought_and_a_blind_parent_is_refused(tmp_path: Path, model: Served) -> None:
    from msgspec.structs import replace

    samples = read(pictures(tmp_path / "data", 4), model, 50, quiet)
    measure = score.against(model, samples)
    assert measure(model) == pytest.approx(1.0)
    broken = replace(model, net=replace(model.net, run=lambda feed: {"output": model.net.run(feed)["output"] * np.nan}))
    assert measure(broken) == 0.0
    dark = Samples([Frame(np.zeros((SIZE, SIZE, 3), np.uint8), 0.0, 0.0)] * 4, "dark", ["0"] * 4)
    with pytest.raises(InputError, match="finds nothing"):
        score.against(model, dark)
    assert set(score.times({"a": model, "b": model}, samples, 0.05)) == {"a", "b"}
