"""Training a detector: on pictures made here, with labels made here; small and few, on two threads."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='training needs PyTorch: pip install "edge-agent-runtime[train]"')

from edge_agent.backends import open_net  # noqa: E402
from edge_agent.errors import EdgeAgentError, InputError, ModelError, RefusedError, UsageError  # noqa: E402
from edge_agent.pictures.read import read_picture  # noqa: E402
from edge_agent.workshop import train  # noqa: E402
from edge_agent.workshop.train import loop, options  # noqa: E402
from edge_agent.workshop.train.detector import fit  # noqa: E402
from edge_agent.workshop.train.detector.augment import Picture, augmented, plain  # noqa: E402
from edge_agent.workshop.train.detector.data import labelled_by, read_pictures  # noqa: E402
from edge_agent.workshop.train.detector.export import tensors_of, to_onnx  # noqa: E402
from edge_agent.workshop.train.detector.loss import losses, merged, mirrored, targets_from_boxes  # noqa: E402
from edge_agent.workshop.train.detector.net import EdgeYolo, folded_copy, from_folded, narrowed, new_net  # noqa: E402
from edge_agent.workshop.train.detector.recipe import CLASSES as USUAL  # noqa: E402
from edge_agent.workshop.train.detector.recipe import train_detector  # noqa: E402
from edge_agent.workshop.train.detector.teacher import Dense, cells  # noqa: E402
from edge_agent.workshop.train.finish import read_curve  # noqa: E402

CLASSES = ("red", "blue")
COLOURS = {"red": (30, 30, 220), "blue": (220, 60, 30)}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO JSON with 12 pictures in images/ beside it: coloured boxes on noise."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    random = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    for number in range(12):
        picture = random.integers(90, 140, (120, 160, 3)).astype(np.uint8)
        for _ in range(2):
            kind = int(random.integers(2))
            width, height = (int(v) for v in random.integers(24, 60, 2))
            x, y = int(random.integers(0, 160 - width)), int(random.integers(0, 120 - height))
            picture[y : y + height, x : x + width] = COLOURS[CLASSES[kind]]
            boxes.append({"id": len(boxes), "image_id": number, "category_id": kind, "bbox": [x, y, width, height]})
        cv2.imwrite(str(folder / "images" / f"{number:02d}.png"), picture)
        images.append({"id": number, "file_name": f"{number:02d}.png", "width": 160, "height": 120})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES)]
    table = {"images": images, "annotations": boxes, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(table))
    return folder / "labels.json"


def quick(data: Path, out: Path, lines: list[str], **more: Any) -> EdgeYolo:
    """A training of a quarter of the width on pictures of 96 × 64 pixels."""
    given: dict[str, Any] = {
        "teacher": None, "start": "none", "width": 0.25, "classes": CLASSES, "minutes": None, "steps": 4,
        "size": (96, 64), "batch": 2, "device": "cpu", "say": lines.append,
    }  # fmt: skip
    given |= more
    say = given.pop("say")
    parser = argparse.ArgumentParser()
    options.add_arguments(parser, "detector")
    args = parser.parse_args(["--data", str(data), "--out", str(out)])
    vars(args).update({"part": (0.0, 1.0), **given})
    return train_detector(args, say)


def test_it_learns_writes_a_model_and_the_model_serves(shapes: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    quick(shapes, tmp_path / "colours", lines, steps=30)
    rows = read_curve(tmp_path / "colours" / "training" / loop.CURVE)
    assert rows[-1]["step"] == 30
    assert any("steps/s" in line and "s left" in line for line in lines)
    report = json.loads((tmp_path / "colours" / "report.json").read_text())
    assert {"class", "box", "held_class"} <= {one["y"] for one in report["plots"]}
    assert (tmp_path / "colours" / "report.html").is_file() and any(
        note.startswith("gate: ") for note in report["notes"]
    )

    from edge_agent.pictures.read import read_picture
    from edge_agent.serving.models import Models
    from edge_agent.tasks.detect.detect import detect
    from edge_agent.types import Detections, Finding
    from edge_agent.uri import Uri

    for file in (
        "colours/model.onnx",
        "colours/model.int8.onnx",
        "colours/model.fp16.tflite",
        "colours/model.int8.tflite",
    ):
        assert (tmp_path / file).stat().st_size > 10_000
    served = Models().serve(str(tmp_path / "colours"))
    assert served.manifest.names() == {0: "red", 1: "blue"}
    task = detect(Uri("detect", "x", {"score": "0.0001"}), served, tmp_path)
    (finding,) = task(read_picture(shapes.parent / "images" / "00.png"))
    assert isinstance(finding, Finding) and isinstance(finding.what, Detections) and len(finding.what)


def test_it_learns_from_a_yolo_folder_with_its_own_classes(shapes: Path, tmp_path: Path) -> None:
    table, folder = json.loads(shapes.read_text()), tmp_path / "yolo"
    (folder / "labels").mkdir(parents=True)
    (folder / "images").symlink_to(shapes.parent / "images")
    for image in table["images"]:
        own = [box for box in table["annotations"] if box["image_id"] == image["id"]]
        rows = [(b["category_id"], *(v / s for v, s in zip(b["bbox"], (160, 120) * 2, strict=True))) for b in own]
        told = "".join(f"{k} {x + w / 2:.6f} {y + h / 2:.6f} {w:.6f} {h:.6f}\n" for k, x, y, w, h in rows)
        (folder / "labels" / f"{image['id']:02d}.txt").write_text(told)
    (folder / "data.yaml").write_text("train: images\nnames: [red, blue]\n")
    lines: list[str] = []
    quick(folder, tmp_path / "out", lines, classes=None)
    assert f"12 pictures, {len(table['annotations'])} labels, 2 classes" in " ".join(lines)
    assert (tmp_path / "out" / "labels.txt").read_text() == "red\nblue\n"


def test_a_ruin_is_refused_in_one_line_and_no_model_is_written(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"ruined: the loss on what it never saw is \d.*; try a lower --rate$"):
        quick(shapes, tmp_path / "wild", [], rate=0.99, steps=40)
    assert [path.name for path in (tmp_path / "wild").iterdir()] == ["training"]


def test_losses_fall(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "WARM_UP", 5)
    pool = read_pictures(shapes, CLASSES, 96, lambda line: None)
    trainer = small(pool, 70, tmp_path, width=0.5, size=(96, 96), batch=8, rate=5e-3)
    before = trainer.held_out(pool)
    for _ in range(70):
        step(trainer, pool)
    after = trainer.held_out(pool)
    assert after[0] < 0.7 * before[0] and after[1] < before[1]


def step(trainer: fit.Trainer, pool: list[Picture]) -> None:
    trainer.learn(pool, trainer.clock.share())
    trainer.clock.step += 1


def small(
    pool: list[Picture], steps: int, out: Path, classes: int = 2, width: float = 0.25, **more: Any
) -> fit.Trainer:
    """A trainer of a small network on pictures of 64 pixels."""
    given = {"size": (64, 64), "batch": 2, "rate": 1e-3, "seed": 0, "half": False, "minutes": None, "resume": False}
    args = argparse.Namespace(steps=steps, **{**given, **more})
    return fit.Trainer(new_net(classes, narrowed(width), 0), None, args, torch.device("cpu"), pool, out)


def test_a_resumed_training_is_the_training(shapes: Path, tmp_path: Path) -> None:
    pool = read_pictures(shapes, CLASSES, 96, lambda line: None)
    whole = small(pool, 6, tmp_path)
    for _ in range(6):
        step(whole, pool)
    half = small(pool, 6, tmp_path)
    for _ in range(3):  # an odd number: the fourth step uses the third one's pictures again, mirrored
        step(half, pool)
    loop.save(tmp_path / loop.STATE, half.state())
    resumed = small(pool, 6, tmp_path, resume=True)
    assert resumed.clock.step == 3
    for _ in range(3):
        step(resumed, pool)
    for name in ("net", "average"):
        wanted, got = getattr(whole, name).state_dict(), getattr(resumed, name).state_dict()
        assert all(torch.equal(wanted[key], got[key]) for key in wanted)
    with pytest.raises(EdgeAgentError, match="of another training; start without --resume"):
        small(pool, 6, tmp_path, classes=3, resume=True)


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_good_state(shapes: Path, tmp_path: Path) -> None:
    pool = read_pictures(shapes, CLASSES, 96, lambda line: None)
    lines: list[str] = []
    fit.fit(small(pool, 2, tmp_path), pool, pool[:2], lines.append)
    before = (tmp_path / loop.STATE).read_bytes()
    assert "held out" in lines[-1] and np.isfinite(read_curve(tmp_path / loop.CURVE)[-1]["held_class"])
    wild = small(pool, 4, tmp_path, resume=True)
    wild.args.rate = 1e30
    with pytest.raises(ModelError, match=r"no finite number at step \d+: .* go on from it with --resume"):
        fit.fit(wild, pool, pool[:2], lines.append)
    assert (tmp_path / loop.STATE).read_bytes() == before
    with pytest.raises(EdgeAgentError, match="no finite number"):
        fit.fit(small(pool, 4, tmp_path / "new", rate=1e30), pool, [], lines.append)


def test_it_starts_from_a_carried_over_teacher_of_the_same_shape(shapes: Path, tmp_path: Path) -> None:
    """A small YOLOX-shaped teacher, made here, is followed better by a start from its weights than by a fresh one."""
    from tests.workshop.yolox import write_yolox

    teacher = write_yolox(tmp_path / "blob", classes=2, size=96)
    (tmp_path / "manifest.toml").write_text(
        'name = "t"\nversion = "1"\ntask = "detect"\nfamily = "yolox"\nlicence = "x"\ntrained_by = "x"\n'
        f'labels = ["red", "blue"]\n[input]\nwidth = 96\nheight = 96\nchannels = "BGR"\n'
        f'[[file]]\nname = "blob"\nformat = "onnx"\nsha256 = "{teacher}"\n'
        f"bytes = {(tmp_path / 'blob').stat().st_size}\n"
    )
    pictures = shapes.parent / "images"
    held = {}
    for start in ("teacher", "none"):
        lines: list[str] = []
        given: dict[str, Any] = {"teacher": str(tmp_path), "start": start, "steps": 2, "rate": 1e-6, "width": 0.5}
        quick(pictures, tmp_path / start, lines, **given, size=(96, 96))
        (row,) = read_curve(tmp_path / start / "training" / loop.CURVE)
        held[start] = row["held_box"]
        assert np.isfinite(row["feature"]) and row["feature"] > 0
    assert held["teacher"] < held["none"]


def test_it_goes_on_from_an_edge_yolo_with_other_classes(shapes: Path, tmp_path: Path) -> None:
    quick(shapes, tmp_path / "first", [], steps=2)
    lines: list[str] = []
    more = ("blue", "green")
    picture_folder = shapes.parent
    net = quick(
        picture_folder / "labels.json", tmp_path / "second", lines,
        start=str(tmp_path / "first"), classes=more, steps=1, rate=1e-9,
    )  # fmt: skip
    assert "classes that the start does not know, learnt anew: green" in lines
    old = {k: torch.from_numpy(v.copy()) for k, v in tensors_of(tmp_path / "first" / "model.onnx").items()}
    new = net.state_dict()
    assert torch.allclose(new["stage8.1.join.conv.weight"], old["stage8.1.join.conv.weight"], atol=1e-5)
    assert torch.allclose(new["heads.0.logits.weight"][0], old["heads.0.logits.weight"][1], atol=1e-5)


# ── bad data and bad wishes ──────────────────────────────────────────────────────────────────────────────


def test_bad_pictures_and_labels_are_named_and_skipped(shapes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    good = (shapes.parent / "images" / "00.png").read_bytes()
    (folder / "good.png").write_bytes(good)
    (folder / "cut.png").write_bytes(good[:40])
    (folder / "empty.jpg").write_bytes(b"")
    cv2.imwrite(str(folder / "dot.png"), np.zeros((4, 4, 3), np.uint8))
    table = json.loads(shapes.read_text())
    table["images"] = [{"id": i, "file_name": name} for i, name in enumerate(("good.png", "cut.png", "gone.png"))]
    table["annotations"] = [
        {"id": 0, "image_id": 0, "category_id": 0, "bbox": [10, 10, 30, 30]},
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [150, 10, 30, 30]},
        {"id": 2, "image_id": 0, "category_id": 1, "bbox": [10, 10, float("nan"), 30]},
        {"id": 3, "image_id": 7, "category_id": 1, "bbox": [10, 10, 10, 10]},
    ]
    (tmp_path / "labels.json").write_text(json.dumps(table))
    lines: list[str] = []
    pictures = read_pictures(tmp_path / "labels.json", CLASSES, 352, lines.append)
    assert [p.boxes.tolist() for p in pictures] == [[[10, 10, 40, 40, 0, 1]]]
    said = "\n".join(lines)
    for word in ("cut.png: not a picture", "left out: gone.png", "[150.0, 10.0, 180.0, 40.0]", "1 boxes are left out"):
        assert word in said
    lines.clear()
    assert len(read_pictures(folder, CLASSES, 352, lines.append)) == 1
    assert "dot.png: 4x4 is too small" in "\n".join(lines) and "empty.jpg" in "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"classes": ("cat", "dog")}, "no category of .* among the classes cat, dog"),
        ({"classes": ("red", "red")}, "names one twice"),
        ({"size": (128, 100)}, "128x100: each side must be a multiple of 32"),
        ({"part": (0.5, 0.2)}, "0.5:0.2 is no share"),
        ({"minutes": 0}, "--minutes"),
        ({"rate": 2.0}, "--rate"),
        ({"start": "teacher"}, "needs a YOLOX"),
        ({"start": "/nowhere/model.onnx"}, "no such file"),
        ({"resume": True}, "no checkpoint"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    shapes: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(EdgeAgentError, match=says) as caught:
        quick(shapes, tmp_path, [], **options)
    assert "\n" not in str(caught.value)


def test_data_that_is_none_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        quick(tmp_path / "gone", tmp_path, [])
    with pytest.raises(InputError, match="no pictures"):
        quick(tmp_path, tmp_path / "out", [])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="no COCO JSON"):
        quick(tmp_path / "bad.json", tmp_path / "out", [])
    with pytest.raises(InputError, match="no labels, and no teacher"):
        quick(shapes.parent / "images", tmp_path / "out", [])


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    loop.save(tmp_path / "a.pt", {"x": torch.zeros(1000)})
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:1000])
    with pytest.raises(EdgeAgentError, match=r"cannot be read .* start without --resume"):
        loop.load(tmp_path / "a.pt")


def test_any_detector_can_teach_by_its_boxes(tmp_path: Path, demo_pictures: Path) -> None:
    """Here the carried edge-yolo, which is no YOLOX: what it finds in the carried pictures becomes their labels."""
    lines: list[str] = []
    options: dict[str, Any] = {"teacher": "edge-yolo", "classes": ("person", "cat"), "start": "edge-yolo"}
    options |= {"steps": 1, "rate": 1e-6, "size": (288, 224)}
    quick(demo_pictures, tmp_path / "taught", lines, **options)
    assert (tmp_path / "taught" / "manifest.toml").is_file()
    with pytest.raises(UsageError, match="does not know unicorn"):
        quick(demo_pictures, tmp_path, lines, **(options | {"classes": ("person", "unicorn")}))


def test_a_label_takes_the_place_of_what_the_teacher_says_there(demo_pictures: Path) -> None:
    pixels = read_picture(demo_pictures / "astronaut.png").image
    (taught,) = labelled_by("edge-yolo", [Picture("a", pixels, np.zeros((0, 6), np.float32))], ("person",), 0.5, print)
    assert len(taught.boxes) >= 1, "nothing was found to be replaced"
    best = taught.boxes[np.argmax(taught.boxes[:, 5])]
    label = np.array([[*(best[:4] + 3), 0, 1.0]], np.float32)
    (both,) = labelled_by("edge-yolo", [Picture("a", pixels, label)], ("person",), 0.5, print)
    assert (both.boxes[0] == label[0]).all()
    assert best.tolist() not in both.boxes.tolist()


def test_the_command_line_of_it(shapes: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    line = f"detector --data {shapes} --out {tmp_path} --start none --classes red,blue --minutes 0.02"
    lines: list[str] = []
    assert (
        train.run(
            parser.parse_args([*line.split(), "--width", "0.25", "--size", "64", "--batch", "2", "--device", "cpu"]),
            lines.append,
        )
        == 0
    )
    assert (tmp_path / "manifest.toml").is_file() and lines
    with pytest.raises(UsageError, match="two shares"):
        train.run(parser.parse_args([*line.split(), "--part", "half"]), lines.append)


# ── the pieces ───────────────────────────────────────────────────────────────────────────────────────────


def test_tiles_move_their_boxes_with_them() -> None:
    """A bright box in a dark picture is found, by its pixels, where its moved label says."""
    pixels = np.full((100, 140, 3), 20, np.uint8)
    pixels[30:70, 50:90] = 250
    picture = Picture("p", pixels, np.array([[50, 30, 90, 70, 0, 1]], np.float32))
    shown, boxes = plain(picture, (280, 280))
    assert boxes[0, :4].tolist() == [100, 60, 180, 140]
    assert shown[62:138, 102:178].min() > 240 and shown[:56].max() <= 114 and (shown[210:] == 114).all()
    from edge_agent.workshop.train.detector.augment import composed

    checked = 0
    for seed in range(40):
        shown, boxes = composed([picture], (160, 128), np.random.default_rng(seed))
        for x1, y1, x2, y2, *_ in boxes:
            inner = shown[int(y1) + 3 : int(y2) - 3, int(x1) + 3 : int(x2) - 3]
            if inner.size:
                assert inner.min() > 230
                checked += 1
        bright = np.argwhere(shown.max(2) > 200)
        inside = np.zeros(len(bright), bool)
        for x1, y1, x2, y2, *_ in boxes:
            inside |= (
                (bright[:, 1] >= x1 - 2)
                & (bright[:, 1] <= x2 + 1)
                & (bright[:, 0] >= y1 - 2)
                & (bright[:, 0] <= y2 + 1)
            )
        # what lies outside is what is left of boxes that were cut to less than a third
        assert inside.mean() > 0.6 if len(bright) > 200 else True
    assert checked > 30


def test_augmentation_depends_on_the_seed_alone() -> None:
    picture = Picture(
        "p", np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8), np.zeros((0, 6), np.float32)
    )
    first, second, other = (augmented([picture], (96, 64), np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert (first == second).all() and (first != other).any()


def test_targets_lie_on_the_right_level_and_mean_the_box() -> None:
    grid = torch.from_numpy(cells(96, 96))
    box = torch.tensor([[[16.0, 24.0, 56.0, 64.0, 1.0, 1.0], [0, 0, 0, 0, -1, 0]]])
    dense = targets_from_boxes(box, grid, 2)
    told = dense.score[0, :, 1] > 0
    assert told.any() and not (dense.score[0, :, 0] > 0).any()
    assert set(grid[told][:, 2].tolist()) == {8.0}
    xy, stride, sides = grid[told][:, :2], grid[told][:, 2:], dense.boxes[0, told]
    back = torch.cat([xy - sides[:, :2] * stride, xy + sides[:, 2:] * stride], 1)
    assert torch.allclose(back, box[0, :1, :4].expand_as(back))
    nothing = Dense(torch.zeros_like(dense.score), torch.ones_like(dense.boxes), [])
    assert torch.equal(merged(nothing, dense).boxes[0, told], sides)
    perfect = losses(dense.boxes, torch.logit(dense.score, 1e-4), dense)
    worse = losses(dense.boxes + 1, torch.zeros_like(dense.score), dense)
    assert perfect[0] < 0.01 and perfect[1] < 1e-4 and worse[0] > 1 and worse[1] > 0.1


def test_mirrored_targets_are_the_mirrored_picture_s() -> None:
    grid = torch.from_numpy(cells(96, 64))
    box = torch.tensor([[[10.0, 20.0, 50.0, 60.0, 0.0, 1.0]]])
    other = torch.tensor([[[46.0, 20.0, 86.0, 60.0, 0.0, 1.0]]])
    told, wanted = (targets_from_boxes(one, grid, 1) for one in (box, other))
    flipped = mirrored(told, (96, 64))
    told = wanted.score[0, :, 0] > 0
    assert torch.equal(flipped.score, wanted.score) and torch.allclose(flipped.boxes[0, told], wanted.boxes[0, told])


def test_folding_and_starting_again_keep_the_function() -> None:
    net = new_net(3, narrowed(0.25), 0)
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(4, 3, 64, 64) * 4)
    net.eval()
    picture = torch.rand(1, 3, 64, 64) * 255
    folded = folded_copy(net)
    with torch.no_grad():
        wanted, got = net(picture / 64)[:2], folded(picture)[:2]
        again = from_folded({k: v.numpy() for k, v in folded.state_dict().items()}, 3).eval()(picture / 64)[:2]
    for a, b, c in zip(wanted, got, again, strict=True):
        assert torch.allclose(a, b, atol=1e-4) and torch.allclose(a, c, atol=1e-4)
    with pytest.raises(ModelError, match="not edge-yolo's"):
        from_folded({"a": np.zeros(3, np.float32)}, 3)


def test_a_training_starts_from_a_pruned_network() -> None:
    """Whose layers have other widths, each its own, under the same names."""
    whole = new_net(2, narrowed(0.25), 0).eval()
    tensors = {name: value.numpy() for name, value in folded_copy(whole).state_dict().items()}
    block = "stage8.1.blocks.0"
    small = dict(tensors)
    for name in (f"{block}.first.conv", f"{block}.second.depth.conv"):
        for part in ("weight", "bias"):
            small[f"{name}.{part}"] = tensors[f"{name}.{part}"][:-3]
    small[f"{block}.second.point.conv.weight"] = tensors[f"{block}.second.point.conv.weight"][:, :-3]
    zeroed = dict(tensors)
    zeroed[f"{block}.second.point.conv.weight"] = tensors[f"{block}.second.point.conv.weight"].copy()
    zeroed[f"{block}.second.point.conv.weight"][:, -3:] = 0
    image = torch.rand(1, 3, 64, 96)
    for mine, theirs in zip(
        from_folded(small, 2).eval()(image)[:2], from_folded(zeroed, 2).eval()(image)[:2], strict=True
    ):
        assert torch.allclose(mine, theirs, atol=1e-4)
    again = from_folded(small, 3, [0, -1, 1])
    assert again.training and all(one.requires_grad for one in again.parameters())
    logits = again.heads[0].logits
    assert logits.weight.shape[0] == 3


def test_onnx_is_the_network(tmp_path: Path) -> None:
    folded = folded_copy(new_net(2, narrowed(0.25), 1))
    (tmp_path / "m.onnx").write_bytes(to_onnx(folded, (96, 64)).SerializeToString())
    picture = np.random.default_rng(0).uniform(0, 255, (1, 3, 64, 96)).astype(np.float32)
    found = open_net(tmp_path / "m.onnx", "onnx", 1).run({"images": picture})
    with torch.no_grad():
        boxes, logits, _ = folded(torch.from_numpy(picture))
    assert np.allclose(found["boxes"], boxes.numpy(), atol=1e-4)
    assert np.allclose(found["logits"], logits.numpy(), atol=1e-4)
    back, tensors = tensors_of(tmp_path / "m.onnx"), folded.state_dict()
    assert back.keys() == tensors.keys() and all((back[k] == tensors[k].numpy()).all() for k in tensors)
    assert USUAL[0] == "person"
