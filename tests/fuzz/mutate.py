"""Mutants of files: what a bug, a broken disk or a stranger may make of them. The same seed makes the same ones."""

from __future__ import annotations

import random
from collections.abc import Iterator

NUMBERS = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff\xff", b"\x7f\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\xff",
           b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8, b"\xff" * 9 + b"\x01",
           b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f")  # fmt: skip
"""bytes that lengths, offsets, shapes and numbers break at, NaN and infinity among them"""
WORDS = (b"\x1b[2J", b"\r\n", b"\n\n", b"../", b"/etc/passwd", b"%s%n", b"\xc3\x28", b"\xed\xa0\x80", b"\xe2\x80\xae",
         b"\x00", b"--", b"[[", b"]]", b"{{", b'"""', b"'''", b"=", b"9" * 400, b"a." * 200, b"[" * 400, b"1e999",
         b"nan", b"-1", b"0x" + b"f" * 40, b"location", b"\xff\xd8\xff", b"\xff\xd9", b"#", b"\\u0000")  # fmt: skip
"""texts that parsers and terminals break at"""
HEAD = 512
"""bytes at either end of a file, where most of what it says of itself lies"""


def mutants(seeds: list[bytes], seed: int) -> Iterator[tuple[int, bytes]]:
    """Without end: the number of the seed that it was made of, and the mutant."""
    rng = random.Random(seed)
    while True:
        number = rng.randrange(len(seeds))
        data = bytearray(seeds[number])
        # some keep the length, so that what stands behind is still found
        kinds = SAME_LENGTH if rng.random() < 0.4 else ALL
        for _ in range(1 + min(int(rng.expovariate(0.5)), 12)):
            _change(data, seeds, rng, rng.choice(kinds))
        yield number, bytes(data)


ALL, SAME_LENGTH = range(10), (0, 0, 1, 2, 3)


def _change(data: bytearray, seeds: list[bytes], rng: random.Random, kind: int) -> None:
    at = _place(data, rng)
    size = 1 + int(rng.expovariate(1 / 12))
    match kind:
        case 0:
            if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
        case 1:
            value = rng.choice(NUMBERS)
            data[at : at + len(value)] = value[: len(data) - at]
        case 2:
            # a length or an offset that is a little off
            if data:
                data[at % len(data)] = (data[at % len(data)] + rng.choice((-2, -1, 1, 2))) % 256
        case 3:
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        case 4:
            del data[at : at + size]
        case 5:
            data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 100))
        case 6:
            data[at:at] = rng.choice(WORDS)
        case 7:
            value = rng.choice(WORDS)
            data[at : at + len(value)] = value
        case 8:
            del data[at:]
        case _:
            other = rng.choice(seeds)
            begin = _place(other, rng)
            data[at : at + size * 4] = other[begin : begin + size * 4]


def _place(data: bytes | bytearray, rng: random.Random) -> int:
    """Half of them where a file says what it is: at its ends, and around its words."""
    if not data:
        return 0
    how = rng.randrange(4)
    if how == 0:
        return min(rng.randrange(HEAD), len(data) - 1)
    if how == 1:
        return max(0, len(data) - 1 - rng.randrange(HEAD))
    at = rng.randrange(len(data))
    if how == 2:
        for near in range(at, min(len(data) - 4, at + 65536)):
            if data[near : near + 4].isalpha():
                return max(0, near - rng.randrange(12))
    return at
