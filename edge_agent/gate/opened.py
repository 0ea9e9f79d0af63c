"""A served model as a trial opens it: bounded, warmed, with its peak of memory."""

from __future__ import annotations

import math
import resource
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.errors import RefusedError
from edge_agent.gate.trial import Variant
from edge_agent.manifest import File, Input, Manifest, Served
from edge_agent.tasks.proofs import Recorder
from edge_agent.types import ModelRef, Net

MOST_ELEMENTS = 1 << 28
"""numbers in one input"""


def open_served(
    manifest: Manifest, variant: Variant, parts: dict[str, str], threads: int, seen: Recorder | None = None
) -> Served:
    """The model with this variant of its network, warm. RefusedError for a network that is too large or fails."""
    paths = {role: Path(path) for role, path in parts.items()}
    net = open_net(Path(variant.path), variant.file.format, threads, parts=paths)
    bounded(net)
    picture = input_of(manifest, variant.file)
    warm(net, picture)
    ref = ModelRef(manifest.name, manifest.version, variant.file.sha256)
    others = others_of(manifest, paths, threads)
    return Served(as_read(manifest, variant.file), ref, seen.around(net) if seen else net, paths, picture, "", others)


def others_of(manifest: Manifest, parts: Mapping[str, Path], threads: int) -> dict[str, Net]:
    """role -> network, of the parts that are one. RefusedError for another file than its row's, or a broken one."""
    rows = [row for row in manifest.parts() if row.format != "text"]
    return {row.role: open_net(parts[row.role], row.format, threads, row.sha256) for row in rows}


def bounded(net: Net) -> None:
    """RefusedError for a network with an input of more numbers than are taken."""
    for spec in net.inputs:
        elements = math.prod(axis or 1 for axis in spec.shape)
        if elements > MOST_ELEMENTS:
            shape = "x".join("?" if axis is None else str(axis) for axis in spec.shape)
            raise RefusedError(
                f'its input "{spec.name}" is {shape}, {elements:.3g} numbers; {MOST_ELEMENTS:.3g} are taken'
            )


def peak_rss() -> int:
    """Most bytes that this process ever had resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def as_read(manifest: Manifest, row: File) -> Manifest:
    """The manifest with the family of the file that serves."""
    return msgspec.structs.replace(manifest, family=row.family) if row.family else manifest


def input_of(manifest: Manifest, row: File) -> Input | None:
    """[input] with the size and layout of the file that serves, and nothing to prepare where it does that itself."""
    own = {key: value for key in ("width", "height", "layout") if (value := getattr(row, key)) is not None}
    if row.pixels:
        own |= {"layout": "NHWC", "channels": "BGR", "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return msgspec.structs.replace(manifest.input, **own) if manifest.input is not None else None


def warm(net: Net, picture: Input | None) -> None:
    """Run once on zeros, so that the first sample does not pay for it and a file that cannot run is found out.

    Dynamic axes of a picture are as `picture` says, those of a text one sentence of 8 tokens.
    Raises RefusedError when the run fails.
    """
    tensors = {}
    for spec in net.inputs:
        usual = (1, 8, 8, 8)
        if picture is not None and len(spec.shape) == 4:
            high, wide = picture.height, picture.width
            usual = (1, 3, high, wide) if picture.layout == "NCHW" else (1, high, wide, 3)
        shape = [given or usual[min(axis, 3)] for axis, given in enumerate(spec.shape)]
        fill = 1 if spec.dtype.startswith("int") and "mask" in spec.name else 0
        tensors[spec.name] = np.full(shape, fill, spec.dtype)
    net.run(tensors)
