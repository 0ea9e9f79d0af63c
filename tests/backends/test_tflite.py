from __future__ import annotations

import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from edge_agent.backends import open_net, tflite
from edge_agent.errors import ModelError, RefusedError
from tests.nets import absolute_tflite, one, write_tflite


def test_a_dynamic_axis_is_resized_and_back(tmp_path: Path) -> None:
    net = open_net(absolute_tflite(tmp_path / "m.tflite", [1, 4], [-1, 4]), "tflite", 1)
    assert net.inputs[0].shape == (None, 4)
    for n in (1, 7, 7, 3, 1):
        x = np.random.default_rng(n).normal(size=(n, 4)).astype(np.float32)
        assert (one(net.run({"x": x})) == abs(x)).all()
    with pytest.raises(ModelError, match=r'input "x" takes \[None, 4\], not \[2, 5\]'):
        net.run({"x": np.zeros((2, 5), np.float32)})
    assert one(net.run({"x": -np.ones((2, 4), np.float32)})).tolist() == [[1] * 4] * 2


def quantized(path: Path) -> Path:
    """uint8 at 0.5 * (q - 10) -> int8 at 0.25 * (q + 5)."""
    shape = [1, 6]
    return write_tflite(
        path,
        "QUANTIZE",
        [{"name": "x", "shape": shape, "type": "UINT8", "scale": [0.5], "zero_point": [10]}],
        [{"name": "y", "shape": shape, "type": "INT8", "scale": [0.25], "zero_point": [-5]}],
    )


def test_quantized_tensors_take_floats_or_their_own_integers_and_give_floats(tmp_path: Path) -> None:
    net = open_net(quantized(tmp_path / "m.tflite"), "tflite", 1)
    assert net.inputs[0].dtype == "uint8" and (net.inputs[0].scale, net.inputs[0].zero_point) == (0.5, 10)
    assert net.outputs[0].dtype == "int8" and (net.outputs[0].scale, net.outputs[0].zero_point) == (0.25, -5)
    integers = np.array([[0, 8, 10, 11, 12, 30]], np.uint8)
    reals = (integers.astype(np.float32) - 10) * 0.5
    for given in (integers, reals, reals.astype(np.float64)):
        y = one(net.run({"x": given}))
        assert y.dtype == np.float32
        assert y.tolist() == [[-5.0, -1.0, 0.0, 0.5, 1.0, 10.0]]


def test_what_a_quantized_input_cannot_hold_saturates(tmp_path: Path) -> None:
    net = open_net(quantized(tmp_path / "m.tflite"), "tflite", 1)
    y = one(net.run({"x": np.array([[-1e6, 1e6, 0.2, 0.3, 0, 0]], np.float32)}))
    # 0 and 255 in uint8 are -5 and 122.5, of which int8 can hold (127 + 5) / 4 = 33
    assert y[0, :4].tolist() == [-5.0, 33.0, 0.0, 0.5]


def test_a_tensor_quantized_per_channel_is_refused(tmp_path: Path) -> None:
    tensor = {"shape": [1, 2], "type": "INT8", "scale": [0.5, 0.25], "zero_point": [0, 0]}
    path = write_tflite(tmp_path / "m.tflite", "ABS", [{"name": "x", **tensor}], [{"name": "y", **tensor}])
    with pytest.raises(RefusedError):
        open_net(path, "tflite", 1)


def test_names_that_stand_twice_are_told_apart(tmp_path: Path) -> None:
    tensor = {"shape": [2], "type": "FLOAT32"}
    path = write_tflite(
        tmp_path / "m.tflite", "ABS", [{"name": n, **tensor} for n in "ab"], [{"name": "y", **tensor}] * 2
    )
    net = open_net(path, "tflite", 1)
    y = net.run({"a": np.full(2, -1, np.float32), "b": np.full(2, -2, np.float32)})
    assert {name: array.tolist() for name, array in y.items()} == {"y": [1, 1], "y#2": [2, 2]}


def test_an_engine_that_is_absent_or_dies_is_passed_over_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dying one stands in for tflite-runtime 2.14 beside NumPy 2: it imports, then fails when it is built."""
    (tmp_path / "dying_engine.py").write_text(
        "class Interpreter:\n    def __init__(self, **options):\n        raise SystemError('no NumPy 2')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(
        tflite, "ENGINES", (("absent", "no_such_engine.interpreter"), ("dying", "dying_engine"), *tflite.ENGINES)
    )
    net = open_net(absolute_tflite(tmp_path / "m.tflite", [2]), "tflite", 1)
    assert net.engine.startswith("ai-edge-litert ")
    assert net.reasons == (
        "absent: cannot be imported (No module named 'no_such_engine')",
        "dying: no NumPy 2",
        "ai-edge-litert: threads=1",
    )
    sys.modules.pop("dying_engine")


def test_no_engine_at_all_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite, "ENGINES", (("absent", "no_such_engine.interpreter"),))
    with pytest.raises(RefusedError, match=r"no TFLite runtime \(absent: .*\); pip install ai-edge-litert"):
        open_net(absolute_tflite(tmp_path / "m.tflite", [2]), "tflite", 1)


def test_real_int8_and_float_say_the_same(data: Path) -> None:
    """Visual wake words, 96x96: int8 in and out through the seam, against the float file of the same network."""
    exact = open_net(data / "models/vww_96_float.tflite", "tflite", 1)
    small = open_net(data / "models/vww_96_int8.tflite", "tflite", 1)
    for seed in range(5):
        x = np.random.default_rng(seed).random((1, 96, 96, 3), np.float32)
        a, b = one(exact.run({exact.inputs[0].name: x})), one(small.run({small.inputs[0].name: x}))
        assert a.shape == b.shape == (1, 2) and b.dtype == np.float32
        assert abs(a - b).max() < 0.15


def test_yolox_truncated_anywhere_is_refused(data: Path, tmp_path: Path) -> None:
    good = (data / "models/yolox_nano_float16.tflite").read_bytes()
    for size in (1000, len(good) // 2, len(good) - 1):
        (tmp_path / "m.tflite").write_bytes(good[:size])
        with pytest.raises(RefusedError, match=r"m\.tflite: not a readable TFLite model"):
            open_net(tmp_path / "m.tflite", "tflite", 1)


def test_runs_that_come_at_once_each_have_buffers_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs stand in the middle of an Interpreter at the same time; a third one, later, builds no other."""
    built, meet = [], threading.Barrier(2, timeout=120)

    class Meeting(Interpreter):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            built.append(self)

        def invoke(self) -> None:
            if together:
                meet.wait()
            super().invoke()

    module = types.ModuleType("meeting_engine")
    module.Interpreter = Meeting  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "meeting_engine", module)
    monkeypatch.setattr(tflite, "ENGINES", (("meeting", "meeting_engine"),))
    net, together = open_net(absolute_tflite(tmp_path / "m.tflite", [2]), "tflite", 1), True
    inputs = [np.full(2, -n, np.float32) for n in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        said = [one(out).tolist() for out in pool.map(lambda x: net.run({net.inputs[0].name: x}), inputs)]
    assert said == [[1, 1], [2, 2]] and len(built) == 2
    together = False
    assert one(net.run({net.inputs[0].name: inputs[1]})).tolist() == [2, 2] and len(built) == 2


def test_where_no_second_interpreter_can_be_built_a_run_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[object] = []
    refused = threading.Event()

    class Single(Interpreter):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            if built:
                refused.set()
                raise RuntimeError("no memory left")
            super().__init__(**options)
            built.append(self)

        def invoke(self) -> None:
            assert refused.wait(120), "the other run asks while this one is at work"
            super().invoke()

    module = types.ModuleType("single_engine")
    module.Interpreter = Single  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "single_engine", module)
    monkeypatch.setattr(tflite, "ENGINES", (("single", "single_engine"),))
    net = open_net(absolute_tflite(tmp_path / "m.tflite", [2]), "tflite", 1)
    inputs = [np.full(2, -n, np.float32) for n in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        said = [one(out).tolist() for out in pool.map(lambda x: net.run({net.inputs[0].name: x}), inputs)]
    assert said == [[1, 1], [2, 2]] and len(built) == 1


@pytest.mark.parametrize("how", ["overwritten", "replaced", "removed"])
def test_every_interpreter_is_of_the_file_that_was_opened(tmp_path: Path, how: str) -> None:
    """The second one is built while the first is at work, when something else lies there."""
    path = absolute_tflite(tmp_path / "m.tflite", [2])
    net = open_net(path, "tflite", 1)
    other = quantized(tmp_path / "other.tflite")
    if how == "overwritten":
        path.write_bytes(other.read_bytes())
    elif how == "replaced":
        other.replace(path)
    else:
        path.unlink()
    begin = threading.Barrier(3, timeout=120)

    def often(n: int) -> set[tuple[float, ...]]:
        begin.wait()
        return {tuple(one(net.run({"x": np.full(2, -n, np.float32)})).tolist()) for _ in range(2000)}

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(often, (1, 2, 3))) == [{(1, 1)}, {(2, 2)}, {(3, 3)}]
