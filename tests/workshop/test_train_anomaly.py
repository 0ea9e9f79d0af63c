"""What is usual, learned from one's own pictures, sound and numbers; and the contact sheet of what was learned."""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.cli import main
from edge_agent.errors import ConfigError, InputError, ManifestError, RefusedError, UsageError
from edge_agent.manifest import load
from edge_agent.serving.models import Models
from edge_agent.tasks import make_task
from edge_agent.tasks.anomaly.learned import SECONDS, Calibration, Learned, log_mel, parts_of
from edge_agent.types import Anomaly, Audio, Finding, Frame, Text
from edge_agent.uri import parse_uri
from edge_agent.walk.event import to_event

pytest.importorskip("onnx", reason="the extra [workshop] is not installed")
from edge_agent.workshop.imagine import imagine
from edge_agent.workshop.train.anomaly.data import read
from edge_agent.workshop.train.anomaly.recipe import run
from edge_agent.workshop.train.options import add_arguments

RATE = 16_000


def train(data: Path, out: Path, *more: str) -> list[str]:
    parser, said = argparse.ArgumentParser(), list[str]()
    add_arguments(parser, "anomaly")
    assert run(parser.parse_args(["--data", str(data), "--out", str(out), *more]), said.append) == 0
    return said


def scene(seed: int) -> np.ndarray:
    """A ramp with a little noise, and something small that is always elsewhere."""
    chance = np.random.default_rng(seed)
    image = np.linspace(40, 200, 96)[None, :, None] + chance.normal(0, 4, (72, 96, 3))
    x = int(chance.integers(0, 80))
    image[50:58, x : x + 10] = 120
    return np.clip(image, 0, 255).astype(np.uint8)


def odd(seed: int) -> np.ndarray:
    image = scene(seed)
    image[8:40, 20:60] = np.random.default_rng(seed).integers(0, 255, (32, 40, 3))
    return image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pictures")
    for kind, make, count in (("normal", scene, 80), ("broken", odd, 12)):
        (where / kind).mkdir()
        for i in range(count):
            cv2.imwrite(str(where / kind / f"{i:03}.png"), make(i))
    (where / "normal" / "torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    # two of those that are called normal are none
    for i in range(2):
        cv2.imwrite(str(where / "normal" / f"x{i}.png"), np.full((72, 96, 3), 255, np.uint8))
    return where


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    out = tmp_path_factory.mktemp("out") / "scene"
    return out, train(pictures, out, "--method", "pca", "--code", "4", "--rate", "0.1")


def anomaly(found: object) -> Anomaly:
    assert isinstance(found, Finding) and isinstance(found.what, Anomaly)
    return found.what


def test_it_is_served_once_the_gate_has_proved_it(
    trained: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    models = Models(threads=1)
    task = make_task(parse_uri(f"anomaly:{trained[0]}"), models.serve, tmp_path)
    assert isinstance(task, Learned)
    (usual,) = task(Frame(scene(500), 0, 0))
    (unusual,) = task(Frame(odd(500), 0, 0))
    assert anomaly(usual).unusual is False and anomaly(unusual).unusual is True
    assert anomaly(unusual).parts["rank"] == 1.0 > anomaly(usual).parts["rank"]
    event = to_event(unusual, "belt")
    left, top, right, bottom = event.where  # type: ignore[attr-defined]
    assert left < 60 and right > 20 and top < 40 and bottom > 8 and right - left < 96, "where it is"


def test_what_is_said_of_the_data(trained: tuple[Path, list[str]]) -> None:
    out, said = trained
    text = "\n".join(said)
    assert "cannot be read: torn.jpg" in text and "82 normal samples of frames" in text and "12 unusual samples" in text
    report = json.loads((out / "report.json").read_text())
    notes = "\n".join(report["notes"])
    assert "look unusual themselves and are left out" in notes, "what is called normal and is none"
    assert report["rows"][0]["accuracy"] > 0.9 and report["rows"][0]["chosen"] and "labelled ones" in notes
    assert (out / "results.jpg").stat().st_size > 1000 and "pca (reconstruction)" in (out / "report.html").read_text()
    made = load(out / "manifest.toml").made
    assert made is not None and made.verb == "train" and made.data_sha256 and made.figures["auroc"] > 0.9
    assert "gate: proved" in notes


def test_what_tells_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called unusual here lies nearer to the mean than what is called normal."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    chance = np.random.default_rng(0)
    for kind, spread in (("normal", 60), ("odd", 1)):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for i in range(40):
            image = np.clip(chance.normal(128, spread, (64, 64, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "data" / kind / f"{i}.png"), image)
    with pytest.raises(RefusedError, match=r"ruined: nothing tells unusual samples from normal ones \(AUROC 0\.000\)"):
        train(tmp_path / "data", tmp_path / "out", "--method", "mean")
    assert not (tmp_path / "out" / "manifest.toml").exists()


@pytest.mark.slow
def test_a_detector_s_features_are_a_candidate_for_pictures(pictures: Path, tmp_path: Path) -> None:
    said = train(pictures, tmp_path / "m", "--method", "patches", "--rate", "0.1")
    assert any("* patches" in line for line in said)
    manifest = (tmp_path / "m" / "manifest.toml").read_text()
    assert 'family = "patches"' in manifest and 'parent = "edge-yolo 2"' in manifest


def tones(path: Path, pitch: float, seconds: int) -> None:
    t = np.arange(RATE * seconds) / RATE
    sound = 0.2 * np.sin(2 * np.pi * pitch * t) + np.random.default_rng(0).normal(0, 0.01, len(t))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((sound * 32767).astype("<i2").tobytes())


def test_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tones(tmp_path / "hum.wav", 220, 45)
    train(tmp_path / "hum.wav", tmp_path / "m", "--method", "mean", "--rate", "0.1")
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    task = make_task(parse_uri(f"anomaly:{tmp_path / 'm'}"), Models(threads=1).serve, tmp_path)
    assert task.takes == (Audio,)
    t = np.arange(round(RATE * SECONDS)) / RATE
    hum = (0.2 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)
    squeal = (hum + 0.1 * np.sin(2 * np.pi * 3100 * t)).astype(np.float32)
    noise = np.random.default_rng(1).normal(0, 0.01, len(t)).astype(np.float32)
    pieces = [Audio(part, 0, 0) for part in np.split((hum + noise).astype(np.float32), 4)]
    told = [anomaly(one) for piece in pieces for one in task(piece)]
    assert [one.unusual for one in told] == [False], "pieces are put together"
    assert [anomaly(one).unusual for one in task(Audio(squeal + noise, 0, 0))] == [True]
    with pytest.raises(InputError, match="sound of 8000 samples a second; it takes 16000"):
        list(task(Audio(hum, 0, 0, rate=8000)))


def test_a_series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = np.random.default_rng(0)
    values = 20 + np.sin(np.arange(3000) / 5) + chance.normal(0, 0.05, 3000)
    lines = [f"{x:.4f}" for x in values]
    lines[7] = "nan"
    (tmp_path / "boiler.csv").write_text("value\n" + "\n".join(lines) + "\n")
    said = train(tmp_path / "boiler.csv", tmp_path / "m", "--method", "pca", "--code", "6")
    assert any("boiler.csv, line 9" in line for line in said) and any("anomaly:series" in line for line in said)
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path / "home"))
    task = make_task(parse_uri(f"anomaly:{tmp_path / 'm'}"), Models(threads=1).serve, tmp_path)
    found = [anomaly(one) for i in range(200) for one in task(Text(lines[i + 100], 0, 0))]
    assert len(found) == 200 - 31 and sum(bool(one.unusual) for one in found) < 10
    assert [anomaly(one).unusual for one in task(Text("24", 0, 0))] == [True]


@pytest.mark.parametrize(
    ("lines", "says"),
    [(["3"] * 500, "all samples are the same"), (["3"] * 10, "0 normal samples; give 40"), ([], "0 normal samples")],
)
def test_data_from_which_nothing_can_be_learned(lines: list[str], says: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\n".join(lines))
    with pytest.raises(UsageError, match=says):
        read(tmp_path / "x.csv")


def test_data_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not there"):
        read(tmp_path / "none")
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(UsageError, match="no pictures, films"):
        read(tmp_path)


# ── the variational autoencoder ──────────────────────────────────────────────────────────────────────────


def test_both_parts_of_the_elbo() -> None:
    chance = np.random.default_rng(1)
    x, y = chance.normal(20, 2, (2, 1, 32)).astype(np.float32)
    given = {"y": y, **{name: chance.normal(0, 1, (1, 4)).astype(np.float32) for name in ("mean", "log")}}
    parts, _ = parts_of(x.astype(float), given, Calibration("series", "elbo", 0.5, [1.0], 1.0, 0.01, 32))
    mean, log = given["mean"][0].astype(float), given["log"][0].astype(float)
    assert parts["reconstruction"] == pytest.approx(np.square(given["y"] - x).mean() / (2 * 0.5), rel=1e-5)
    divergence = sum((m * m + np.exp(v) - v - 1) / 2 for m, v in zip(mean, log, strict=True))
    assert parts["kl"] == pytest.approx(divergence / 32) and parts["elbo"] == parts["kl"] + parts["reconstruction"]
    given["y"] = given["y"] * np.nan
    with pytest.raises(InputError, match="not finite"):
        parts_of(x.astype(float), given, Calibration("series", "elbo", 0.5, [1.0], 1.0, 0.01, 32))


@pytest.mark.parametrize(("shape", "drawn"), [((3, 64, 64), (3, 64, 64)), ((1, 80, 96), (3, 80, 96)), ((32,), (32,))])
def test_the_files_of_an_autoencoder_are_the_network(shape: tuple[int, ...], drawn: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch", reason="training needs PyTorch")
    from edge_agent.workshop.train.anomaly.candidates import loaded
    from edge_agent.workshop.train.anomaly.vae import Vae, to_onnx

    net = Vae(shape, 4, 20.0, 2.0).eval()
    whole, decoder = to_onnx(net)
    assert loaded(decoder).run({"z": np.zeros((5, 4), np.float32)})["picture"].shape == (5, *drawn)
    x = np.random.default_rng(1).normal(20, 2, (1, *shape)).astype(np.float32)
    given = loaded(whole).run({"x": x})
    with torch.no_grad():
        for name, wanted in zip(("y", "mean", "log"), net(torch.from_numpy(x)), strict=True):
            np.testing.assert_allclose(given[name], wanted.numpy(), rtol=1e-4, atol=1e-4)


def test_imagine_draws_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx

    decoder = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        drawn (float[n, 4] z) => (float[n, 3, 64, 64] picture) {
            shape = Constant<value_ints=[-1, 1, 2, 2]>()
            small = Reshape(z, shape)
            sizes = Constant<value_floats=[1.0, 3.0, 32.0, 32.0]>()
            picture = Resize<mode="nearest">(small, , sizes)
        }"""
    )
    folder = tmp_path / "m"
    folder.mkdir()
    onnx.save(decoder, str(folder / "decoder.onnx"))
    from edge_agent.registry.store import digest

    (folder / "manifest.toml").write_text(
        'name = "m"\nversion = "1"\ntask = "anomaly"\nfamily = "vae"\nlicence = "CC0-1.0"\ntrained_by = "nobody"\n'
        f'[[file]]\nname = "decoder.onnx"\nformat = "onnx"\nsha256 = "{digest(folder / "decoder.onnx")}"\n'
        f"bytes = {(folder / 'decoder.onnx').stat().st_size}\n"
    )
    assert main(["imagine", str(folder), "--out", str(tmp_path / "s.jpg"), "--count", "9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    image = cv2.imread(str(tmp_path / "s.jpg"))
    assert image is not None and image.shape[:2] == (told["height"], told["width"]) == (3 * 130, 3 * 130)
    assert main(["imagine", str(folder), "--out", str(tmp_path / "s.png"), "--count", "4"]) == 0
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert main(["imagine", str(folder), "--out", "s.gif"]) == 2 and "ends in .jpg or .png" in capsys.readouterr().err
    assert main(["imagine", str(folder), "--count", "1000"]) == 2
    manifest, right = (folder / "manifest.toml").read_text(), digest(folder / "decoder.onnx")
    (folder / "decoder.onnx").write_bytes((folder / "decoder.onnx").read_bytes()[:-40])
    capsys.readouterr()
    assert main(["imagine", str(folder)]) == 1 and "decoder.onnx" in capsys.readouterr().err
    (folder / "manifest.toml").write_text(manifest.replace(right, digest(folder / "decoder.onnx")))
    assert main(["imagine", str(folder)]) == 1 and "decoder.onnx" in capsys.readouterr().err


def test_imagine_refuses_what_draws_nothing(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="draws nothing: it has no decoder"):
        imagine("edge-yolo", tmp_path / "s.jpg")


def test_a_calibration_that_does_not_fit(trained: tuple[Path, list[str]]) -> None:
    from edge_agent.tasks.anomaly.learned import calibration_of
    from tests.tasks.test_anomaly import mean_only, served

    model = served(mean_only(trained[0].parent / "m.onnx"))
    rest = '"kind":"series","normals":[1],"limit":1,"rate":0.1}'
    for body, says in (
        ("{}", "calibration.json: Object missing required field"),
        (f'{{"score":"elbo","variance":1,"window":4,{rest}', 'no output "mean"'),
        (f'{{"score":"reconstruction","variance":0,"window":4,{rest}', "holds no scores"),
        (f'{{"score":"reconstruction","variance":1,{rest}', "says no window"),
    ):
        path = trained[0].parent / "calibration.json"
        path.write_text(body)
        broken = type(model)(model.manifest, model.ref, model.net, {"calibration": path}, None, "")
        with pytest.raises(ManifestError, match=says):
            calibration_of(broken)
    with pytest.raises(ConfigError, match="is no score above 0"):
        make_task(parse_uri(f"anomaly:{trained[0]}?limit=-3"), Models(threads=1).serve, Path())


def test_silence_is_quieter_than_sound() -> None:
    t = np.arange(round(RATE * SECONDS)) / RATE
    quiet, loud = (log_mel((share * np.sin(2 * np.pi * 440 * t)).astype(np.float32)) for share in (0.01, 0.1))
    assert quiet.shape == (80, 96) and (loud - quiet).max() == pytest.approx(2 / 12, abs=0.02)
