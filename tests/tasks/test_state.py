"""The task `state`: what it tells, how long a state has to hold, and heads that are not right for their network."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.errors import ConfigError, InputError, ManifestError, RefusedError
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.tasks import make_task
from edge_agent.tasks.proofs import Recorder
from edge_agent.tasks.state.compare import compare
from edge_agent.tasks.state.features import WHOLE, cut, pooled
from edge_agent.tasks.state.head import StateHead, blocks, fit, packed, unpacked
from edge_agent.tasks.state.proof import prove
from edge_agent.tasks.state.state import State
from edge_agent.types import Frame, ModelRef, Net, Scores, Tensors, TensorSpec
from edge_agent.uri import parse_uri

SIDE = 8
RNG = np.random.default_rng(0)


def net(gain: float = 1.0) -> Net:
    """A network whose one map of three channels is the picture."""
    spec = TensorSpec("x", (1, 3, SIDE, SIDE), "float32")

    def run(tensors: Tensors) -> dict[str, np.ndarray]:
        return {"map:00": tensors["x"] * np.float32(gain)}

    return Net(run, (spec,), (TensorSpec("map:00", (1, 3, SIDE, SIDE), "float32"),), "a lambda")


def features(image: np.ndarray) -> np.ndarray:
    return pooled({"map:00": image.transpose(2, 0, 1)[None].astype(np.float32)})


def picture(level: float) -> np.ndarray:
    return np.clip(RNG.normal(level, 4, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def fitted(labels: tuple[str, ...] = ("dark", "light"), brightest: float = 180) -> StateHead:
    levels = np.linspace(60, brightest, len(labels))
    shown = np.stack([features(picture(level)) for level in levels for _ in range(6)])
    anything = np.stack([features(picture(level)) for level in (0, 40, 90, 140, 200, 250)])
    y = np.repeat(np.arange(len(labels)), 6)
    from edge_agent.pictures.read import read_picture
    from edge_agent.tasks.state.features import reader
    from tests.conftest import ROOT

    probe = reader(net(), INPUT)(read_picture(ROOT / "deploy" / "demo" / "coffee.png").image)
    return fit(shown, y, labels, anything, WHOLE, probe)


INPUT = Input(SIDE, SIDE, letterbox="stretch")


def served(folder: Path, head: bytes, gain: float = 1.0, **more: object) -> Served:
    path = folder / "head.json"
    path.write_bytes(head)
    rows = [File("maps.onnx", "onnx", "0" * 64, 0)]
    given = {"labels": ["dark", "light"], "input": INPUT, "score": 0.6, **more}
    given = {"task": "state", "family": "state", **given}
    made = Manifest(name="lamp", version="1", licence="CC0-1.0", trained_by="nobody", file=rows, **given)  # type: ignore[arg-type]
    return Served(made, ModelRef("lamp", "1", "0" * 64), net(gain), {"head": path}, INPUT, "")


def task(model: Served, options: str = "") -> State:
    made = make_task(parse_uri(f"state:lamp{options}"), lambda _: model, Path())
    assert isinstance(made, State)
    return made


def frame(level: float, name: str = "", played: float | None = None) -> Frame:
    return Frame(picture(level), time.time(), time.monotonic(), name, played=played)


def labels(of: State, *levels: float, name: str = "", played: float | None = None) -> list[str]:
    found = [list(of(frame(level, name, played))) for level in levels]
    whats = [one[0].what if one else None for one in found]
    return [what.label if isinstance(what, Scores) else "-" for what in whats]


def test_a_state_is_told_once_it_has_held_and_a_flicker_is_not(tmp_path: Path) -> None:
    lamp = task(served(tmp_path, packed(fitted())), "?hold=3")
    assert labels(lamp, 60, 60, 60, 60) == ["-", "-", "dark", "dark"]
    assert labels(lamp, 180, 60, 180, 180) == ["dark"] * 4
    assert labels(lamp, 180, 60, 60) == ["light"] * 3
    assert labels(lamp, 60) == ["dark"]


def test_single_pictures_stand_for_themselves_and_frames_of_a_film_do_not(tmp_path: Path) -> None:
    model = served(tmp_path, packed(fitted()))
    assert labels(task(model), 60, 180, 60, name="one.png") == ["dark", "light", "dark"]
    assert labels(task(model), 60, 180, 60, name="film.mp4#1", played=0.1) == ["-", "-", "-"]


def test_what_is_far_from_all_examples_is_unknown(tmp_path: Path) -> None:
    lamp = task(served(tmp_path, packed(fitted(brightest=100))))
    assert labels(lamp, 60, 255, 0, name="x.png") == ["dark", "unknown", "unknown"]


def test_a_state_called_unknown_is_taught_like_the_others(tmp_path: Path) -> None:
    head = fitted(("dark", "unknown", "light"))
    scores = head(features(picture(120)))
    assert max(scores, key=scores.__getitem__) == "unknown" and sum(scores.values()) == pytest.approx(1)


def test_it_goes_on_where_the_model_before_it_stood(tmp_path: Path) -> None:
    model = served(tmp_path, packed(fitted()))
    before, after = task(model, "?hold=1"), task(model)
    assert labels(before, 60) == ["dark"]
    after.take_over(before)
    assert labels(after, 60) == ["dark"]
    after.take_over(object())


def test_the_head_of_a_file_is_the_one_that_was_fitted() -> None:
    head = fitted()
    again = unpacked(packed(head))
    shown = features(picture(60))
    assert again.labels == head.labels and again.region == head.region
    assert again(shown) == pytest.approx(head(shown), abs=1e-6)


def test_examples_that_stand_together_are_held_out_together() -> None:
    y = np.array([0] * 10 + [1] * 3)
    assert blocks(y, 2).tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        packed(fitted())[:-20],
        packed(fitted()).replace(b'"limit":', b'"limit":-'),
        packed(fitted()).replace(b'"labels":["dark",', b'"labels":["light",'),
        packed(fitted()).replace(b'"which":[0', b'"which":[7'),
        packed(fitted()).replace(b'"region":[0.0', b'"region":[2.0'),
        packed(fitted()).replace(b'"bias":"', b'"bias":"AAAA'),
    ],
)
def test_a_head_that_is_none_is_refused(wrong: bytes, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="lamp: its head"):
        task(served(tmp_path, wrong))


def test_a_head_with_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    head = fitted()
    head.weight[0, 0] = np.nan
    with pytest.raises(RefusedError, match="numbers that make no sense"):
        task(served(tmp_path, packed(head)))


def test_what_was_not_taught_is_no_state(tmp_path: Path) -> None:
    raw = packed(fitted())
    with pytest.raises(ConfigError, match=r"was taught no states \(its task is detect\)"):
        task(served(tmp_path, raw, task="detect"))
    with pytest.raises(ManifestError, match="its labels are not those of its head"):
        task(served(tmp_path, raw, labels=["light", "dark"]))
    with pytest.raises(ManifestError, match='unknown family "x"; known is state'):
        task(served(tmp_path, raw, family="x"))
    with pytest.raises(ManifestError, match=r'no \[\[file\]\] of role "head"'):
        task(msgspec.structs.replace(served(tmp_path, raw), parts={}))
    for wrong in ("?hold=0", "?hold=x", "?score=2", "?top=3"):
        with pytest.raises(ConfigError):
            task(served(tmp_path, raw), wrong)


def test_a_network_that_gives_other_features_than_where_it_was_taught_is_refused(tmp_path: Path) -> None:
    raw, seen = packed(fitted()), Recorder()
    right = served(tmp_path, raw)
    assert "correlation 1.0000" in prove(msgspec.structs.replace(right, net=seen.around(right.net)), seen)[0]
    seen = Recorder()
    other = served(tmp_path, raw, gain=-1.0)
    with pytest.raises(RefusedError, match=r"on coffee.png it gives other features than where it was taught"):
        prove(msgspec.structs.replace(other, net=seen.around(other.net)), seen)
    still = msgspec.structs.replace(right.net, run=lambda tensors: {"map:00": np.zeros((1, 3, SIDE, SIDE), np.float32)})
    seen = Recorder()
    with pytest.raises(RefusedError, match="the same output"):
        prove(msgspec.structs.replace(right, net=seen.around(still)), seen)


def test_variants_are_compared_by_their_features(tmp_path: Path) -> None:
    right = served(tmp_path, packed(fitted()))
    assert compare(right, right)[0] == pytest.approx(1)
    assert compare(served(tmp_path, packed(fitted()), gain=-1.0), right)[0] < 0.9


def test_a_region_of_a_small_picture_is_bad_and_so_are_numbers_that_are_not_finite() -> None:
    with pytest.raises(InputError, match="the region is 10x4 of a picture of 100x40 pixels: 8 a side is the least"):
        cut(np.zeros((40, 100, 3), np.uint8), (0.5, 0.5, 0.6, 0.6))
    with pytest.raises(InputError, match="not finite"):
        pooled({"map:00": np.full((1, 2, 3, 3), np.nan, np.float32)})
