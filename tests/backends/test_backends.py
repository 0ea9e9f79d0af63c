"""open_net: one seam for both formats."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from edge_agent.backends import FORMATS, WITH_PARTS, open_net
from edge_agent.backends.onnx import optimise
from edge_agent.errors import ModelError, RefusedError
from tests.nets import absolute_tflite, doubling_onnx, one, write_onnx, write_tflite


def model(folder: Path, format: str) -> Path:
    path = folder / f"model.{format}"
    if format == "ort":
        optimise(doubling_onnx(folder / "plain.onnx"), path)
        return path
    return doubling_onnx(path) if format == "onnx" else absolute_tflite(path, [2, 3])


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r'unknown format "onx"; did you mean "onnx"\?'):
        open_net(tmp_path / "a", "onx")
    with pytest.raises(RefusedError, match="known are onnx, ort, tflite"):
        open_net(tmp_path / "a", "pickle")


@pytest.mark.parametrize("format", [format for format in FORMATS if format not in WITH_PARTS])
class TestBoth:
    def test_a_missing_file_is_refused(self, format: str, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match=r"gone\.bin: no such file; fetch it"):
            open_net(tmp_path / "gone.bin", format)

    def test_a_folder_is_refused(self, format: str, tmp_path: Path) -> None:
        with pytest.raises(RefusedError, match="no such file"):
            open_net(tmp_path, format)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_an_unreadable_file_is_refused(self, format: str, tmp_path: Path) -> None:
        path = model(tmp_path, format)
        path.chmod(0)
        with pytest.raises(RefusedError, match="may not be read"):
            open_net(path, format)

    def test_damage_is_refused_in_one_quiet_line(
        self, format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        good = model(tmp_path, format).read_bytes()
        names = {"onnx": "ONNX", "ort": "ONNX", "tflite": "TFLite"}
        for damaged in (
            b"",
            good[:1],
            good[:8],
            good[: len(good) // 2],
            b"\0" * 4096,
            b"no model at all, just text\n" * 9,
        ):
            path = tmp_path / "damaged"
            path.write_bytes(damaged)
            with pytest.raises(RefusedError) as caught:
                open_net(path, format)
            line = str(caught.value)
            assert line.startswith(f"{path}: not a readable {names[format]} model (")
            assert "\n" not in line and len(line) < 400 + len(str(path)) and "onnxruntime" not in line
        assert capfd.readouterr() == ("", "")

    def test_random_damage_never_raises_anything_else(self, format: str, tmp_path: Path) -> None:
        good = model(tmp_path, format).read_bytes()
        chance = random.Random(7)
        refused = 0
        for _ in range(60):
            damaged = bytearray(good)
            for _ in range(3):
                damaged[chance.randrange(len(good))] = chance.randrange(256)
            path = tmp_path / "damaged"
            path.write_bytes(damaged)
            try:
                open_net(path, format, 1)
            except RefusedError as error:
                refused += 1
                assert "\n" not in str(error)
        assert refused > 5

    def test_a_wrong_shape_or_kind_is_a_model_error_and_the_next_run_is_right(
        self, format: str, tmp_path: Path
    ) -> None:
        net = open_net(model(tmp_path, format), format, 1)
        good = np.full((2, 3), 2, np.float32)
        for bad in (np.zeros((3, 3), np.float32), np.zeros(6, np.float32), np.zeros((2, 3), np.complex64)):
            with pytest.raises(ModelError) as caught:
                net.run({"x": bad})
            assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
            assert one(net.run({"x": good})).shape == (2, 3)
        with pytest.raises(ModelError):
            net.run({})
        assert one(net.run({"x": good, "unknown": good})).max() > 0

    def test_other_widths_are_cast(self, format: str, tmp_path: Path) -> None:
        net = open_net(model(tmp_path, format), format, 1)
        want = one(net.run({"x": np.full((2, 3), 3, np.float32)}))
        assert (one(net.run({"x": np.full((2, 3), 3, np.float64)})) == want).all()
        assert (one(net.run({"x": np.full((2, 3), 3, np.uint8)})) == want).all()

    def test_many_threads_share_one_net(self, format: str, tmp_path: Path) -> None:
        net = open_net(model(tmp_path, format), format, 2)
        factor = 1 if format == "tflite" else 2

        def ask(i: int) -> bool:
            x = np.full((2, 3), i, np.float32)
            return bool((one(net.run({"x": x})) == x * factor).all())

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(400)))

    def test_says_what_it_is(self, format: str, tmp_path: Path) -> None:
        net = open_net(model(tmp_path, format), format)
        assert [(s.name, s.shape, s.dtype) for s in (*net.inputs, *net.outputs)] == [
            ("x", (2, 3), "float32"),
            ("y", (2, 3), "float32"),
        ]
        assert net.engine.split()[0] == ("ai-edge-litert" if format == "tflite" else "onnxruntime")
        assert f"threads={len(os.sched_getaffinity(0))}" in net.reasons[-1]


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_names_that_are_no_utf_8(tmp_path: Path, format: str) -> None:
    path, name = tmp_path / f"m.{format}", "a long name"
    if format == "onnx":
        ends = {name: (TensorProto.FLOAT, [2])}, {"y": (TensorProto.FLOAT, [2])}
        write_onnx(path, [helper.make_node("Add", [name, name], ["y"])], *ends)
    else:
        tensor = {"shape": [2], "type": "FLOAT32"}
        write_tflite(path, "ABS", [{"name": name, **tensor}], [{"name": "y", **tensor}])
    path.write_bytes(path.read_bytes().replace(name.encode(), b"a lo\xff\xffname"))
    with pytest.raises(RefusedError, match=rf"m\.{format}: not a readable .* model") as error:
        open_net(path, format)
    assert "\n" not in str(error.value)
