"""How a sample that was answered is answered again, by this model and by that."""

from __future__ import annotations

import msgspec

from edge_agent import paths
from edge_agent.agent.line import Line
from edge_agent.manifest import Served
from edge_agent.tasks import TASKS, make_task
from edge_agent.types import Detections, Finding, Frame, Sample, Text
from edge_agent.uri import Uri, parse_task

FAINTER = 0.1
"""by which a box may be fainter than one that counts, and still be the same answer; int8 edge-yolo has 0.82 of its
parent's boxes on photographs without this, 0.97 with it, and its mAP is the parent's"""
NOT_AGAIN = ("also", "also_ms", "also_token", "motion", "closer")
"""options of a task that ask somebody else, or look at what was before"""


def said(uri: Uri, sample: Sample, served: Served) -> list[object]:
    """What a task finds in a sample on this model."""
    task = make_task(uri, lambda _: served, paths.home())
    return [found.what for found in task(sample) if isinstance(found, Finding)]


def audited(line: Line, sample: Sample) -> Uri | None:
    """The first task of a pipeline whose answers can be held against another model's, as it is asked again."""
    for at, task in enumerate(line.config.tasks):
        uri = parse_task(task)
        row = TASKS.get(uri.scheme)
        if row is not None and row.compare and row.alone and isinstance(sample, (Frame, Text)):
            return _asked_again(uri, line, at) if row.takes is None or isinstance(sample, row.takes) else None
    return None


def _asked_again(uri: Uri, line: Line, at: int) -> Uri:
    """The task without what asks somebody else, at the limits of now; of a detector fainter boxes, too."""
    options = {key: value for key, value in uri.options.items() if key not in NOT_AGAIN}
    limit = next((one for one in line.thresholds.values() if one.at == at), None)
    if limit is not None:
        options[limit.option] = str(limit.now)
        if TASKS[uri.scheme].gives is Detections:
            options["low"] = str(max(0.01, limit.now - FAINTER))
    return msgspec.structs.replace(uri, options=options)
