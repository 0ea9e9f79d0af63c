"""The networks of the benchmarks are what they say: real layers, readable by the agent, finite, and not silent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edge_agent.backends import open_net
from edge_agent.families.candidates import HeadLayout
from edge_agent.families.table import FAMILIES
from edge_agent.inspect.inspect import inspect
from edge_agent.serving.models import Models
from tests.bench.graphs import CLASSES, NETWORKS, PASSING, build, pictures, write_int8
from tests.bench.setup import PROOFS

SIDE = 128
PARAMETERS = {"yolov8n": 3_151_904, "yolo11n": 2_616_248}
"""of the published networks, normalisation folded in, as their own summary prints them"""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    path = tmp_path_factory.mktemp("graphs") / f"{name}.onnx"
    path.write_bytes(build(name, pictures(PROOFS, SIDE), SIDE).SerializeToString())
    return path


def test_it_has_the_parameters_of_the_published_network(network: Path) -> None:
    weights = [w for w in onnx.load(str(network)).graph.initializer if w.name.endswith((".weight", ".bias"))]
    assert sum(int(np.prod(w.dims)) for w in weights) == PARAMETERS[network.stem]


def test_it_is_read_as_yolov8_and_finds_a_handful(network: Path) -> None:
    net = open_net(network, "onnx", 1)
    seen = inspect(network, net)
    assert (seen.family, seen.refusal) == ("yolov8", "")
    assert seen.labels[:2] == ["thing-0", "thing-1"]
    assert seen.input is not None and seen.input.channels == "RGB" and abs(seen.input.scale - 1 / 255) < 1e-9
    passed = 0
    for picture in pictures(PROOFS, SIDE):
        outputs = net.run({"images": picture})
        assert all(np.isfinite(array).all() for array in outputs.values())
        found = FAMILIES["yolov8"].decode(outputs, HeadLayout(SIDE, SIDE, CLASSES), 0.25)
        passed += len(found.score)
        assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()
    assert 0 < passed < 10 * PASSING * len(PROOFS)


def test_its_int8_form_answers_like_it(network: Path) -> None:
    made = write_int8(network, PROOFS, SIDE)
    inputs = {"images": next(iter(pictures(PROOFS, SIDE)))}
    (plain,), (coarse,) = (open_net(path, "onnx", 1).run(inputs).values() for path in (network, made))
    assert coarse.shape == plain.shape
    assert np.abs(coarse[:, 4:] - plain[:, 4:]).mean() < 0.02
    assert {p.key for p in onnx.load(str(made)).metadata_props} >= {"names", "stride", "imgsz"}


def test_the_gate_lets_it_serve(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise that is sure of one class in several pictures is refused, and then nothing can be measured on it."""
    monkeypatch.setenv("EDGE_AGENT_HOME", str(tmp_path))
    assert Models(once=True).serve(str(network)).manifest.family == "yolov8"
