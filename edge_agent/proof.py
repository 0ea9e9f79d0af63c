"""``python -m edge_agent.proof``: the child process in which a model is tried (see prove.py).

A Trial comes in as JSON on stdin, a Result goes out as JSON on stdout. The limits stand before the model is touched.
Detectors are shown the pictures that the program carries (a person, a cat, a cup) and noise, encoders some sentences.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.backends import open_net
from edge_agent.errors import EdgeAgentError, RefusedError
from edge_agent.manifest import Manifest, Served
from edge_agent.prove import Limits, Result, Trial, Variant
from edge_agent.registry import carried, home
from edge_agent.serving import input_of, warm
from edge_agent.sources.files import read_picture
from edge_agent.tasks import make_task
from edge_agent.tasks.detect import Detector
from edge_agent.tasks.encoder import encoder
from edge_agent.types import Detections, Finding, Frame, ModelRef, Net, Tensors, Uri

MOST_ELEMENTS = 1 << 28
"""numbers in one input"""
PICTURES = {"astronaut.png": "person", "chelsea.png": "cat", "coffee.png": "cup"}
"""of deploy/demo, and what they show in the words of COCO"""
LOW = 0.05
"""score of a box that is looked at"""
EXPECTED = 0.1
"""score at which something that is in a picture counts as seen"""
CLIPPED = 0.1
"""share of box coordinates at an end of the scale from which on boxes are clipped; of sound heads it is below 0.001"""
SENTENCES = (
    ("Switch on the light in the kitchen.", "Turn the kitchen lamp on."),
    ("It is going to rain tomorrow.", "The forecast for tomorrow says rain."),
    ("The dog sleeps on the sofa.", "A dog lies asleep on the couch."),
)
"""pairs that mean the same"""


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
    if trial.what == "race":
        from edge_agent.race import race

        return race(trial)
    return load(trial) if trial.what == "load" else prove(trial)


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
    """Only open the file: nothing is known about it yet."""
    (variant,) = trial.variants
    net = open_net(Path(variant.path), variant.file.format, trial.threads)
    _bounded(net)
    return Result(True)


def prove(trial: Trial) -> Result:
    """Run a model on what it is made for and look at what comes out. RefusedError when it makes no sense."""
    assert trial.manifest is not None
    (variant,) = trial.variants
    seen = Recorder()
    model = open_served(trial.manifest, variant, trial.parts, trial.threads, seen)
    notes = {"detect": _detector, "encode": _encoder}[trial.manifest.task](model, seen)
    return Result(True, notes=notes, figures={"engine": model.net.engine, "peak_rss": _peak_rss()})


@dataclass(slots=True)
class Recorder:
    """Keeps what a network gave."""

    outputs: list[dict[str, Any]] = field(default_factory=list)

    def around(self, net: Net) -> Net:
        """The same network, its outputs kept."""

        def run(tensors: Tensors) -> dict[str, Any]:
            self.outputs.append({name: np.array(array) for name, array in net.run(tensors).items()})
            return dict(self.outputs[-1])

        return replace(net, run=run)


def open_served(
    manifest: Manifest, variant: Variant, parts: dict[str, str], threads: int, seen: Recorder | None = None
) -> Served:
    """The model with this variant of its network, warm. RefusedError for a network that is too large or fails."""
    net = open_net(Path(variant.path), variant.file.format, threads)
    _bounded(net)
    picture = input_of(manifest, variant.file)
    warm(net, picture)
    ref = ModelRef(manifest.name, manifest.version, variant.file.sha256)
    paths = {role: Path(path) for role, path in parts.items()}
    return Served(manifest, ref, seen.around(net) if seen else net, paths, picture, "")


def _bounded(net: Net) -> None:
    for spec in net.inputs:
        elements = math.prod(axis or 1 for axis in spec.shape)
        if elements > MOST_ELEMENTS:
            shape = "x".join("?" if axis is None else str(axis) for axis in spec.shape)
            raise RefusedError(
                f'its input "{spec.name}" is {shape}, {elements:.3g} numbers; {MOST_ELEMENTS:.3g} are taken'
            )


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# ── detectors ────────────────────────────────────────────────────────────────────────────────────────────


def frames() -> dict[str, Frame]:
    """The carried pictures by name, and one of noise."""
    shown = {name: read_picture(carried("deploy", "demo", name)) for name in PICTURES}
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    return {**shown, "noise": Frame(noise, time.time(), time.monotonic(), "noise")}


def _detector(model: Served, seen: Recorder) -> list[str]:
    task = make_task(Uri("detect", model.ref.name, {"score": str(LOW)}), lambda _: model, home())
    assert isinstance(task, Detector)
    found = {}
    for name, frame in frames().items():
        try:
            (finding,) = task(frame)
        except EdgeAgentError as error:
            raise RefusedError(f"on the proof picture {name}: {error}") from None
        assert isinstance(finding, Finding) and isinstance(finding.what, Detections)
        found[name] = finding.what
    nothing = not any(len(what) for what in found.values())
    # a head that suppresses in the graph gives zeros when it finds nothing
    if _constant(seen) and (task.family.nms or not nothing):
        raise RefusedError("it gives the same output for three different pictures and for noise")
    if task.family.nms or model.manifest.family == "end2end":
        _one_scale(seen)
    _placed([task.family.decode(outputs, task.head, LOW).xyxy for outputs in seen.outputs], model)
    names = {name.casefold(): key for key, name in model.manifest.names().items()}
    notes = []
    for name, what in found.items():
        best = [f"{what.names[int(what.label[i])]} {what.score[i]:.2f}" for i in range(min(3, len(what)))]
        notes.append(f"{name}: {', '.join(best) or 'nothing'}")
    known = {picture: names[thing] for picture, thing in PICTURES.items() if thing in names}
    right = [p for p, key in known.items() if (found[p].score[found[p].label == key] >= EXPECTED).any()]
    if known and not right:
        things = ", ".join(PICTURES[picture] for picture in known)
        why = f"it names {things}, but sees none of it where it is in the proof pictures ({'; '.join(notes[:3])})"
        # one class may be meant more narrowly than its name says
        if len(known) > 1:
            raise RefusedError(f"{why}: wrong colours, scale, layout or labels in its manifest, or a broken conversion")
        notes.append(f"doubtful: {why}")
    return notes


def _constant(seen: Recorder) -> bool:
    first, *others = seen.outputs
    return all(np.array_equal(first[name], other[name]) for other in others for name in first)


def _one_scale(seen: Recorder) -> None:
    """RefusedError when boxes and scores stand in one tensor that was quantized with one scale, which clips the boxes.

    Such a tensor holds at most 256 different numbers, all of them whole multiples of one step, and its coordinates
    heap up at the ends; seen in the run, so that it is found behind a dequantizing last operator too.
    """
    for name in seen.outputs[0]:
        arrays = [outputs[name] for outputs in seen.outputs if outputs[name].ndim == 3]
        if not arrays or min(arrays[0].shape[1:]) < 6:
            continue
        levels = np.unique(np.concatenate([np.unique(array) for array in arrays]))
        if not 2 <= len(levels) <= 256:
            continue
        step = float(np.diff(levels).min())
        places = (levels - levels[0]) / step
        if places[-1] > 255.5 or np.abs(places - places.round()).max() > 0.01:
            continue
        boxes = np.concatenate([_coordinates(array).ravel() for array in arrays])
        scores = np.concatenate([_others(array).ravel() for array in arrays])
        low, high = float(levels[0]), float(levels[-1])
        clipped = float(((boxes == low) | (boxes == high)).mean())
        scale = f'its output "{name}" has one int8 scale ({step:.3g}) for boxes and scores'
        if clipped > CLIPPED:
            raise RefusedError(
                f"{scale}, so boxes clip: {clipped:.0%} of the coordinates are at {low:.3g} or {high:.3g}; "
                "convert it with the boxes and the scores as two outputs, or with a float output"
            )
        if not scores.any():
            raise RefusedError(f"{scale}, so every score becomes 0; convert it with boxes and scores as two outputs")


def _coordinates(array: Any) -> Any:
    """The four box numbers of each point: the shorter of the two axes holds what is said about a point."""
    return array[:, :, :4] if array.shape[2] < array.shape[1] else array[:, :4]


def _others(array: Any) -> Any:
    return array[:, :, 4:] if array.shape[2] < array.shape[1] else array[:, 4:]


def _placed(boxes: list[Any], model: Served) -> None:
    """RefusedError when the boxes found cannot be meant: off the picture, of no size, or one and the same."""
    assert model.input is not None
    wide, high = model.input.width, model.input.height
    xyxy = np.concatenate(boxes)
    if len(xyxy) < 2:
        return
    centre, size = (xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]
    off = ((centre < 0) | (centre > (wide, high))).any(axis=1).mean()
    flat = (size < 0.5).any(axis=1).mean()
    if off > 0.5:
        raise RefusedError(
            f"{off:.0%} of the {len(xyxy)} boxes in the proof pictures lie outside: wrong family or size"
        )
    if flat > 0.5:
        raise RefusedError(f"{flat:.0%} of the {len(xyxy)} boxes in the proof pictures have no area: wrong family")
    if len(xyxy) >= 10 and len(np.unique(xyxy.round(), axis=0)) == 1:
        raise RefusedError(f"all {len(xyxy)} boxes in the proof pictures are the same one")


# ── encoders ─────────────────────────────────────────────────────────────────────────────────────────────


def _encoder(model: Served, seen: Recorder) -> list[str]:
    vectors = encoder(model).embed_many([sentence for pair in SENTENCES for sentence in pair]).astype(np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if np.ptp(vectors, axis=0).max() < 1e-6:
        raise RefusedError("it gives the same vector for six different sentences")
    cosine = unit @ unit.T
    alike = float(np.mean([cosine[i, i + 1] for i in range(0, len(unit), 2)]))
    apart = float(np.mean([cosine[i, j] for i, j in combinations(range(len(unit)), 2) if i // 2 != j // 2]))
    notes = [f"cosine of sentences that mean the same {alike:.2f}, of others {apart:.2f}"]
    if alike <= apart:
        notes.append("doubtful: sentences that mean the same are no closer to each other than others")
    return notes


if __name__ == "__main__":
    main()
