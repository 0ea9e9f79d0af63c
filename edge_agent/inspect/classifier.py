"""Classifiers of pictures, and how a picture goes into a network that is no detector."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_agent.graphs.graph import output_scale
from edge_agent.inspect import kinds, names, picture
from edge_agent.inspect.model_file import ModelFile
from edge_agent.inspect.readings import ENOUGH, best, doubt, summary, try_all, way
from edge_agent.manifest import Seen


def read_classifier(file: ModelFile, kind: kinds.Kind, base: dict[str, Any], reasons: list[str]) -> Seen:
    """A classifier of pictures: probabilities or logits, the names of its classes, and how a picture goes in.

    Numbers for each picture may be anything. That they are classes takes a Softmax, names, or ImageNet's count.
    """
    made = [f"family {kind.family}: {kind.why}", *reasons]

    def refused(why: str) -> Seen:
        return Seen("recognise", kind.family, made, refusal=f"{file.path}: {kind.family}, {kind.why}; {why}")

    def unserved(why: str) -> Seen:
        told = [f"family vector: {kind.why}", *reasons]
        return Seen("recognise", "vector", told, refusal=f"{file.path}: {kind.why}; {why}")

    if kind.classes < 2:
        return unserved("it tells no classes apart; serve it with a task of your own (theirpkg.module:attr)")
    if file.last == "Sigmoid":
        return refused("the graph ends in a Sigmoid, so several labels may hold at once, which is not served")
    shares, why = _shares(file)
    family = kind.family if shares else f"{kind.family}-logits"
    stated, where = names.stated(file.graph, file.path)
    named = len(stated) in (kind.classes, kind.classes - 1)
    if stated and not named and (puzzle := names.unfit(where, kind.classes)):
        return refused(puzzle)
    if not named and (puzzle := kinds.no_classes(file.net, kind, shares)):
        return unserved(puzzle)
    labels, said = names.of_classes(kind.classes, stated, where)
    made = [f"family {family}: {kind.why}, and {why}", *reasons, f"labels: {said}"]
    seen = Seen("recognise", family, made, labels=labels)
    return with_input(file, seen, picture.ways(file.net.inputs[0], file.graph, family, base))


def _shares(file: ModelFile) -> tuple[bool, str]:
    """Whether probabilities come out, or logits; and why."""
    if file.last == "Softmax":
        return True, "the graph ends in a Softmax: probabilities come out"
    scale = output_scale(file.graph, file.net.outputs[0].name)
    if scale and 0.9 < 256 * scale[0] < 1.1 and scale[1] in (0, -128):
        return True, "the output stands for 0..1: probabilities come out"
    return False, f"the graph ends in {file.last or 'nothing that is known'}: logits come out, a softmax follows"


def with_input(file: ModelFile, seen: Seen, ways: picture.Ways) -> Seen:
    """The scale and channel order, as the file says them or as they make sense on the proof pictures."""
    first = replace(seen, input=ways.first, reasons=[*seen.reasons, *ways.reasons])
    if not ways.is_open:
        return first
    if file.look is None:
        return replace(first, reasons=[*first.reasons, f"{way(first)}: taken as most are trained, not tried"])
    tried = try_all(file, first, ways)
    most, turned = best(file, tried)
    told = [*tried, *turned]
    said = summary([(way(row.seen).removeprefix(f"{seen.family} with "), row.worth.what) for row in told])
    tried_all = [*first.reasons, f"tried: {said}"]
    found = most.worth.value >= ENOUGH
    if found and (why := doubt(most, told)):
        return replace(most.seen, refusal=f"{file.path}: {why}", reasons=tried_all)
    if not found or most.worth.alike:
        why = "all answers are the same" if found else "nothing makes sense"
        refusal = (
            f"{file.path}: it is open how its input is meant, and {why} on the proof pictures (tried {said}); "
            "name pictures of what it is for with --proof, say it with --scale and --channels, or write a manifest.toml"
        )
        return replace(first, refusal=refusal, reasons=tried_all)
    return replace(most.seen, reasons=[*first.reasons, f"{way(most.seen)}: tried on the proof pictures, {said}"])
