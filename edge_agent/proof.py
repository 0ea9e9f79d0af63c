"""What is asked of a model in the child process in which it is tried (child.py; see prove.py).

Detectors are shown the pictures that the program carries (a person, a cat, a cup) and noise, encoders some sentences.
"""

from __future__ import annotations

import math
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Manifest, Served
from edge_agent.prove import Result, Trial, Variant
from edge_agent.serving import as_read, input_of, warm
from edge_agent.types import ModelRef, Net, Tensors

MOST_ELEMENTS = 1 << 28
"""numbers in one input"""
LOW = 0.05
"""score of a box that is looked at"""


def asked(trial: Trial) -> Result:
    """Do what the trial asks for; what is wrong with the model stands in the Result."""
    try:
        return _asked(trial)
    except EdgeAgentError as error:
        return Result(False, " ".join(str(error).split()))
    except MemoryError:
        return Result(False, f"it needs more than {trial.limits.memory >> 20} MB of memory")


def _asked(trial: Trial) -> Result:
    if trial.what == "agree":
        from edge_agent.agree import agree

        return agree(trial)
    if trial.what == "heads":
        from edge_agent.agree_heads import agree_heads

        return agree_heads(trial)
    if trial.what == "race":
        from edge_agent.race import race

        return race(trial)
    if trial.what == "derive":
        from edge_agent.derive import derive

        return derive(trial)
    return prove(trial) if trial.what == "prove" else load(trial)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────


def load(trial: Trial) -> Result:
    """Only open the file, of which nothing is known yet, and say what it declares; with "read" what it is, too."""
    from edge_agent.reading import declared, held

    (variant,) = trial.variants
    net = open_net(Path(variant.path), variant.file.format, trial.threads)
    bounded(net)
    return held(trial, net) if trial.what == "read" else Result(True, figures=declared(net))


def prove(trial: Trial) -> Result:
    """Run a model on what it is made for and look at what comes out. RefusedError when it makes no sense."""
    assert trial.manifest is not None
    (variant,) = trial.variants
    seen = Recorder()
    model = open_served(trial.manifest, variant, trial.parts, trial.threads, seen)
    from edge_agent.sanity import SANITY_CHECKS

    notes = SANITY_CHECKS[trial.manifest.task](model, seen)
    return Result(True, notes=notes, figures={"engine": model.net.engine, "peak_rss": peak_rss()})


@dataclass(slots=True)
class Recorder:
    """Keeps what a network gave."""

    outputs: list[dict[str, Any]] = field(default_factory=list)

    def around(self, net: Net) -> Net:
        """The same network, its outputs kept."""

        def run(tensors: Tensors) -> dict[str, Any]:
            self.outputs.append({name: np.array(array) for name, array in net.run(tensors).items()})
            return dict(self.outputs[-1])

        return msgspec.structs.replace(net, run=run)


def open_served(
    manifest: Manifest, variant: Variant, parts: dict[str, str], threads: int, seen: Recorder | None = None
) -> Served:
    """The model with this variant of its network, warm. RefusedError for a network that is too large or fails."""
    net = open_net(Path(variant.path), variant.file.format, threads)
    bounded(net)
    picture = input_of(manifest, variant.file)
    warm(net, picture)
    ref = ModelRef(manifest.name, manifest.version, variant.file.sha256)
    paths = {role: Path(path) for role, path in parts.items()}
    return Served(as_read(manifest, variant.file), ref, seen.around(net) if seen else net, paths, picture, "")


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
