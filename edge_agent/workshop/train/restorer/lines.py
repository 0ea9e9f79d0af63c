"""Lines of print to practise on: sentences, and codes of letters and digits, drawn with the fonts that are given."""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.errors import InputError, UsageError
from edge_agent.pictures.read import cv2
from edge_agent.workshop.train.restorer.fit import EM, HEIGHT, Line

WIDEST = 480
"""pixels of a line"""
CODES = 0.25
"""share of the lines that are no words: plates, numbers, codes"""
FONTS = (".ttf", ".otf")


def drawn(
    sentences: Sequence[str], fonts: Sequence[Path], characters: Sequence[str], count: int, seed: int
) -> list[Line]:
    """So many lines; `characters`: of each class of the reader. UsageError for fonts that cannot be read."""
    if not hasattr(cv2, "FontFace"):
        raise UsageError('drawing text with fonts needs OpenCV 5: pip install "opencv-python-headless>=5"')
    faces = [_face(path) for path in fonts]
    if not faces:
        raise UsageError("--fonts: no .ttf or .otf file there; on Debian: apt install fonts-dejavu-core")
    known = {c: i for i, c in enumerate(characters) if c}
    dice = np.random.default_rng(seed)
    lines: list[Line] = []
    for text in _texts(sentences, known, dice):
        cover = picture(text, faces[int(dice.integers(len(faces)))], dice)
        if cover is not None:
            lines.append(Line(cover, [known[c] for c in text]))
        if len(lines) == count:
            return lines
    raise InputError("--text: no line of it can be drawn")


def _texts(sentences: Sequence[str], known: dict[str, int], dice: np.random.Generator) -> Iterator[str]:
    """Parts of sentences of a few words, and codes, of characters that the reader knows; 1,000,000 at most."""
    signs = string.digits * 2 + string.ascii_uppercase + string.ascii_lowercase
    for _ in range(1_000_000):
        if dice.random() < CODES:
            text = " ".join(
                "".join(dice.choice(list(signs), int(dice.integers(2, 7)))) for _ in range(dice.integers(1, 4))
            )
        else:
            words = sentences[int(dice.integers(len(sentences)))].split()
            first = int(dice.integers(max(1, len(words) - 1)))
            text = " ".join(words[first : first + int(dice.integers(1, 6))])
        if text and len(text) <= 30 and all(c in known for c in text):
            yield text


def _face(path: Path) -> Any:
    try:
        return cv2.FontFace(str(path))
    except cv2.error:
        raise UsageError(f"{path}: no font that OpenCV reads") from None


def picture(text: str, face: Any, dice: np.random.Generator) -> npt.NDArray[np.uint8] | None:
    """(HEIGHT, w): how much ink covers each pixel, letters of an em of EM; None for what does not fit WIDEST."""
    canvas = np.zeros((HEIGHT, WIDEST + 200, 3), np.uint8)
    left, base = int(dice.integers(2, 9)), HEIGHT // 2 + 11 + int(dice.integers(-2, 3))
    (end, _), put = cv2.putText(canvas, text, (left, base), (255, 255, 255), face, EM)
    wide = end + int(dice.integers(2, 9))
    drawn = np.asarray(put, np.uint8)
    return None if wide > WIDEST or not drawn.any() else np.ascontiguousarray(drawn[:, : max(wide, HEIGHT), 0])
