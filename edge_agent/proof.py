"""The child process in which a model is tried (see prove.py).

A Trial comes in as JSON on stdin, a Result goes out as JSON on stdout. The limits stand before the model is touched.
Detectors are shown the pictures that the program carries (a person, a cat, a cup) and noise, encoders some sentences.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Manifest, Served
from edge_agent.prove import Limits, Result, Trial, Variant
from edge_agent.serving import as_read, input_of, warm
from edge_agent.types import ModelRef, Net, Tensors

MOST_ELEMENTS = 1 << 28
"""numbers in one input"""
LOW = 0.05
"""score of a box that is looked at"""


def main() -> None:
    """Answer the Trial on stdin."""
    # what native libraries print must not stand in the answer
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    trial = msgspec.json.decode(sys.stdin.buffer.read(), type=Trial)
    limit(trial.limits, sum(variant.file.bytes for variant in trial.variants))
    try:
        result = asked(trial)
    except EdgeAgentError as error:
        result = Result(False, " ".join(str(error).split()))
    except MemoryError:
        result = Result(False, f"it needs more than {trial.limits.memory >> 20} MB of memory")
    answer.write(msgspec.json.encode(result))
    answer.flush()
    # not through the runtimes' destructors: the answer is known
    os._exit(0)


def asked(trial: Trial) -> Result:
    """Do what the trial asks for."""
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


def limit(limits: Limits, size: int) -> None:
    """Bound this process: address space, processor time, the clock, no core dumps; first to go when memory is out."""
    cores = len(os.sched_getaffinity(0))
    seconds = math.ceil(limits.seconds)
    # each thread reserves a stack, whatever it uses of it
    memory = limits.memory + 8 * size + (cores << 26)
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds * cores),
    ):
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))
    # should the parent die, nobody else would end this
    signal.setitimer(signal.ITIMER_REAL, limits.seconds + 1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


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
    from edge_agent.sanity import LOOKS

    notes = LOOKS[trial.manifest.task](model, seen)
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
