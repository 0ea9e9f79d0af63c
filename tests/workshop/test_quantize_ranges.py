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
from edge_agent.workshop.quantize.ranges import BINS, METHODS, TensorRange, is_gated, laplace, watch
from tests.nets import write_onnx

BITS = 8
Reals: TypeAlias = npt.NDArray[Any]


def seen(*samples: Reals, silu: bool = False) -> TensorRange:
    made = TensorRange(silu=silu)
    for spread in (False, True):
        for sample in samples:
            (made.spread if spread else made.take)(np.asarray(sample, np.float32))
    return made


def rounded(x: Reals, low: float, high: float) -> Reals:
    step = (high - low) / 255
    zero = round(-low / step)
    return np.asarray((np.clip(np.rint(x / step) + zero, 0, 255) - zero) * step)


def test_max_has_a_step_of_the_magnitude_over_two_to_the_n_minus_1() -> None:
    low, high = METHODS["max"](seen(np.array([-3.0, 1.0, 2.0])), BITS)
    assert (high - low) / 255 == pytest.approx(3 / 128) and low == pytest.approx(-3.0)


def test_mean_clips_at_what_a_laplace_distribution_wants() -> None:
    # table 1 of ACIQ: 2, 3 and 4 bits
    assert [laplace(bits) for bits in (2, 3, 4)] == pytest.approx([2.83, 3.89, 5.03], abs=0.01)
    assert laplace(8) == pytest.approx(9.89, abs=0.01)
    x = np.zeros(1000)
    x[:10] = 1.0
    x[-1] = 40.0
    low, high = METHODS["mean"](seen(x), BITS)
    assert (high - low) / 255 == pytest.approx(laplace(8) * 0.05 / 128)
    # never wider than the values
    assert METHODS["mean"](seen(np.ones(10)), BITS) == METHODS["max"](seen(np.ones(10)), BITS)


def test_mean_is_the_clipping_of_least_error_on_laplace_values() -> None:
    x = np.random.default_rng(0).laplace(0, 1, 400_000)
    mean = laplace(4)
    errors = {}
    for c in (0.6 * mean, mean, 1.6 * mean):
        step = c / 8
        errors[c] = float(((np.clip(np.rint(x / step), -8, 7) * step - x) ** 2).mean())
    assert min(errors, key=lambda c: errors[c]) == mean


def test_full_takes_all_and_nought_in() -> None:
    assert METHODS["full"](seen(np.array([1.0, 5.0])), BITS) == (0.0, 5.0)
    assert METHODS["full"](seen(np.array([-1.0, 5.0]), np.array([-2.0, 4.0])), BITS) == (-2.0, 5.0)


def test_average_is_of_the_samples_extremes() -> None:
    assert METHODS["average"](seen(np.array([-1.0, 5.0]), np.array([-2.0, 3.0])), BITS) == (-1.5, 4.0)


def test_percentile_drops_one_rare_peak() -> None:
    x = np.concatenate([np.linspace(0, 1, 200_000), [30.0]])
    low, high = METHODS["percentile"](seen(x), BITS)
    assert low == 0.0 and 0.9 < high < 1.1


def test_entropy_drops_one_rare_peak_too() -> None:
    x = np.concatenate([np.abs(np.random.default_rng(0).normal(0, 1, 200_000)), [60.0]])
    low, high = METHODS["entropy"](seen(x), BITS)
    assert low == 0.0 and 2.5 < high < 50


def test_mse_errs_less_than_the_whole_range() -> None:
    x = np.concatenate([np.random.default_rng(0).normal(0, 1, 200_000), [-50.0, 80.0]])
    one = seen(x)
    errors = {name: float(((rounded(x, *METHODS[name](one, BITS)) - x) ** 2).sum()) for name in ("full", "mse")}
    assert errors["mse"] < errors["full"] * 0.75


def test_mse_spends_no_levels_on_what_silu_makes_nought() -> None:
    x = np.linspace(-40, 8, 100_000)
    low, high = METHODS["mse"](seen(x, silu=True), BITS)
    assert -16 < low < -4 and high > 7
    assert METHODS["mse"](seen(x), BITS)[0] < -35


def test_all_methods_bear_constant_and_empty_tensors() -> None:
    for method in METHODS.values():
        for values in (np.zeros(8), np.full(8, 3.0), np.full(8, -2.0)):
            low, high = method(seen(values), BITS)
            assert low <= 0 <= high and np.isfinite([low, high]).all()


def test_watch_sees_every_float_tensor_and_marks_what_overflows(tmp_path: Path) -> None:
    spec: tuple[int, Sequence[int | str]] = (TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["gate"]),
        helper.make_node("Mul", ["x", "gate"], ["silu"]),
        helper.make_node("Log", ["silu"], ["y"]),
    ]
    path = write_onnx(tmp_path / "n.onnx", nodes, {"x": spec}, {"y": spec})
    model = net.read(path)
    assert [value.name for node in model.graph for value in node.inputs if is_gated(value)] == ["x", "x"]
    steps: list[int] = []
    given = [{"x": np.array([[0.0, 1.0, 2.0]], np.float32)}, {"x": np.array([[0.0, 3.0, 4.0]], np.float32)}]
    found = watch(model, lambda: given, True, steps.append)
    assert steps == [1, 2, 3, 4]
    assert found["x"].low == 0.0 and found["x"].high == 4.0 and found["x"].silu and not found["silu"].silu
    assert len(found["gate"].histogram) == BINS and found["gate"].histogram.sum() == 6
    assert not found["y"].finite and found["gate"].finite
