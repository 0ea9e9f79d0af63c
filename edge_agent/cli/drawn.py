"""Where `detect --save` puts what it drew."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from edge_agent.cli.places import Place
from edge_agent.errors import UsageError
from edge_agent.types import Detections, Finding, Frame


def saver(target: str, places: list[Place]) -> Callable[[Place, Frame], Path]:
    """Where each picture goes: the file itself for one picture, a folder for several (or when it is one).

    In a folder a picture gets a number where its name is taken: by another one, or by a file that we did not draw.
    UsageError where one file is to hold several, or the picture that was given.
    """
    path = Path(target)
    single = path.suffix.lower() in (".jpg", ".jpeg") and not path.is_dir()
    _check(path, single, places)
    from edge_agent.pictures.draw import is_drawn

    taken: set[Path] = set()
    count: Counter[Place] = Counter()

    def where(place: Place, frame: Frame) -> Path:
        if single:
            return path
        count[place] += 1
        stem = place.path.stem if place.path else re.sub(r"[^\w.-]+", "_", place.name.partition("://")[2] or place.name)
        if place.film or place.address:
            stem += f"-{count[place] - 1:06}"
        names = (path / f"{stem}{f'-{number}' if number > 1 else ''}.jpg" for number in itertools.count(1))
        free = next(name for name in names if name not in taken and (not name.exists() or is_drawn(name)))
        taken.add(free)
        return free

    return where


def _check(path: Path, single: bool, places: list[Place]) -> None:
    """UsageError where a `single` file, or a folder, cannot take what is drawn."""
    if not single:
        if path.suffix and not path.is_dir():
            raise UsageError(f"--save {path}: give a name that ends in .jpg, or a folder")
        return
    if len(places) > 1 or places[0].film or places[0].address:
        raise UsageError(f"--save {path}: one file does not hold several pictures; give a folder")
    if path.resolve() in {place.path.resolve() for place in places if place.path is not None}:
        raise UsageError(f"--save {path}: that is the picture itself; give another name")


def save(path: Path, frame: Frame, found: Finding) -> None:
    """Draw what was found into a copy of the picture. UsageError where its folder cannot be made."""
    from edge_agent.pictures.draw import draw, save_jpeg

    assert isinstance(found.what, Detections)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--save {path}: the folder cannot be made ({error.strerror})") from None
    save_jpeg(draw(frame.image, found.what), path)
