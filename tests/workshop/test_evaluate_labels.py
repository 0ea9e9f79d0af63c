"""`evaluate` on classifiers of pictures and on autoencoders: made networks, and the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from edge_agent.cli import main
from edge_agent.errors import UsageError
from edge_agent.manifest import Input, Served
from edge_agent.workshop.data.labelled import read_rows
from tests.registry.here import visual_wake_words
from tests.tasks import test_anomaly, test_recognise
from tests.workshop.test_evaluate import run

PAINT = {"blue": (255, 0, 0), "green": (0, 255, 0), "red": (0, 0, 255)}


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def named(model: Served, name: str) -> Served:
    return msgspec.structs.replace(model, ref=msgspec.structs.replace(model.ref, name=name))


@pytest.fixture
def colours(tmp_path: Path) -> dict[str, Served]:
    """One that names the brightest channel, one that names the darkest."""
    right = test_recognise.served(test_recognise.colours(tmp_path / "right.onnx"))
    wrong = test_recognise.served(test_recognise.colours(tmp_path / "wrong.onnx", gain=-10.0))
    return {"right": named(right, "right"), "wrong": named(wrong, "wrong")}


def painted(folder: Path, count: int = 2) -> Path:
    """A folder for each colour; one picture of green stands among the red ones."""
    for name, paint in PAINT.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            shade = PAINT["green"] if (name, i) == ("red", 0) else paint
            cv2.imwrite(str(folder / name / f"{name}{i}.png"), np.full((12, 16, 3), shade, np.uint8))
    return folder


def test_a_folder_for_each_label(colours: dict[str, Served], tmp_path: Path) -> None:
    data = painted(tmp_path / "data")
    found = run(colours, "right", str(data), "--save", str(tmp_path / "out"))
    assert (found["task"], found["samples"]) == ("recognise", 6)
    assert found["accuracy"] == pytest.approx(5 / 6, abs=1e-6)
    # 2 right / (true + said): blue 4/4, green 4/5, red 2/3
    assert found["f1"] == pytest.approx((1 + 4 / 5 + 2 / 3) / 3, abs=1e-6)
    assert found["labels"]["green"] == {"f1": 0.8, "samples": 2}
    # told apart: blue 1; green: one of four others ties with both; red: the stray one ties with all of blue and green
    assert found["auroc"] == pytest.approx((1 + 7 / 8 + 3 / 4) / 3, abs=1e-6)
    assert found["notes"] == [f"errors: 1 in {tmp_path / 'out'}, the worst first"]
    sheet = cv2.imread(str(tmp_path / "out" / "worst.jpg"))
    assert sheet is not None and np.abs(sheet[100, 100].astype(int) - PAINT["green"]).max() < 12
    assert run(colours, "right", str(data), "--score", "1")["doubted"] == 1


def test_against_a_parent(colours: dict[str, Served], tmp_path: Path) -> None:
    data = painted(tmp_path / "data")
    found = run(colours, "wrong", str(data), "--against", "right")
    assert found["accuracy"] == 0 and found["against"]["agreement"] == 0
    assert found["against"]["on_labels"]["accuracy"] == pytest.approx(5 / 6, abs=1e-6)
    plain = run(colours, "right", str(data / "blue"), "--against", "right")
    assert plain["against"]["agreement"] == plain["against"]["agreement_f1"] == 1 and "accuracy" not in plain
    other = msgspec.structs.replace(
        colours["wrong"], manifest=msgspec.structs.replace(colours["wrong"].manifest, labels=["a", "b", "c"])
    )
    with pytest.raises(UsageError, match="its labels are not those of right"):
        run({**colours, "wrong": other}, "right", str(data), "--against", "wrong")


TABLES: dict[str, Callable[[list[tuple[str, str]]], str]] = {
    "labels.csv": lambda rows: "file,label\n" + "\n".join(f"{file},{label}" for file, label in rows),
    "labels.tsv": lambda rows: "class\tsize\timage\n" + "\n".join(f"{label}\t1\t{file}" for file, label in rows),
    "labels.json": lambda rows: json.dumps(dict(rows)),
    "list.json": lambda rows: json.dumps([{"image": file, "label": label} for file, label in rows]),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("number", [False, True])
def test_a_table_of_files_and_labels(colours: dict[str, Served], tmp_path: Path, name: str, number: bool) -> None:
    data = painted(tmp_path / "data")
    paths = sorted(data.glob("*/*.png"))
    labels = [str(list(PAINT).index(path.parent.name)) if number else path.parent.name for path in paths]
    rows = [(str(path.relative_to(data)), label) for path, label in zip(paths, labels, strict=True)]
    (data / name).write_text(TABLES[name](rows))
    asked = data if name.startswith("labels") else data / name
    assert run(colours, "right", str(asked))["accuracy"] == pytest.approx(5 / 6, abs=1e-6)
    assert len(read_rows(asked, True, 3)) == 3


def test_pictures_that_cannot_be_read_are_left_out_and_named(colours: dict[str, Served], tmp_path: Path) -> None:
    data = painted(tmp_path / "data")
    (data / "red" / "red0.png").write_bytes(b"no picture")
    found = run(colours, "right", str(data), "--against", "wrong")
    assert (found["samples"], found["accuracy"]) == (5, 1)
    assert found["notes"][0].startswith("1 samples cannot be taken and are left out: red0.png: ")
    (data / "purple").mkdir()
    cv2.imwrite(str(data / "purple" / "a.png"), np.zeros((4, 4, 3), np.uint8))
    notes = run(colours, "right", str(data))["notes"]
    assert "1 samples have a label that the model cannot say, and count as wrong: purple" in notes


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, r"cannot be read \(No such file or directory\); give a folder with a folder for each label"),
        ("a.tsv", b"x\ty\na.png\tred\n", 'its first row names no columns "file" and "label"'),
        ("a.csv", b"file,label\nnone.png,red\n", "row 1: none.png is not there"),
        ("a.csv", b"file,label\na.png\n", "row 2 has 1 columns, the first has 2"),
        ("a.csv", b"file,label\n", "no picture in it"),
        ("a.csv", b"\xff\xfe", "no UTF-8 text"),
        ("a.json", b"{", "broken JSON"),
        ("a.json", b"[1]", "entry 1 names no file and label"),
        ("a.json", b"7", "entry 1 names no file and label"),
        ("a.json", b'{"images": [], "annotations": []}', "COCO's boxes are for detectors"),
        ("a.txt", b"hello", "not such data"),
        ("none", None, "no such file or folder; give a folder"),
        ("empty/x.txt", b"", "no picture in it"),
        ("odd/car/x.png", b"", "none of 1 samples can be taken|no class in common"),
        ("flat/x.png", b"", "samples without labels; give --against PARENT, or a folder"),
    ],
)
def test_data_that_is_none_is_one_line(
    colours: dict[str, Served], tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    asked = tmp_path / Path(name).parts[0]
    with pytest.raises(UsageError, match=said) as caught:
        run(colours, "right", str(asked))
    assert "\n" not in str(caught.value)


def test_options_of_other_tasks_are_refused(colours: dict[str, Served], tmp_path: Path) -> None:
    for wrong in (["--iou", "0.5"], ["--labels", "x"]):
        with pytest.raises(UsageError, match=f"{wrong[0]}: not for right, whose task is recognise"):
            run(colours, "right", str(tmp_path), *wrong)


# ── autoencoders ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def means(tmp_path: Path) -> dict[str, Served]:
    """Its error is the variance of what goes in."""
    model = test_anomaly.served(test_anomaly.mean_only(tmp_path / "m.onnx"))
    return {"mean": model, "parent": named(model, "parent")}


def test_errors_of_numbers_tell_the_unusual(means: dict[str, Served], tmp_path: Path) -> None:
    for kind, lines in {"normal": ["1 1 1 1", "1 1 1 2", "0 0 0 4"], "leak": ["9 0 9 0", "1 1 1 3"]}.items():
        (tmp_path / "data" / kind).mkdir(parents=True)
        (tmp_path / "data" / kind / "a.txt").write_text("\n".join(lines))
    np.array([5, 0, 5, 0, 5, 0, 5, 0], "<f4").tofile(tmp_path / "data" / "leak" / "b.bin")
    found = run(means, "mean", str(tmp_path / "data"), "--against", "parent", "--save", str(tmp_path / "out"))
    # errors: normal 0, 0.1875, 3; unusual 20.25, 0.75, 6.25 (the mean of two windows)
    assert (found["task"], found["samples"]) == ("anomaly", 6)
    assert found["auroc"] == pytest.approx(8 / 9, abs=1e-6)
    # all three caught and one false (6/7) is better than two of three caught (4/5)
    assert found["limit"] == pytest.approx((0.1875 + 0.75) / 2) and found["f1"] == pytest.approx(6 / 7, abs=1e-6)
    assert found["accuracy"] == pytest.approx(5 / 6, abs=1e-6)
    assert found["normal"] == {"samples": 3, "error": 0.1875}
    assert found["against"]["spearman"] == 1 and found["against"]["on_labels"]["auroc"] == found["auroc"]
    rows = (tmp_path / "out" / "worst.tsv").read_text().splitlines()
    assert rows[1:3] == ["a.txt:3\tnormal\t3", "a.txt:2\tleak\t0.75"] and len(rows) == 7


def test_labels_may_stand_beside_the_numbers(means: dict[str, Served], tmp_path: Path) -> None:
    table = tmp_path / "a.tsv"
    table.write_text("numbers\tlabel\n1 1 1 1\tok\n1,1,1,2\tok\n9 0 9 0\tbad\n1 2 3\tbad\n")
    found = run(means, "mean", str(table))
    assert (found["auroc"], found["f1"], found["samples"]) == (1, 1, 3)
    assert "a.tsv:4: the line has 3 numbers, the network takes 4" in found["notes"][0]


def test_pictures_of_what_is_unusual(tmp_path: Path) -> None:
    how = Input(4, 4, scale=1 / 255, letterbox="stretch")
    model = test_anomaly.served(test_anomaly.mean_only(tmp_path / "m.onnx", (1, 3, 4, 4)), input=how)
    for kind, top in (("good", 10), ("scratch", 255)):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(2):
            image = np.zeros((8, 8, 3), np.uint8)
            image[: 4 - i] = top
            cv2.imwrite(str(tmp_path / "data" / kind / f"{i}.png"), image)
    found = run({"m": model}, "m", str(tmp_path / "data"), "--save", str(tmp_path / "out"))
    assert found["auroc"] == 1 and (tmp_path / "out" / "worst.jpg").is_file()


@pytest.mark.parametrize(
    ("kinds", "more", "said"),
    [
        (["a", "b"], [], "labels a, b; what is usual has to be called normal or good or ok"),
        (["normal", "good"], [], "something else has to be there"),
        ([""], [], "samples without labels; give --against PARENT, or folders normal/ and anomalous/"),
        ([""], ["--against", "parent", "--save", "out"], "without labels, there are no errors to show"),
        (["normal", "bad"], ["--score", "0.5"], "--score: not for mean, whose task is anomaly"),
    ],
)
def test_each_wrong_use_with_numbers_is_one_line(
    means: dict[str, Served],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kinds: list[str],
    more: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in kinds:
        (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / kind / "a.txt").write_text("1 2 3 4\n")
    with pytest.raises(UsageError, match=said):
        run(means, "mean", "data", *more)


# ── real files, as a user types it ───────────────────────────────────────────────────────────────────────


def test_the_published_models(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = json.loads((data / "coco_val94" / "instances.json").read_text())
    (person,) = (row["id"] for row in coco["categories"] if row["name"] == "person")
    area = {row["id"]: row["width"] * row["height"] for row in coco["images"]}
    # Visual Wake Words: a person that takes more than 0.5 % of the picture (Chowdhery et al., arXiv 1906.05721)
    boxes = [row for row in coco["annotations"] if row["category_id"] == person]
    large = {row["image_id"] for row in boxes if row["bbox"][2] * row["bbox"][3] > 0.005 * area[row["image_id"]]}
    folder = data.absolute() / "coco_val94" / "images"
    rows = [f"{folder / row['file_name']},{int(row['id'] in large)}" for row in coco["images"]]
    (tmp_path / "vww.csv").write_text("\n".join(["file,label", *rows]))
    models = data / "models"
    argv = ["evaluate", str(models / "vww_96_int8.tflite"), str(tmp_path / "vww.csv"), "--json"]
    assert main([*argv, "--against", visual_wake_words(data)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0.68 < found["accuracy"] < 0.8 and found["auroc"] > 0.8 and found["against"]["agreement"] > 0.96

    sound = np.frombuffer((models / "normal_id_01_00000000_hist_librosa.bin").read_bytes(), "<f4").reshape(-1, 640)
    noise = np.random.default_rng(0).normal(0, 3, sound.shape)
    for kind, windows in (("normal", sound), ("anomalous", (sound + noise).astype("<f4"))):
        (tmp_path / "sound" / kind).mkdir(parents=True)
        for i in range(0, 40, 8):
            windows[i : i + 8].tofile(tmp_path / "sound" / kind / f"{i}.bin")
    argv = ["evaluate", str(models / "ad01_int8.tflite"), str(tmp_path / "sound"), "--json"]
    assert main([*argv, "--against", str(models / "ad01_fp32.tflite")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["auroc"] == 1 and 10 < found["limit"] < 30 and found["against"]["spearman"] > 0.9
