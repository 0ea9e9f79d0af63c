"""What inspection concludes, and the choice between the readings that a file leaves open."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.manifest import Input, TextInput
from edge_agent.registry import picture
from edge_agent.types import Net

RUNS = (
    "yolox",
    "yolox-decoded",
    "yolov5",
    "yolov6",
    "yolov8",
    "end2end",
    "rtdetr",
    "detr",
    "detr-sigmoid",
    "nanodet",
    "ssd",
    "edge-yolo",
    "bert",
    "bert-classifier",
    "bert-tagger",
    "image-classifier",
    "image-classifier-logits",
    "autoencoder",
    "vae",
)
"""families that the tasks can decode"""
BETTER = 1.2
"""how many times better a candidate must do than a likelier one"""
ENOUGH = 0.15
"""worth below which nothing was found that makes sense"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found, in the manifest's terms."""

    task: str
    family: str
    reasons: list[str]
    input: Input | None = None
    text: TextInput | None = None
    labels: list[str] = field(default_factory=list)
    class_ids: list[int] | None = None
    licence: str = "unknown"
    refusal: str = ""
    """why it cannot be added; empty when it can"""


Look = Callable[[Net, Seen, Mapping[str, Path]], tuple[float, str]]
"""(net, candidate, parts by role) -> what it is worth on proof pictures or sentences (0: nothing makes sense), and
what was found, in a few words"""


def way(seen: Seen) -> str:
    """e.g. yolox with BGR 0..255."""
    return f"{seen.family} with {picture.describe(seen.input)}" if seen.input else seen.family


def best_of(
    net: Net, tries: list[Seen], look: Look, parts: Mapping[str, Path]
) -> tuple[Seen, float, list[tuple[str, str]]]:
    """The candidate that is worth most, where a likelier one is kept unless another is clearly better."""
    best, most = tries[0], -1.0
    told = []
    for seen in tries:
        worth, what = look(net, seen, parts)
        told.append((way(seen), what))
        if worth > max(most, 0) * BETTER or most < 0:
            best, most = seen, worth
    return best, most, told


def summary(told: list[tuple[str, str]]) -> str:
    """What was found in which way; ways with the same outcome stand together."""
    outcomes: dict[str, list[str]] = {}
    for how, what in dict(told).items():
        outcomes.setdefault(what, []).append(how)
    return ", ".join(
        f"{' and '.join(ways) if len(ways) < 4 else f'{len(ways)} ways'}: {what}" for what, ways in outcomes.items()
    )
