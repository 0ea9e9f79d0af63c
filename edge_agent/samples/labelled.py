"""The recorded pictures that people drew boxes in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_agent.errors import InputError, RefusedError
from edge_agent.figures.coco_map import Truth
from edge_agent.pictures.read import read_picture
from edge_agent.samples.coco import Id, read, truth
from edge_agent.samples.recorded import MOST_LABELS, labels, samples
from edge_agent.types import Frame


def labelled() -> tuple[list[Frame], Truth, dict[int, str]] | None:
    """The recorded pictures that people drew boxes in, the boxes, and the names of their classes; None for none.

    Raises RefusedError, one line, for labels that cannot be read.
    """
    path = labels()
    if path is None:
        return None
    try:
        coco = read(path, MOST_LABELS)
    except InputError as error:
        why = str(error).removeprefix("no COCO JSON of boxes: ")
        raise RefusedError(f"{path}: no COCO JSON of boxes ({why}); mend it or take it away") from None
    number: dict[Id, int] = {}
    kept: list[Frame] = []
    here = {sample.name: sample for sample in samples()}
    for row in coco.images:
        sample = here.get(Path(row.file_name).name)
        with suppress(InputError):
            if sample is not None:
                kept.append(read_picture(sample))
                number[row.id] = len(kept) - 1
    boxes = coco.boxes(number)
    return (kept, truth(boxes, number), coco.names()) if boxes else None
