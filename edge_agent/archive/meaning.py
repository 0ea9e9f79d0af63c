"""Vectors of what events say: read by an encoder, kept as int8, compared with a question's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.archive.archive import Archive

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edge_agent.types import Floats

AT_ONCE = 64
"""texts that are read between two writes"""
PAGE = 4096
"""vectors that are compared at once"""


class Meaning(NamedTuple):
    """What reads texts for their meaning."""

    embed: Callable[[Sequence[str]], Floats]
    """texts -> vectors (n, d) of any length above 0"""
    model: str
    """SHA-256 of the encoder: vectors of another one say nothing to it"""


def read_for_meaning(archive: Archive, meaning: Meaning, most: int, stop: Callable[[], bool] = lambda: False) -> int:
    """Give vectors to at most `most` texts that have none of this encoder, the newest first; how many were read.
    StoreError where the disk does not take them.
    """
    read = 0
    while read < most and not stop():
        rows = archive.without_vector(meaning.model, min(AT_ONCE, most - read))
        if not rows:
            break
        vectors = _packed(meaning.embed([text for _, text in rows]))
        archive.set_vectors(zip((t for t, _ in rows), vectors, strict=True))
        read += len(rows)
    return read


def cosines(archive: Archive, question: str, meaning: Meaning) -> dict[int, float]:
    """Text -> cosine with the question, both less the mean of the newest PAGE texts, of those that have a vector of
    this encoder. A page of them is in memory at a time.
    """
    import numpy as np

    asked = np.asarray(meaning.embed([question])[0], np.float32)
    asked, mean = asked / max(float(np.linalg.norm(asked)), 1e-12), None
    found, before = dict[int, float](), None
    while page := archive.vectors(meaning.model, PAGE, before):
        before = page[-1][0]
        page = [(t, vector) for t, vector in page if len(vector) == 4 + len(asked)]
        if not page:
            continue
        rows = _unpacked([vector for _, vector in page])
        if mean is None:
            mean = rows.mean(0)
            asked = asked - mean
        rows -= mean
        lengths = np.maximum(np.linalg.norm(rows, axis=1) * float(np.linalg.norm(asked)), 1e-12)
        found |= zip((t for t, _ in page), (rows @ asked / lengths).tolist(), strict=True)
    return found


def _packed(vectors: Floats) -> list[bytes]:
    """Each of length 1, as int8 and its scale (float32) before it."""
    import numpy as np

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scale = np.maximum(np.abs(unit).max(axis=1), 1e-12) / 127
    whole = np.rint(unit / scale[:, None]).astype(np.int8)
    return [np.float32(s).tobytes() + row.tobytes() for s, row in zip(scale, whole, strict=True)]


def _unpacked(packed: Sequence[bytes]) -> npt.NDArray[np.float32]:
    """(n, d) of rows of one length."""
    import numpy as np

    rows = np.frombuffer(b"".join(packed), np.uint8).reshape(len(packed), len(packed[0]))
    scale = np.ascontiguousarray(rows[:, :4]).view("<f4")
    return np.asarray(rows[:, 4:].view(np.int8) * scale, np.float32)
