"""Does a variant (int8, fp16, pruned, another runtime) answer as its parent does? Runs in the child of gate/ask.py.

The samples are sealed: the carried pictures, each also mirrored, darkened and cut, or everyday sentences; and what
the device itself recorded under HOME/samples.

The least of some figures decides, each of them 1 for a variant that answers alike. Detectors: mAP50 of the variant's
boxes against the parent's (those that the parent would report), what each reports of the other's boxes, how many and
how well they lie, what is left of the parent's faint boxes, and what it loses on labels where
HOME/samples/instances.json has some. Encoders: the correlation of the cosines of all pairs of sentences, agreement and
F1 of the labels that heads fitted on each give, and how near the vectors are to the parent's, of long texts too. Text
classifiers and taggers: agreement and F1 of their labels, or of their tags and spans. Classifiers of pictures: how
often the first label is the same, and sure enough. All three: how far the shares of the labels go up and down with the
parent's. Autoencoders: the rank correlation of the reconstruction errors, and how many are of the parent's size.
"""

from __future__ import annotations

import numpy as np

from edge_agent.gate.opened import open_served
from edge_agent.gate.trial import Agree, Result
from edge_agent.tasks import found_at, row_of


def agree(question: Agree) -> Result:
    """How far the first variant agrees with the second. Refused below 1 - max_drop of the manifest."""
    variant, parent = question.variants
    one = open_served(question.manifest, variant, question.parts, question.threads)
    other = open_served(question.parent or question.manifest, parent, question.parent_parts, question.threads)
    agreement, count, measure = found_at(row_of(one).compare)(one, other)
    figures = {"agreement": agreement, "measure": measure, "samples": count, "parent": parent.file.title()}
    figures["max_drop"] = question.manifest.max_drop
    if np.isnan(agreement):
        note = f"not compared: its parent {parent.file.title()} has nothing to say about {count} samples"
        return Result(True, notes=[note], figures={**figures, "agreement": None})
    told = f"{measure} {agreement:.3f} against {parent.file.title()} on {count} samples"
    if agreement < 1 - question.manifest.max_drop:
        least = f"at least {1 - question.manifest.max_drop:.3f} is asked for"
        return Result(False, f"it does not agree with its parent: {told}, {least}", figures=figures)
    return Result(True, notes=[told], figures=figures)
