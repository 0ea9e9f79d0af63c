"""A detector at a smaller input size, made here of its ONNX files, for a device that has to do with less.

It is a model of its own in HOME/smaller: tried in a child, derived and raced as any other, but not held against the
larger one: that it finds less is the point, and that is said (docs/governor.md).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_agent.errors import RefusedError
from edge_agent.gate.admit import seen
from edge_agent.graphs.sides import with_sides
from edge_agent.manifest import File, Manifest, Served
from edge_agent.paths import home
from edge_agent.registry import catalogue, store
from edge_agent.registry.files import Located, file_path, is_here
from edge_agent.serving.order import SLOWLY, Pace
from edge_agent.toml import toml

if TYPE_CHECKING:
    from edge_agent.serving.models import Models

STEP = 32
"""pixels: what the strides of a detector divide"""


def smaller(models: Models, name: str, share: float, pace: Pace = SLOWLY) -> Served:
    """The detector of that name with sides of `share` of its own, ready; made and tried the first time.

    ModelError, one line, where it cannot be had: no ONNX file is here, its size is fixed in the graph, or what came out
    does not find what the proof pictures show.
    """
    located = catalogue.locate(name, read=seen)
    manifest = located.manifest
    rows = [row for row in manifest.networks() if row.format == "onnx" and row.width is None and is_here(located, row)]
    if manifest.task != "detect" or manifest.input is None or not rows:
        raise RefusedError(f"{manifest.name}: no detector with an ONNX file, of which a smaller one is made")
    sides = [max(STEP, round(side * share / STEP) * STEP) for side in (manifest.input.width, manifest.input.height)]
    made = f"{manifest.name}-{sides[0]}x{sides[1]}"
    folder = home() / "smaller" / f"{made}-{rows[0].sha256[:12]}"
    if not (folder / "manifest.toml").is_file():
        _make(located, rows, folder, made, (sides[0], sides[1]))
    return models.serve(str(folder), pace)


def _make(located: Located, rows: list[File], folder: Path, name: str, sides: tuple[int, int]) -> None:
    """Write the model's folder, whole or not at all; those of its earlier versions go. RefusedError, OSError."""
    manifest = located.manifest
    assert manifest.input is not None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.scratch(home())) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        files = [_resized(located, row, new, sides) for row in rows]
        given = msgspec.structs.replace(manifest.input, width=sides[0], height=sides[1])
        small: Manifest = msgspec.structs.replace(manifest, name=name, input=given, file=files, card=None, parent=None)
        (new / "manifest.toml").write_text(toml(msgspec.to_builtins(small)), encoding="utf-8")
        for old in folder.parent.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        new.replace(folder)


def _resized(located: Located, row: File, new: Path, sides: tuple[int, int]) -> File:
    path = new / row.name
    with_sides(file_path(located, row), path, *sides)
    return msgspec.structs.replace(row, sha256=store.digest(path), bytes=path.stat().st_size, sources=[])
