"""Whatever stands in an ONNX file, those that cut and rewrite it do so or refuse it in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import RefusedError
from edge_agent.graphs import protobuf
from edge_agent.graphs.cut import Cuttable
from edge_agent.graphs.dynamic import dynamic
from edge_agent.graphs.fuse import fuse
from edge_agent.graphs.rewrite import rewrite
from tests.registry.heads import squares


def cut(path: Path, out: Path) -> None:
    whole = Cuttable(path)
    whole.write(out, {name: f"map:{number}" for number, name in enumerate(whole.maps())})


EDITORS: list[Callable[[Path, Path], object]] = [cut, dynamic, fuse, rewrite]


@pytest.mark.parametrize("edit", EDITORS)
def test_a_file_cut_or_scrambled_anywhere_is_edited_or_refused(
    edit: Callable[[Path, Path], object], tmp_path: Path
) -> None:
    whole = squares(tmp_path / "a.onnx", "yolov8").read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "b.onnx", 0
    for turn in range(300):
        body = bytearray(whole if turn % 2 else whole[: rng.integers(0, len(whole) + 1)])
        for at in rng.integers(0, max(1, len(body)), 4):
            if len(body) > at:
                body[at] = rng.integers(0, 256)
        path.write_bytes(bytes(body))
        try:
            edit(path, tmp_path / "out.onnx")
        except RefusedError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\x02\x00", "number 0"),
        (b"\x0b", "wire type 3"),
        (b"\x3a\xff\xff\xff\xff\x0f", "ends beyond"),
        (b"\xff" * 30, "too long"),
        (b"\x0d\x00", "ends beyond"),
        (b"\x80", "cut short"),
    ],
)
def test_a_message_that_is_broken(body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        protobuf.Buffer(body).message()


def test_numbers_packed_and_one_at_a_time() -> None:
    one_at_a_time = protobuf.integer(8, -1) + protobuf.integer(8, 300)
    packed = protobuf.block(8, b"\xac\x02\x01")
    message = protobuf.Buffer(one_at_a_time + protobuf.text(1, "a") + packed + protobuf.text(1, "b")).message()
    assert message.numbers(8) == [-1, 300, 300, 1] and message.numbers(8, 2) == [-1, 300]
    assert (
        message.text(1) == "b" and message.texts(1) == ["a", "b"] and message.text(2) == "" and message.number(3) == 0
    )
