"""Smaller forms of files: they give the file, or are refused within bounds."""

from __future__ import annotations

import bz2
import lzma
import random
import struct

import pytest

from edge_agent.errors import RefusedError
from edge_agent.fleet import forms


def edited(data: bytes, chance: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(4):
        at = chance.randint(0, len(made))
        made[at : at + chance.randint(0, 40)] = chance.randbytes(chance.randint(0, 60))
    return bytes(made)


def test_a_difference_gives_the_file_and_is_small_where_little_changed() -> None:
    pytest.importorskip("bsdiff4", reason="the extra [update] is not installed")
    chance = random.Random(3)
    for size in (0, 1, 50, 5000, 200_000):
        base = chance.randbytes(size)
        data = edited(base, chance)
        form = forms.difference(base, data)
        assert forms.restored("bsdiff", form, len(data), base) == data
    assert len(form) < 2000 < 0.02 * len(data)


def test_what_is_packed_comes_back() -> None:
    data = b"model" * 10_000
    assert len(forms.packed(data)) < 500 and forms.restored("xz", forms.packed(data), len(data)) == data


def head(control: bytes, size: int, diff: bytes = b"", extra: bytes = b"") -> bytes:
    parts = [bz2.compress(part) for part in (control, diff, extra)]
    return struct.pack("<8sQQQ", b"BSDIFF40", len(parts[0]), len(parts[1]), size) + b"".join(parts)


@pytest.mark.parametrize(
    ("form", "why"),
    [
        (b"", "unpack"),
        (b"BSDIFF40" + bytes(24), "another file"),
        (head(b"", 100), "gives 0 of 100 bytes"),
        (head(struct.pack("<QQQ", 200, 0, 0), 100), "leads out"),
        (head(struct.pack("<QQQ", 50, 0, 0), 100), "leads out"),
        (head(struct.pack("<QQQ", 0, 50, 0), 100, b"", bytes(10)), "leads out"),
        (head(struct.pack("<QQQ", 1 | 1 << 63, 0, 0), 100), "leads out"),
        (head(struct.pack("<QQQ", 0, 100, 0), 100, b"", bytes(10_000_000)), "more than 100 bytes"),
        (struct.pack("<8sQQQ", b"BSDIFF40", 4, 4, 100) + b"abcdefgh", "does not give its file"),
        (struct.pack("<8sQQQ", b"BSDIFF40", 1 << 63, 1 << 62, 100), "does not give its file"),
    ],
)
def test_a_hostile_difference_is_refused(form: bytes, why: str) -> None:
    with pytest.raises(RefusedError, match=why):
        forms.restored("bsdiff", form, 100, bytes(100))


def test_a_step_far_out_of_the_base_reads_nothing_there() -> None:
    far = struct.pack("<QQQ", 0, 0, (1 << 62) | 1 << 63) + struct.pack("<QQQ", 4, 0, 0)
    assert forms.restored("bsdiff", head(far, 4, b"abcd"), 4, bytes(100)) == b"abcd"


def test_a_bomb_is_refused() -> None:
    bomb = lzma.compress(bytes(50_000_000))
    with pytest.raises(RefusedError, match="more than the 1000 bytes"):
        forms.restored("xz", bomb, 1000)
    with pytest.raises(RefusedError, match="less than"):
        forms.restored("xz", lzma.compress(b"a"), 1000)
    with pytest.raises(RefusedError, match="does not give its file"):
        forms.restored("xz", b"no xz", 1000)
