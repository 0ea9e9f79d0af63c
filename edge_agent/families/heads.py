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
    thin = [spec for spec in outputs if len(spec.shape) == 4 and spec.shape[2:] == (1, 4)]
    flat = [spec for spec in outputs if len(spec.shape) == 3]
    if len(outputs) != 2 or not (flat or thin):
        return []
    if len(flat) + len(thin) == 2:
        found = pair([_thick(spec) if spec in thin else spec for spec in outputs], width, height, names)
        return [guess for guess in found if not thin or guess.family in ("box-scores", "ssd-decoded")]
    masks = [spec for spec in outputs if len(spec.shape) in (4, 5)]
    return [Guess("yolov8-seg", 0, f"output {shape(*flat)} and masks {shape(*masks)}")] if flat and masks else []


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
    """Boxes [1, N, 1, 4] as [1, N, 4]."""
    return TensorSpec(spec.name, (*spec.shape[:2], 4), spec.dtype, spec.scale, spec.zero_point)
