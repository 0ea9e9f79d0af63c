"""The zones of a pipeline, and what is hidden in its pictures: checked against what it sees, and put to work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.config import Pipeline, level, tracks
from edge_agent.config.zones import Zone
from edge_agent.errors import ConfigError
from edge_agent.types import Frame, Task
from edge_agent.uri import parse_task

if TYPE_CHECKING:
    from edge_agent.agent.tampering import Tampering
    from edge_agent.walk.follow import Follow

log = logging.getLogger("edge_agent")


def zones_of(zones: Sequence[Zone], pipe: Pipeline, yields: type, tasks: Sequence[Task]) -> list[Zone]:
    """Those of a pipeline. ConfigError for a label that no model of it gives, or where there is no picture."""
    mine = [zone for zone in zones if zone.pipeline == pipe.name]
    given = _given(tasks)
    for zone in mine:
        if yields is not Frame:
            raise ConfigError(f"zone {zone.name}: {pipe.name} has no pictures; give it the pipeline of a camera")
        if given:
            _check_labels(f"zone {zone.name}: labels", zone.labels, given)
    return mine


def _given(tasks: Sequence[Task]) -> list[str]:
    """The labels that its models give; none where nobody knows."""
    return sorted({name for task in tasks for name in getattr(task, "gives_names", ())})


def _check_labels(what: str, labels: Sequence[str], given: Sequence[str]) -> None:
    """ConfigError for a label that is not among those `given` by the models."""
    known = {name.casefold() for name in given}
    for label in labels:
        if label.casefold() not in known:
            from edge_agent.tasks.detect.detect import nearest_class

            raise ConfigError(f'{what}: "{label}" is not found here{nearest_class(label, given)}')


def mask_of(zones: Sequence[Zone]) -> Callable[[Frame], Frame] | None:
    """What blackens the masks among them in a frame; None where there is none."""
    masks = [zone.points for zone in zones if zone.mask]
    if not masks:
        return None
    from edge_agent.pictures.mask import masker

    return masker(masks)


def follow_of(pipe: Pipeline, zones: Sequence[Zone], store: Path) -> Follow | None:
    """What makes the lives of objects out of tracked boxes, where a pipeline tracks."""
    if not tracks(pipe):
        return None
    from edge_agent.walk.follow import Follow

    return Follow(pipe.name, zones, store / f"objects-{level(pipe.name)}.json")


def tampering_of(pipe: Pipeline, store: Path) -> Tampering | None:
    """What watches over a pipeline's camera, where its config asks for it."""
    if pipe.tamper is None:
        return None
    from edge_agent.agent.tampering import Tampering

    return Tampering(pipe.tamper, store / "tamper" / f"{level(pipe.name)}.npz")


def check_tamper(pipe: Pipeline, yields: type) -> None:
    """ConfigError where there is no camera to be tampered with."""
    if pipe.tamper is not None and yields is not Frame:
        raise ConfigError("tamper: only a camera can be moved, covered or blurred; take the line out")


def check_blur(pipe: Pipeline, yields: type, tasks: Sequence[Task]) -> None:
    """ConfigError for a label that is to be hidden and is never found; said where nothing finds anything."""
    if yields is not Frame or not pipe.blur:
        return
    if not any(task.partition(":")[0] == "detect" for task in pipe.tasks):
        log.warning("%s: blur: nothing here finds %s: its pictures are not kept or shown", pipe.name, pipe.blur[0])
        return
    if given := _given(tasks):
        _check_labels("blur", pipe.blur, given)


def check_also(pipe: Pipeline) -> None:
    """ConfigError where whole pictures would go out of a pipeline that hides something in them."""
    if pipe.blur and any("also" in parse_task(task).options for task in pipe.tasks):
        raise ConfigError("also: pictures would go to the neighbour whole, but blur hides things in them; drop one")
