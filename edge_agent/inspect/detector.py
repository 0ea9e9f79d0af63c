"""Which reading of a detector's file is served: family, names, scale and channel order that make sense together.

A shape is never believed alone: of several families that it fits, the one serves whose boxes are where the things
are. A preparation serves that does clearly better than any other, or as good as any where everybody trains the
family so; else the user is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from edge_agent.families.family import Family
from edge_agent.families.guess import Guess
from edge_agent.families.table import FAMILIES, RUNS
from edge_agent.graphs.graph import FileGraph, output_scale
from edge_agent.inspect import kinds, names, picture
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.readings import BETTER, ENOUGH, Tried, alike, best, doubt, other, summary, try_all, way
from edge_agent.inspect.refusals import not_served
from edge_agent.manifest import Seen
from edge_agent.types import TensorSpec

Candidate = tuple[Seen, picture.Ways]


def read_detector(file: ModelFile, guesses: list[Guess], base: dict[str, Any], reasons: list[str]) -> Seen:
    """Of the families, namings, scales and channel orders that are open, those that make sense on the proof pictures.

    `guesses`: the heads that fit, at least one of them served; `base`: width, height and layout of the picture.
    """
    candidates = _candidates(file, guesses, base, reasons)
    sound = [(seen, ways) for seen, ways in candidates if not seen.refusal]
    likeliest = candidates[0][0]
    if not sound:
        return likeliest
    if file.look is None:
        return _untried(likeliest, sound)
    others = [guess for guess in guesses if guess.family not in RUNS]
    outcome = _outcome(file, likeliest, sound, others, reasons)
    return next(filter(None, (rule(outcome) for rule in RULES)), None) or _served(outcome)


def _untried(likeliest: Seen, sound: list[Candidate]) -> Seen:
    """The likeliest reading, and that it was not tried where others are as sound."""
    seen, ways = sound[0]
    if likeliest.refusal:
        return likeliest
    if len({row.family for row, _ in sound}) == 1 and not ways.is_open:
        return seen
    return replace(seen, reasons=[*seen.reasons, f"{way(seen)}: taken as this family is trained, not tried"])


def _candidates(file: ModelFile, guesses: list[Guess], base: dict[str, Any], reasons: list[str]) -> list[Candidate]:
    """Every way in which the file may be read, the likeliest first; one whose numbers are lost has a refusal."""
    stated, where = names.stated(file.graph, file.path)
    # TensorFlow's detection API counts classes from 1; its form for TFLite, with a post-process of its own, from 0
    api = not file.tflite and any("detection_classes" in output.name for output in file.net.outputs)
    found = []
    for guess in guesses:
        if guess.family not in RUNS:
            continue
        ways = picture.ways(file.net.inputs[0], file.graph, guess.family, base)
        for labels, ids, why in names.namings(guess.family, guess.classes, stated, where, 1 if api else 0):
            own = [f"family {guess.family}: {guess.why}", *reasons, *ways.reasons, f"labels: {why}"]
            side = max(base["width"], base["height"])
            coarse, lost = one_scale(file.graph, file.net.outputs, guess.family, side, len(labels))
            own += [coarse] if coarse else []
            refusal = f"{file.path}: {coarse}" if lost else ""
            seen = Seen("detect", guess.family, own, input=ways.first, labels=labels, class_ids=ids, refusal=refusal)
            found.append((seen, ways))
    return found


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What trying the readings of a detector has shown."""

    file: ModelFile
    likeliest: Seen
    """by the shapes alone; with a refusal where its boxes clip"""
    sound: list[Candidate]
    """those whose numbers are not lost"""
    tried: list[Tried]
    best: Tried
    told: list[Tried]
    """all that was tried, the other channel order too"""
    others: list[Guess]
    """heads that fit and are not served"""
    reasons: list[str]

    @property
    def said(self) -> str:
        """What was found in which way."""
        return summary([(way(row.seen), row.worth.what) for row in self.told])

    @property
    def alive(self) -> list[str]:
        """Families whose numbers may be meant so."""
        return list(dict.fromkeys(alike(row.seen) for row in reversed(self.tried) if row.worth.value >= 0))

    @property
    def clipped(self) -> str:
        """Why the likeliest reading clips its boxes; "" when it does not."""
        return self.likeliest.refusal.removeprefix(f"{self.file.path}: ")

    def refused(self, why: str) -> Seen:
        """The refusal of a file of which no reading stands out."""
        mend = "name a picture of what it detects with --proof, or write a manifest.toml"
        of = self.likeliest if self.clipped else self.best.seen
        return replace(of, refusal=f"{self.file.path}: {why}; {mend}", reasons=[*of.reasons, f"tried: {self.said}"])

    def best_refused(self, why: str) -> Seen:
        """The best reading, refused."""
        seen = self.best.seen
        return replace(seen, refusal=f"{self.file.path}: {why}", reasons=[*seen.reasons, f"tried: {self.said}"])


def _outcome(
    file: ModelFile, likeliest: Seen, sound: list[Candidate], others: list[Guess], reasons: list[str]
) -> _Outcome:
    """Try every sound reading on the proof pictures."""
    tried = [row for seen, ways in sound for row in try_all(file, seen, ways)]
    most, turned = best(file, tried)
    return _Outcome(file, likeliest, sound, tried, most, [*tried, *turned], others, reasons)


def _is_another_family(outcome: _Outcome) -> Seen | None:
    """No served family fits the numbers, and one that is not served fits the shapes."""
    if outcome.alive or not outcome.others:
        return None
    kind = kinds.of_guess(outcome.others[0])
    return not_served(outcome.file, kind, *outcome.reasons, f"tried: {outcome.said}")


def _finds_nothing(outcome: _Outcome) -> Seen | None:
    """Served all the same where its numbers allow one reading alone: the pictures may show nothing of its classes."""
    if outcome.best.worth.value >= ENOUGH:
        return None
    if only := _only_one(outcome):
        why = f"{way(only)}: its numbers allow no other, and nothing in the proof pictures is its own"
        return replace(only, reasons=[*only.reasons, why])
    why = outcome.clipped or "it is open how its input and output are meant"
    is_nameless = any(seen.labels == names.UNNAMED for seen, _ in outcome.sound)
    unnamed = ", nor as COCO's classes (labels.txt beside it would name others)" if is_nameless else ""
    return outcome.refused(f"{why}, and nothing makes sense on the proof pictures{unnamed} (tried {outcome.said})")


def _only_one(outcome: _Outcome) -> Seen | None:
    """The reading that the numbers and the file's own words leave; None where they leave several."""
    alive = outcome.alive
    settled = [seen for seen, ways in outcome.sound if alike(seen) in alive and not ways.ranges]
    is_open = outcome.best.ways.orders or bool(outcome.others) or len(alive) != 1
    return None if is_open or len(settled) != 1 else settled[0]


def _is_clipped(outcome: _Outcome) -> Seen | None:
    """Where the likeliest reading clips its boxes, another one has to be beyond doubt."""
    if not outcome.clipped or outcome.best.worth.value > 1:
        return None
    return outcome.refused(f"{outcome.clipped}, and nothing else makes sense (tried {outcome.said})")


def _is_of_two_families(outcome: _Outcome) -> Seen | None:
    """Nothing stands where it should, so that the pictures do not tell the families apart."""
    alive = outcome.alive
    if len(alive) + bool(outcome.others) <= 1 or outcome.best.worth.placed:
        return None
    either = " or ".join([*alive, *(guess.family for guess in outcome.others)][:4])
    return outcome.refused(
        f"its output may be read as {either}, and nothing in the proof pictures tells (tried {outcome.said})"
    )


def _has_a_rival(outcome: _Outcome) -> Seen | None:
    """Another reading of the output does nearly as well."""
    rivals = [
        row.worth.value
        for row in outcome.tried
        if row.worth.placed and row.seen.labels != names.UNNAMED and other(row.seen, outcome.best.seen)
    ]
    if max(rivals, default=0.0) * BETTER <= outcome.best.worth.value:
        return None
    return outcome.refused(f"its output makes sense in more than one way (tried {outcome.said})")


def _is_unnamed(outcome: _Outcome) -> Seen | None:
    """Boxes without names serve nobody."""
    if outcome.best.seen.labels != names.UNNAMED:
        return None
    return outcome.best_refused(
        "its boxes are where things are, but its classes are not COCO's: put labels.txt beside it, one name a line"
    )


def _is_in_doubt(outcome: _Outcome) -> Seen | None:
    """Another preparation does about as well."""
    why = doubt(outcome.best, outcome.told)
    return outcome.best_refused(why) if why else None


RULES = (
    _is_another_family,
    _finds_nothing,
    _is_clipped,
    _is_of_two_families,
    _has_a_rival,
    _is_unnamed,
    _is_in_doubt,
)
"""asked in this order; the first that answers decides"""


def _served(outcome: _Outcome) -> Seen:
    seen, ways, worth = outcome.best
    if ways.is_open or len(outcome.alive) > 1:
        why = f"{way(seen)}: tried on the proof pictures, {outcome.said}"
    else:
        why = f"tried on the proof pictures: {worth.what}"
    return replace(seen, reasons=[*seen.reasons, why])


def one_scale(
    graph: FileGraph, outputs: tuple[TensorSpec, ...], family: str, side: int, classes: int
) -> tuple[str, bool]:
    """What it costs that one quantized tensor holds boxes and scores ("" when none does), and whether it is too much.

    A raw YOLOX box needs about -1..4 (the logarithm of its size in strides), a score steps finer than a tenth,
    and finished boxes the index of the last of their classes.
    """
    row = FAMILIES[family]
    if not row.one_tensor or len(outputs) in (6, 8):
        return "", False
    held = next((held for spec in outputs if (held := _held(graph, spec))), None)
    if held is None:
        return "", False
    low, high, scale, kind, name = held
    seen = f"{name} holds {low:.3g}..{high:.3g} in {kind} steps of {scale:.3g}"
    if what := _lost(row, low, high, scale, classes):
        return f"one scale for boxes and scores, so {what}: {seen}", True
    exact = scale * side if high < 2 else scale
    return f"one scale for boxes and scores, so boxes are exact to {exact:.2g} pixels: {seen}", False


def _lost(row: Family, low: float, high: float, scale: float, classes: int) -> str:
    """What is lost of a family's numbers in `low`..`high` in steps of `scale`; "" where nothing is."""
    if row.raw and (high < 2.5 or low > -0.5):
        return "boxes clip"
    if scale > 0.1:
        return "scores are rounded away"
    return "class indices clip" if "c" in row.order and high < classes - 1.5 else ""


def _held(graph: FileGraph, spec: TensorSpec) -> tuple[float, float, float, str, str] | None:
    """Lowest and highest number of a quantized table, its steps, integer type and name; None for any other output."""
    found = (spec.scale, spec.zero_point, spec.dtype) if spec.scale else output_scale(graph, spec.name)
    if not found or not found[0] or len(spec.shape) != 3:
        return None
    scale, zero, kind = found
    low, high = [(v - zero) * scale for v in ((0, 255) if kind == "uint8" else (-128, 127))]
    return low, high, scale, kind, spec.name
