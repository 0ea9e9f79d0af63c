"""The recipe of the generator: crops, figures, and a short training where PyTorch is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.cli import main
from edge_agent.errors import InputError
from edge_agent.manifest import load
from edge_agent.pictures.read import read_picture
from edge_agent.types import Net
from edge_agent.workshop.train.generator import crops, measure
from tests.conftest import ROOT

DICE = np.random.default_rng(0)


def pictures(folder: Path, count: int) -> Path:
    """Small pictures of a disc each, on a ground of another colour."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        image = np.full((48, 40, 3), DICE.integers(0, 256, 3), np.uint8)
        cv2.circle(image, (20, 24), int(DICE.integers(6, 18)), DICE.integers(0, 256, 3).tolist(), -1)
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    return folder


def test_a_square_is_cut_around_a_box_and_stays_in_the_picture() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:80, 150:170, 2] = 255
    part = crops.square(image, np.array([150, 40, 170, 80], np.float32))
    assert part.shape == (48, 48, 3) and part[..., 2].astype(bool).sum() == 40 * 20
    assert crops.square(image, np.array([180, -5, 210, 60], np.float32)).shape == (78, 78, 3)
    assert crops.square(image, np.array([0, 0, 200, 100], np.float32)).shape == (100, 100, 3)
    small = crops.small(part, 64)
    assert small.shape == (64, 64, 3) and small[32, 32].tolist() == [255, 0, 0]  # red first


def test_too_few_crops_are_refused_and_boxes_are_cut_out(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "few", 3)
    with pytest.raises(InputError, match=r"3 crops; give 64 or more, or --detector NAME"):
        crops.read_crops(folder, None, 64, 1, print)
    with pytest.raises(InputError, match=r"\d crops; give 64 or more$"):
        crops.read_crops(ROOT / "deploy" / "demo", "edge-yolo", 64, 1, print)


def test_figures_tell_copies_from_pictures_of_the_same_kind_and_from_others() -> None:
    learnt, held, same = (DICE.normal(size=(n, 8)) for n in (400, 200, 200))
    copies, others = learnt[:200] + 1e-6, DICE.normal(4, 0.1, (200, 8))
    alike, copied, wrong = measure.measured(learnt, held, [same, copies, others])
    assert alike.frechet < 1 < wrong.frechet and alike.precision > 0.8 and alike.recall > 0.8
    assert 0.8 < alike.nearness < 1.2 and alike.copies < 0.05
    assert copied.nearness < 0.01 and copied.copies == 1
    assert wrong.precision == 0 and wrong.recall == 0


def test_the_frechet_distance_of_two_normal_distributions_is_that_of_their_formula() -> None:
    one = DICE.normal(size=(20_000, 2)) * [1, 2]
    other = DICE.normal(size=(20_000, 2)) * [3, 2] + [1, 0]
    assert measure.frechet(one, other) == pytest.approx(1 + (1 - 3) ** 2, abs=0.2)


@pytest.mark.slow
def test_a_generator_is_trained_and_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch", reason='training needs PyTorch: pip install "edge-agent-runtime[train]"')
    torch.set_num_threads(1)
    from edge_agent.workshop.train.generator import fit, recipe
    from edge_agent.workshop.train.loop import STATE
    from edge_agent.workshop.train.loop import load as kept

    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    data, out = pictures(tmp_path / "crops", 80), tmp_path / "made"
    args = ["train", "generator", "--data", str(data), "--out", str(out), "--minutes", "0.01", "--batch", "4"]
    assert main(args) == 0
    made, report = load(out / "manifest.toml"), json.loads((out / "report.json").read_text())
    assert made.task == "draw" and made.made is not None and made.made.parent == "" and made.made.data_sha256
    assert made.made.figures["frechet"] > 0 and re.match(r"\d+ steps of 4 crops, 70 in all, seed 0", made.made.method)
    assert [note.split(":")[0] for note in report["notes"][:4]] == ["real pictures", "drawn", "noise", "gate"]
    assert (out / "report.html").is_file() and main(["models", "verify", "--prove", str(out)]) == 0
    assert main(["imagine", str(out), "--out", str(tmp_path / "sheet.jpg"), "--count", "4"]) == 0
    assert main(["bench", str(out)]) != 0 and "no stream runs on it" in capsys.readouterr().err
    net = open_net(out / "generator.onnx", "onnx", 1)
    z = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    (drawn,) = net.run({"z": z}).values()
    assert drawn.shape == (3, 3, 64, 64) and drawn.min() >= 0 and drawn.max() <= 1 and drawn.std() > 0
    assert read_picture(out / "samples.png").image.shape == (6 * 64, 8 * 64, 3)
    state = kept(out / "training" / STATE)
    assert state["step"] > 0 and state["seconds"] > 0.5
    args[args.index("0.01")] = "0.02"
    assert main([*args, "--resume"]) == 0
    monkeypatch.setattr(fit, "RATES", (1e30, 4e-4))
    args[args.index("0.02")] = "0.04"
    capsys.readouterr()
    assert main([*args, "--resume"]) == 1
    assert re.search("it draws no numbers|the loss is no finite number at step", capsys.readouterr().err)
    # the file is the network
    own = fit.Generator().eval()
    own.load_state_dict(state["mean"])
    (told,) = open_net_of(recipe.to_onnx(own), tmp_path).run({"z": z}).values()
    with torch.no_grad():
        assert np.abs(told - own(torch.from_numpy(z)).numpy()).max() < 1e-4
    assert recipe.draw(own, 2, 0).shape == (2, 64, 64, 3)


def open_net_of(model: Any, folder: Path) -> Net:
    path = folder / "again.onnx"
    path.write_bytes(model.SerializeToString())
    return open_net(path, "onnx", 1)
