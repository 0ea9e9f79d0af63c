"""Which detector a network is, by the shapes of its outputs: every head that fits, the likeliest first.

A grid head has one row for each cell of its levels (three for the anchors of YOLOv5), so that the number of rows and
the size of the input confirm each other. Where several families share a shape, all are given.
"""

from __future__ import annotations

from edge_agent.families.guess import Guess, shape
from edge_agent.families.levels import maps_by_level, rows_by_level
from edge_agent.families.several import finished, pair
from edge_agent.families.single import single, table
from edge_agent.types import TensorSpec

Outputs = tuple[TensorSpec, ...]


def heads(outputs: Outputs, width: int, height: int, names: int = 0, task: str = "") -> list[Guess]:
    """Every head that fits, of families that are only named too; [] when none does. `names`: classes that the file
    names; `task`: the exporter's word.
    """
    if len(outputs) == 1:
        return table(outputs) or single(outputs[0], width, height, names, task)
    for form in _FORMS:
        if found := form(outputs, width, height, names):
            return found
    return []


def _two(outputs: Outputs, width: int, height: int, names: int) -> list[Guess]:
    """Boxes and scores, the boxes perhaps as [1, N, 1, 4]; or boxes and the masks of a segmentation."""
    if len(outputs) != 2:
        return []
    thick = [_thick(spec) for spec in outputs]
    if all(len(spec.shape) == 3 for spec in thick):
        found = pair(thick, width, height, names)
        # the usual ones give their boxes without that axis
        return [guess for guess in found if thick == list(outputs) or guess.family in ("box-scores", "ssd-decoded")]
    first, second = sorted(outputs, key=lambda spec: len(spec.shape))
    if (len(first.shape), len(second.shape)) not in ((3, 4), (3, 5)):
        return []
    return [Guess("yolov8-seg", 0, f"output {shape(first)} and masks {shape(second)}")]


def _columns(outputs: Outputs, width: int, height: int, names: int) -> list[Guess]:
    return finished(outputs, width, height) if len(outputs) <= 4 else []


def _counted(outputs: Outputs, width: int, height: int, names: int) -> list[Guess]:
    """A table of finished boxes, and beside it a count of its rows."""
    return table(outputs) if len(outputs) == 2 else []


def _levels(outputs: Outputs, width: int, height: int, names: int) -> list[Guess]:
    axes = {len(spec.shape) for spec in outputs}
    if len(outputs) not in (3, 4, 6, 8) or not (axes == {3} or axes <= {4, 5}):
        return []
    return rows_by_level(outputs, width, height, names) if axes == {3} else maps_by_level(outputs, names)


_FORMS = (_two, _columns, _counted, _levels)
"""what several outputs may be; the first that fits"""


def _thick(spec: TensorSpec) -> TensorSpec:
    """Boxes [1, N, 1, 4] as [1, N, 4]; others as they are."""
    if len(spec.shape) != 4 or spec.shape[2:] != (1, 4):
        return spec
    return TensorSpec(spec.name, (*spec.shape[:2], 4), spec.dtype, spec.scale, spec.zero_point)
