"""Each method against its formula, worked out here by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pytest
from onnx import TensorProto, helper

from edge_agent.workshop.graph import net
from edge_agent.workshop.quantize.ranges import BINS, METHODS, TensorRange, watch
from tests.nets import write_onnx

Reals: TypeAlias = npt.NDArray[Any]


def seen(*samples: Reals) -> TensorRange:
    made = TensorRange()
    for spread in (False, True):
        for sample in samples:
            (made.spread if spread else made.take)(np.asarray(sample, np.float32))
    return made


def test_full_takes_all_and_nought_in() -> None:
    assert METHODS["full"](seen(np.array([1.0, 5.0]))) == (0.0, 5.0)
    assert METHODS["full"](seen(np.array([-1.0, 5.0]), np.array([-2.0, 4.0]))) == (-2.0, 5.0)


def test_percentile_drops_one_rare_peak() -> None:
    x = np.concatenate([np.linspace(0, 1, 200_000), [30.0]])
    low, high = METHODS["percentile"](seen(x))
    assert low == 0.0 and 0.9 < high < 1.1


def test_percentile_clips_half_of_a_ten_thousandth_at_either_end() -> None:
    x = np.random.default_rng(0).normal(0, 1, 400_000)
    low, high = METHODS["percentile"](seen(x))
    bin_ = 2 * np.abs(x).max() / BINS
    assert low == pytest.approx(np.quantile(x, 0.00005), abs=1.5 * bin_)
    assert high == pytest.approx(np.quantile(x, 0.99995), abs=1.5 * bin_)


def test_all_methods_bear_constant_and_empty_tensors() -> None:
    for method in METHODS.values():
        for values in (np.zeros(8), np.full(8, 3.0), np.full(8, -2.0)):
            low, high = method(seen(values))
            assert low <= 0 <= high and np.isfinite([low, high]).all()


def test_watch_sees_every_float_tensor_and_what_overflows(tmp_path: Path) -> None:
    spec: tuple[int, Sequence[int | str]] = (TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["silu"]),
        helper.make_node("Log", ["silu"], ["y"]),
    ]
    path = write_onnx(tmp_path / "n.onnx", nodes, {"x": spec}, {"y": spec})
    model = net.read(path)
    steps: list[int] = []
    given = [{"x": np.array([[0.0, 1.0, 2.0]], np.float32)}, {"x": np.array([[0.0, 3.0, 4.0]], np.float32)}]
    found = watch(model, lambda: given, steps.append)
    assert steps == [1, 2, 3, 4]
    assert found["x"].low == 0.0 and found["x"].high == 4.0
    assert len(found["gate"].histogram) == BINS and found["gate"].histogram.sum() == 6
    assert not found["y"].finite and found["gate"].finite
