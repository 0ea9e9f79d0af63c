"""COCO JSON: pictures and the boxes that people drew in them (cocodataset.org/#format-data)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.errors import InputError
from edge_agent.figures.coco_map import Truth
from edge_agent.files import read_regular

MOST_BYTES = 1_000_000_000
"""of a file; COCO's own have up to 500 MB"""

Id = int | str
"""of a picture"""


class CocoImage(msgspec.Struct, frozen=True):
    """A picture file."""

    id: Id
    file_name: str
    width: int = 0
    height: int = 0
    """0: the file does not say"""


class CocoBox(msgspec.Struct, frozen=True):
    """A thing in a picture."""

    image_id: Id
    category_id: int
    bbox: tuple[float, float, float, float]
    """left, top, width, height in pixels"""
    iscrowd: bool | int = 0
    """whether it surrounds more things than anybody counted"""
    area: float | None = None


class CocoCategory(msgspec.Struct, frozen=True):
    """A class of things."""

    id: int
    name: str


class Coco(msgspec.Struct, frozen=True):
    """What of a file is read; all else is passed over."""

    images: list[CocoImage]
    annotations: list[CocoBox]
    categories: list[CocoCategory]

    def names(self) -> dict[int, str]:
        """Category id -> name."""
        return {category.id: category.name for category in self.categories}

    def boxes(self, number: Mapping[Id, int]) -> list[CocoBox]:
        """The boxes in the pictures whose ids are given, of categories that the file names."""
        names = self.names()
        return [box for box in self.annotations if box.image_id in number and box.category_id in names]


def read(path: Path, most: int = MOST_BYTES, *, nan: bool = False) -> Coco:
    """Read a file of at most `most` bytes. InputError names what is wrong and the place in the file, not the path.

    `nan`: boxes may hold NaN, which is no JSON, but which Python writes into it.
    """
    try:
        data = read_regular(path, most)
        return msgspec.convert(json.loads(data), Coco) if nan else msgspec.json.decode(data, type=Coco)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})") from None
    except msgspec.ValidationError as error:
        raise InputError(f"no COCO JSON of boxes: {error}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InputError(f"broken JSON: {error}") from None


def truth(boxes: list[CocoBox], number: Mapping[Id, int]) -> Truth:
    """Boxes as figures are made of them; `number`: picture id -> its place among the pictures."""
    return Truth(
        np.array([number[box.image_id] for box in boxes], np.int64),
        np.array([box.category_id for box in boxes], np.int64),
        np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4),
        np.array([box.bbox[2] * box.bbox[3] if box.area is None else box.area for box in boxes], np.float64),
        np.array([bool(box.iscrowd) for box in boxes], bool),
    )
