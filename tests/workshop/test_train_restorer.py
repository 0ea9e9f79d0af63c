"""The recipe of the restorer: what counts as of use, the file that is written, a short training."""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_agent.backends import open_net
from edge_agent.cli import main
from edge_agent.cli.verbs import VERBS
from edge_agent.manifest import load

pytest.importorskip("torch", reason='training needs PyTorch: pip install "edge-agent-runtime[train]"')
pytest.importorskip("onnx", reason='needs onnx: pip install "edge-agent-runtime[train]"')
import torch

from edge_agent.workshop.train.loop import Clock
from edge_agent.workshop.train.restorer import fit, recipe
from edge_agent.workshop.train.restorer.fit import Restorer, coloured, shrunk


def test_of_use_is_what_helps_somewhere_and_hurts_nowhere_from_8_pixels_on() -> None:
    assert recipe.verdict({"5": (0.3, 0.2), "6": (0.1, 0.09), "8": (0.02, 0.02)}) == "of use at 5 px"
    assert "worse at 8 px" in recipe.verdict({"5": (0.3, 0.2), "8": (0.02, 0.03)})
    assert "of no use: at no size" in recipe.verdict({"5": (0.3, 0.29), "8": (0.02, 0.02)})


def test_the_file_answers_as_the_network_and_begins_as_the_identity(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, given = Restorer(), torch.rand(2, 3, 48, 60)
    assert torch.equal(net(given), given)
    for part in net.parameters():
        torch.nn.init.normal_(part, 0, 0.05)
    (tmp_path / "restorer.onnx").write_bytes(recipe.to_onnx(net).SerializeToString())
    (clear,) = open_net(tmp_path / "restorer.onnx", "onnx", 1).run({"lines": given.numpy()}).values()
    with torch.no_grad():
        assert np.abs(clear - net(given).numpy()).max() < 1e-4 < np.abs(clear - given.numpy()).max()


def test_small_print_loses_detail_and_keeps_its_place() -> None:
    cover = torch.zeros(1, 1, 48, 64)
    cover[:, :, 10:38, 20:24] = 1
    clean = coloured(cover, torch.Generator().manual_seed(1))
    small = shrunk(clean, 6.0, torch.Generator().manual_seed(1))
    assert small.shape == clean.shape and float(small.min()) >= 0 and float(small.max()) <= 1
    ink = [(one - one[..., :1]).abs().sum((0, 1, 2)) for one in (clean, small)]
    assert abs(int(ink[1].argmax()) - 21.5) < 3 and float(ink[1].max()) < float(ink[0].max())


@pytest.mark.slow
def test_a_little_training_lowers_the_readers_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader here calls the left half of a line by its brightness: something to be learnt in a few steps."""

    def reader(lines: torch.Tensor) -> torch.Tensor:
        dark = -lines.mean((1, 2)).reshape(len(lines), -1, 8).mean(2)
        return torch.stack([torch.zeros_like(dark), dark * 8], 2).softmax(2)

    lines = [fit.Line(np.full((48, 48), 200 - place, np.uint8), [1]) for place in range(8)]
    monkeypatch.setattr(fit, "Clock", lambda seconds: Clock(steps=100))
    monkeypatch.setattr(fit, "TOLD_S", 0.0)
    args = argparse.Namespace(batch=4, seed=0, device="cpu", minutes=1.0, resume=False)
    net, training = fit.fit(lines, reader, args, tmp_path, lambda line: None)
    told = [row["reader"] for row in training.curve]
    assert len(told) == 100 and told[-1] < told[0] and isinstance(net, Restorer)


@pytest.fixture(autouse=True)
def few_threads() -> Iterator[None]:
    """Several threads wait for each other where other work has the processors."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def practice(ocr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a very short training with two of the fonts that are installed here."""
    fonts = sorted(Path("/usr/share/fonts").rglob("*.ttf"))[:2]
    if len(fonts) < 2:
        pytest.skip("no two fonts are installed here: apt install fonts-dejavu-core")
    monkeypatch.setenv("EDGE_AGENT_HOME", str(ocr))
    (tmp_path / "fonts").mkdir()
    for font in fonts:
        (tmp_path / "fonts" / font.name).symlink_to(font)
    (tmp_path / "said.txt").write_text("mind the gap\nthe night train leaves at ten\n")
    args = ["train", "restorer", "--text", str(tmp_path / "said.txt"), "--fonts", str(tmp_path / "fonts")]
    return [*args, "--out", str(tmp_path / "out"), "--lines", "8", "--batch", "2", "--minutes", "0.01"]


def test_the_recipe_writes_a_model_that_the_gate_takes(practice: list[str], tmp_path: Path) -> None:
    assert main(practice) == 0
    practice[practice.index("0.01")] = "0.02"
    assert main([*practice, "--resume"]) == 0
    out = tmp_path / "out"
    made, report = load(out / "manifest.toml"), json.loads((out / "report.json").read_text())
    assert (made.task, made.input and made.input.height) == ("clear", 48)
    assert made.made is not None and "8 in all, seed 0" in made.made.method and "errors_6px" in made.made.figures
    assert any(note.startswith("gate: proved") for note in report["notes"]) and (out / "report.html").is_file()
    assert main(["models", "verify", "--prove", str(out)]) == 0


def test_weights_that_are_no_numbers(
    practice: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "PIXELS", 1e39)
    assert main(practice) == 1
    assert "the loss is no finite number at step " in capsys.readouterr().err
    assert not (tmp_path / "out" / "manifest.toml").exists()


@pytest.mark.parametrize(("more", "says"), [(["--minutes", "0"], "must be above 0"), ([], "give two or more")])
def test_wrong_usage_is_told_in_one_line(
    more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "said.txt").write_text("one line\n")
    args = ["--text", str(tmp_path / "said.txt"), "--fonts", str(tmp_path), "--out", str(tmp_path / "out")]
    assert "train" in VERBS and importlib.util.find_spec("torch")
    assert main(["train", "restorer", *args, *more]) == 2
    assert says in capsys.readouterr().err
