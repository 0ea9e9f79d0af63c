"""What the process says of its memory, and gives back of it."""

from __future__ import annotations

import ctypes

import pytest

from edge_agent.device.health import give_back, rss_bytes

CHUNK, CHUNKS = 64_000, 1000


def test_freed_memory_is_given_back() -> None:
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("this C library has no malloc_trim")
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    chunks = [libc.malloc(CHUNK) for _ in range(CHUNKS)]
    for chunk in chunks:
        ctypes.memset(chunk, 1, CHUNK)
    # the last one is kept: what lies below it is not given back by free
    for chunk in chunks[:-1]:
        libc.free(chunk)
    before = rss_bytes()
    give_back()
    assert before - rss_bytes() > CHUNK * CHUNKS / 2
    libc.free(chunks[-1])
